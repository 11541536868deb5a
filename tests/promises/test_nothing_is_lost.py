"""Whatever happens at whichever write: readers see what was published, and the same command again ends as if nothing had happened."""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from flows import maintain, resume, rollback, status
from pipelines.errors import RevectorError, SourceMissing
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from storage import open_published
from tests.conftest import Workplace
from tests.support.faults import Died, Write, dying, failing, intercepted, overtaken, small_scale
from workers.encoders.encoder import encode
from workers.encoders.loading import load_encoder
from workers.runs import session

MODELS = [f'name = "hash", dimensions = 16, prompt = "{prompt}"' for prompt in ("", "new: ")]
Files = dict[str, dict[str, str]]
Texts = dict[str, str]
OnWrite = Callable[[int, str, Write], Any]


@dataclass(frozen=True)
class Placed(Workplace):
    """With its store somewhere else."""

    place: str

    @property
    def store(self) -> str:
        return self.place

    def spec(self, *args: Any, **options: Any) -> None:
        super().spec(*args, **options)
        self.config.write_text(f'store = "{self.place}"\n{self.config.read_text()}')


def write_corpus(workplace: Workplace, files: Files) -> None:
    """Replace all that is there."""
    shutil.rmtree(workplace.root / "data")
    for name, documents in files.items():
        workplace.write(name, documents)
    (workplace.root / "data").mkdir(exist_ok=True)


def meant(files: Files) -> Texts:
    """What readers of a corpus should get: of two documents with one id the first in the order of files."""
    return {f"{id}#0": text for name in sorted(files, reverse=True) for id, text in files[name].items()}


def read(workplace: Workplace) -> Texts:
    """What readers get. Fails if a chunk is there twice, or a vector is not that of its text in the published space."""
    published = open_published(workplace.store, "docs")
    rows = published.table.to_arrow()
    texts = dict(zip(rows["chunk_id"].to_pylist(), rows["text"].to_pylist(), strict=True))
    assert len(texts) == len(rows)
    encoder = load_encoder(resolve_model(ModelSpec(**published.publication.model_spec())))
    assert encoder.model.space.id == published.publication.space
    if texts:
        stored = np.stack(rows["vector"].to_numpy(zero_copy_only=False)).astype(np.float32)
        assert np.abs(stored - encode(encoder, rows["text"].to_pylist(), "document").vectors).max() < 1e-2
    return texts


def suffer(command: Callable[[], object], on_write: OnWrite) -> list[str]:
    """Run `command`, which may die, or end with an error of ours. Gives the writes that it tried."""
    with intercepted(on_write) as names, suppress(Died, RevectorError, OSError):
        command()
    return names


def again(command: Callable[[], Any]) -> Any:
    """The same command after a fault; the holder of the fence is this process, which lives on."""
    with intercepted(lambda _number, _name, write: write()):
        return command()


BEFORE: Files = {"a.parquet": {f"d{n}": f"text {n % 5}" for n in range(8)}, "b.parquet": {"d20": "text 2", "d21": "only here"}}
AFTER: Files = {"a.parquet": {f"d{n}": f"text {n % 3}, edited" for n in range(2, 10)}, "c.parquet": {"d21": "moved"}}
LATER: Files = {"a.parquet": {f"d{n}": "later" for n in range(4)}, "d.parquet": {"d30": "text 3"}}


@pytest.mark.parametrize(
    "meanwhile",
    [
        pytest.param(BEFORE, id="set back"),
        pytest.param(AFTER, id="as it is", marks=pytest.mark.nightly),
        pytest.param(LATER, id="edited again", marks=pytest.mark.nightly),
    ],
)
def test_a_run_that_is_paused_at_any_write_and_overtaken_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: Files
) -> None:
    """The second run finds another corpus than the first, or the same; what the first still writes is known for what it is."""
    monkeypatch.setattr(session, "require_sound", lambda store: None)  # each copy would be examined anew
    (tmp_path / "origin").mkdir()
    origin = Workplace(tmp_path / "origin")
    (origin.root / "data").mkdir()
    origin.spec(rest="gates = { max_removed = 1 }")
    write_corpus(origin, BEFORE)
    origin.apply()
    write_corpus(origin, AFTER)
    copies = (Workplace(Path(shutil.copytree(origin.root, tmp_path / f"copy{n}"))) for n in count())
    undisturbed = next(copies)
    writes = suffer(undisturbed.apply, lambda _number, _name, write: write())
    assert len(writes) > 15
    for at, (name, workplace) in enumerate(zip(writes, copies, strict=False), 1):

        def other(workplace: Workplace = workplace) -> None:
            write_corpus(workplace, meanwhile)
            workplace.apply()
            assert read(workplace) == meant(meanwhile)

        suffer(workplace.apply, overtaken(at, other))
        assert read(workplace) == meant(meanwhile), name
        again(workplace.apply)
        assert read(workplace) == meant(meanwhile), name
        assert again(workplace.apply).status == "nothing", name
        shutil.rmtree(workplace.root)


FAULTS: dict[str, Callable[[int, Callable[[], object]], OnWrite]] = {
    "dies before": lambda at, _: dying(at, landed=False),
    "dies after": lambda at, _: dying(at, landed=True),
    "refused": lambda at, _: failing(at, landed=False),
    "reply lost": lambda at, _: failing(at, landed=True),
    "overtaken": overtaken,
}
names = st.sampled_from(["a.parquet", "b.parquet", "c.parquet"])
documents = st.dictionaries(st.integers(0, 9).map("d{}".format), st.sampled_from([f"text {n}" for n in range(6)]), min_size=1, max_size=6)
faults = st.tuples(st.sampled_from(sorted(FAULTS)), st.integers(1, 40))


class Platform(RuleBasedStateMachine):
    """A collection beside a dict of its files. Commands are disturbed, edits come in between, models change: readers always get a whole
    corpus in one space, and once a command has been given again, the one that is meant."""

    def place(self) -> str:
        """Where the store is."""
        return str(self.folder / "store")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        (self.folder / "data").mkdir()
        self.workplace = Placed(self.folder, self.place())
        self.small = small_scale()
        self.small.__enter__()
        self.model = self.edits = 0
        self.declare()
        self.files: Files = {}
        self.edit("a.parquet", {"d0": "text 0"})
        self.workplace.apply()
        self.settle()

    def teardown(self) -> None:
        if hasattr(self, "small"):
            self.small.__exit__(None, None, None)
            shutil.rmtree(self.folder)

    def declare(self, gates: str = "max_failed = 1, max_removed = 1") -> None:
        candidates = "" if self.model else f"candidates = [{{ {MODELS[1]} }}]\n"
        self.workplace.spec(
            model=MODELS[self.model], rest=f"{candidates}retention = {{ publications = 3, days = 0 }}\ngates = {{ {gates} }}"
        )

    def edit(self, name: str, held: Texts) -> None:
        """Always to something that was not there before."""
        self.edits += 1
        self.files = {**self.files, name: {**held, "marker": f"edit {self.edits}"}}
        write_corpus(self.workplace, self.files)

    def settle(self) -> None:
        self.seen = read(self.workplace)
        """What readers have."""
        assert self.seen == meant(self.files)
        self.applied = dict(self.files)
        """What was last applied: files that say the same may be others."""
        assert again(self.workplace.apply).change == "none"
        (found,) = status("docs", self.workplace.config)["collections"]
        assert found["backlog"] == 0

    @rule(name=names, held=documents)
    def edit_a_file(self, name: str, held: Texts) -> None:
        self.edit(name, held)

    @rule(data=st.data())
    def remove_a_file(self, data: st.DataObject) -> None:
        del self.files[data.draw(st.sampled_from(sorted(self.files)))]
        self.edit("z.parquet", {})

    @rule()
    def change_the_model(self) -> None:
        self.model = 1 - self.model
        self.declare()

    @rule(fault=faults, name=names, held=documents)
    def apply(self, fault: tuple[str, int], name: str, held: Texts) -> None:
        """Disturbed once. If it is overtaken, the other run finds another corpus."""
        kind, at = fault
        allowed = [self.seen, meant(self.files)]

        def other() -> None:
            self.edit(name, held)
            self.workplace.apply()
            allowed[:] = [meant(self.files)]
            assert read(self.workplace) in allowed

        suffer(self.workplace.apply, FAULTS[kind](at, other))
        assert read(self.workplace) in allowed
        again(self.workplace.apply)
        self.settle()

    @precondition(lambda self: self.applied == self.files)
    @rule(fault=faults, erase=st.booleans())
    def maintain(self, fault: tuple[str, int], erase: bool) -> None:
        """Disturbed once; another run that takes over is one that applies."""
        kind, at = fault

        def command() -> object:
            return maintain("docs", self.workplace.config, erase=erase)

        suffer(command, FAULTS[kind](at, self.workplace.apply))
        assert read(self.workplace) == self.seen
        again(command)
        assert read(self.workplace) == self.seen

    @precondition(lambda self: self.edits > 1)
    @rule(fault=faults)
    def roll_back(self, fault: tuple[str, int]) -> None:
        kind, at = fault
        suffer(lambda: rollback("docs", self.workplace.config), FAULTS[kind](at, lambda: None))
        seen = read(self.workplace)
        self.edit("a.parquet", {})
        again(self.workplace.apply)
        if self.pinned():
            assert read(self.workplace) == seen
            suffer(lambda: resume("docs", self.workplace.config), FAULTS[kind](at, lambda: None))
            if self.pinned():
                again(lambda: resume("docs", self.workplace.config))
            again(self.workplace.apply)
        self.settle()

    def pinned(self) -> bool:
        return status("docs", self.workplace.config)["collections"][0]["pin"] is not None

    @precondition(lambda self: self.applied == self.files)
    @rule()
    def lose_the_source_for_a_while(self) -> None:
        self.declare(gates="max_failed = 1")
        write_corpus(self.workplace, {})
        with suppress(SourceMissing):  # a model that is not built yet, is built from what is stored
            again(self.workplace.apply)
        assert read(self.workplace) == self.seen
        self.declare()
        write_corpus(self.workplace, self.files)
        again(self.workplace.apply)
        self.settle()

    @precondition(lambda self: self.applied == self.files)
    @rule(fault=faults, data=st.data())
    def break_a_file_for_a_while(self, fault: tuple[str, int], data: st.DataObject) -> None:
        kind, at = fault
        name = data.draw(st.sampled_from(sorted(self.files)))
        (self.folder / "data" / name).write_bytes(b"no Parquet")
        elsewhere = meant({other: held for other, held in self.files.items() if other != name})
        suffer(self.workplace.apply, FAULTS[kind](at, self.workplace.apply))
        assert read(self.workplace) in (self.seen, self.seen | elsewhere)
        again(self.workplace.apply)
        assert read(self.workplace) == self.seen | elsewhere
        write_corpus(self.workplace, self.files)
        again(self.workplace.apply)
        self.settle()


class OnS3(Platform):
    """The same on an object store."""

    bucket: str

    def place(self) -> str:
        return f"{self.bucket}/{self.folder.name}"


def lives(machine: type[Platform], examples: int) -> None:
    """Failures are not shrunk: that takes longer than reading them."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=8,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        ),
    )


def test_any_life_under_faults_ends_where_an_undisturbed_one_does() -> None:
    lives(Platform, 8)


@pytest.mark.nightly
def test_any_long_life_under_faults_ends_where_an_undisturbed_one_does() -> None:
    lives(Platform, 150)


@pytest.mark.nightly
def test_any_life_under_faults_on_s3_ends_where_an_undisturbed_one_does(bucket: str) -> None:
    OnS3.bucket = bucket
    lives(OnS3, 25)
