"""Upkeep changes the layout, never the rows; what it removes is what nobody can ask for again; a crash anywhere costs nothing."""

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from lance import LanceDataset
from lance.dataset import Tags
from lance.optimize import Compaction

from flows import drop, history, maintain, promote, resume, rollback, search, status
from pipelines.errors import Conflict, NotFound, RevectorError, SpecError, StorageError
from pipelines.spec.declared import RetentionSpec
from storage import open_published, who
from storage.collection import Collection
from storage.history import heartbeat
from storage.history.catalog import Publication, current, publications
from storage.history.fence import take_fence
from storage.store.commit import Change, commit
from storage.store.lance import Store
from storage.store.objects import Objects
from storage.upkeep import maintenance
from storage.upkeep.retention import given_up
from tests.conftest import Workplace
from tests.support.faults import small_scale
from workers.upkeep.steps import Steps

FOREVER = "retention = { publications = 10, days = 30 }"
SHORT = "retention = { publications = 1, days = 0 }"


@pytest.fixture(autouse=True)
def _soon() -> Iterator[None]:
    """Little must pile up before something is done, and nothing is too young to go."""
    with small_scale():
        yield


def documents(*numbers: int, word: str = "text") -> dict[str, str]:
    return {f"d{number}": f"{word} of document {number}" for number in numbers}


def files(workplace: Workplace) -> dict[str, bytes]:
    """All that the store has, but for the mart that says when the source was last looked at."""
    root = Path(workplace.store)
    every = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in every.items() if "/marts.d/collections/" not in name}


def data_files(workplace: Workplace) -> int:
    """That some version refers to: what a crash left uncommitted stays for seven days."""
    store = Store(workplace.store)
    tracked = (store.open(table).tracked_files().read_all() for table in store.tables("docs."))
    return sum(len({path for path in files["path"].to_pylist() if path.startswith("data/")}) for files in tracked)


def of_tables(workplace: Workplace) -> list[str]:
    return [name for name in files(workplace) if name.startswith("docs.")]


def generation(workplace: Workplace) -> str:
    found = current(Collection(Store(workplace.store), "docs"))
    assert found is not None
    return found.generation


def hits(workplace: Workplace, text: str) -> list[tuple[str, float]]:
    return [(hit["chunk_id"], hit["score"]) for hit in search("docs", text, workplace.config, k=3)]


class Life(RuleBasedStateMachine):
    """A collection beside a dict of its documents and a stack of what can be rolled back to."""

    numbers = st.lists(st.integers(0, 40), min_size=1, max_size=30, unique=True)

    @initialize(retention=st.sampled_from([FOREVER, SHORT]))
    def begin(self, retention: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.workplace = Workplace(self.folder)
        self.scale = small_scale()
        self.scale.__enter__()
        self.workplace.spec(rest=retention)
        self.kept = retention == FOREVER
        self.corpus: dict[str, dict[str, str]] = {}
        self.edits = 0
        self.stack: list[dict[str, str]] = []
        self.applied: dict[str, str] | None = None
        self.readers: list[tuple[Any, dict[str, str]]] = []
        self.load(list(range(35)), "a.parquet")
        self.apply()

    def teardown(self) -> None:
        if hasattr(self, "scale"):
            self.scale.__exit__(None, None, None)
            shutil.rmtree(self.folder)

    @rule(numbers=numbers, name=st.sampled_from(["a.parquet", "b.parquet"]))
    def load(self, numbers: list[int], name: str) -> None:
        """A file with other documents than it had, or other texts; ids are the file's own."""
        self.edits += 1
        self.corpus[name] = {f"{name}-{id}": text for id, text in documents(*numbers, word=f"edit {self.edits % 3}").items()}
        self.workplace.write(name, self.corpus[name])

    @rule()
    def apply(self) -> None:
        done = self.workplace.apply()
        desired = {f"{id}#0": text for held in self.corpus.values() for id, text in held.items()}
        assert done.status == ("nothing" if desired == self.applied else "published")
        if desired != self.applied:
            self.stack.append(desired)
        self.applied = desired

    @rule()
    def maintain(self) -> None:
        before = self.workplace.published()
        some = next(iter(self.stack[-1].values()))
        found = hits(self.workplace, some)
        maintain(config=self.workplace.config)
        assert self.workplace.published().equals(before)
        assert hits(self.workplace, some)[0] == found[0]
        assert maintain(config=self.workplace.config).status == "nothing"

    @rule()
    def roll_back(self) -> None:
        if len(self.stack) == 1:
            with pytest.raises(NotFound):
                rollback(config=self.workplace.config)
            return
        try:
            rollback(config=self.workplace.config)
        except NotFound:
            assert not self.kept
        else:
            self.stack.pop()

    @rule()
    def open_reader(self) -> None:
        if self.kept:
            self.readers.append((open_published(self.workplace.store, "docs").table, self.stack[-1]))

    @invariant()
    def readers_get_the_model(self) -> None:
        if not hasattr(self, "stack"):
            return
        assert self.workplace.texts() == self.stack[-1]
        for table, expected in self.readers:
            rows = table.to_arrow()
            assert dict(zip(rows["chunk_id"].to_pylist(), rows["text"].to_pylist(), strict=True)) == expected


Life.TestCase.settings = settings(
    max_examples=6, stateful_step_count=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestLife = Life.TestCase


def grown(workplace: Workplace, retention: str = FOREVER) -> dict[str, str]:
    """A collection with several small fragments, deleted rows, several publications and parts of an index."""
    workplace.spec(rest=retention)
    held = documents(*range(40))
    for step in range(4):
        held = held | documents(*range(40 + 5 * step, 45 + 5 * step)) | documents(step, step + 7, word=f"edit {step}")
        workplace.write("a.parquet", held)
        assert workplace.apply().status == "published"
    return {f"{id}#0": text for id, text in held.items()}


def test_maintenance_joins_fragments_and_parts_and_then_there_is_nothing_to_do(workplace: Workplace) -> None:
    held = grown(workplace)
    before = workplace.published()
    done = maintain(config=workplace.config)
    assert done.status == "maintained"
    assert {each.table.split(".")[1] for each in done.tables} == {"chunks", "vectors"}
    assert all(each.fragments[0] > each.fragments[1] == 1 for each in done.tables)
    assert [each.index_parts for each in done.tables] == [(0, 0), (4, 1)]
    assert workplace.published().equals(before)
    assert workplace.texts() == held
    assert hits(workplace, "edit 1 of document 8")[0] == ("d8#0", 1.0)

    there = files(workplace)
    assert maintain(config=workplace.config).status == "nothing"
    assert workplace.plan().pending is False
    assert workplace.apply().status == "nothing"
    assert files(workplace) == there


def double(workplace: Workplace) -> None:
    """As a run does that was paused between its look at the fence and its commit: rows that are there already."""
    store, table = Store(workplace.store), generation(workplace)
    dataset = store.open(table)
    again = store.stage(table, dataset.schema, dataset.to_table(limit=3).to_batches())
    commit(store, dataset, Change(np.zeros(0, np.uint64), again), {"token": "1"})


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (Steps, "begin"),  # before it looks at the tables
        (LanceDataset, "commit_existing_index_segments"),
        (Compaction, "commit"),
    ],
)
def test_maintenance_publishes_no_commit_of_another_run(workplace: Workplace, where: Any, name: str) -> None:
    held = grown(workplace)
    real, landed = getattr(where, name), []

    def after(*args: Any, **options: Any) -> Any:
        made = real(*args, **options)
        if not landed:
            landed.append(True)
            double(workplace)
        return made

    with patch.object(where, name, after), suppress(Conflict):
        maintain(config=workplace.config)
    assert landed
    assert workplace.texts() == held
    maintain(config=workplace.config)
    assert workplace.texts() == held
    workplace.apply()
    assert workplace.texts() == held


def test_an_erasure_fails_where_another_run_has_committed(workplace: Workplace) -> None:
    grown(workplace)
    real = Steps.move

    def after(steps: Steps) -> None:
        real(steps)
        double(workplace)

    with patch.object(Steps, "move", after), pytest.raises(StorageError, match="which another run has committed"):
        maintain(config=workplace.config, erase=True)


def test_rollback_after_maintenance_goes_to_what_was_before_it(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(1, 2))
    workplace.apply()
    first = workplace.published()
    workplace.write("a.parquet", documents(1, 2, 3))
    workplace.apply()
    assert maintain(config=workplace.config).published == 3
    rollback(config=workplace.config)
    assert workplace.published().equals(first)


def test_maintenance_undoes_no_rollback(workplace: Workplace) -> None:
    grown(workplace)
    rollback(config=workplace.config)
    rows = workplace.published()
    maintain(config=workplace.config)
    assert workplace.apply().status == "nothing"
    assert workplace.published().equals(rows)


@pytest.mark.parametrize(("retention", "passes"), [(FOREVER, 0), (SHORT, 20)])
def test_a_revert_costs_nothing_as_long_as_the_publication_is_kept(workplace: Workplace, retention: str, passes: int) -> None:
    workplace.spec(rest=retention)
    workplace.write("a.parquet", documents(*range(20)))
    workplace.apply()
    workplace.write("a.parquet", documents(*range(20), word="other"))
    workplace.apply()
    maintain(config=workplace.config)
    maintain(config=workplace.config)
    workplace.write("a.parquet", documents(*range(20)))
    assert workplace.apply().embed["contents"] == passes


def test_what_retention_gives_up_is_removed_and_said_so(workplace: Workplace) -> None:
    held = grown(workplace, SHORT)
    before = len(files(workplace))
    done = maintain(config=workplace.config)
    assert done.given_up == [1, 2, 3, 4]
    assert data_files(workplace) == 2
    assert len(files(workplace)) < before
    assert workplace.texts() == held
    with pytest.raises(NotFound, match="removed"):
        rollback(config=workplace.config)
    assert [bool(row["removed"]) for row in history(config=workplace.config)["published"]] == [True] * 4 + [False]


def test_staged_files_of_a_run_survive(workplace: Workplace) -> None:
    grown(workplace, SHORT)
    store, name = Store(workplace.store), generation(workplace)
    rows = store.open(name).to_table(limit=1)
    staged = store.stage(name, rows.schema, rows.to_batches())
    maintain(config=workplace.config)
    before = store.open(name)
    after = commit(store, before, Change(pa.array([], pa.uint64()).to_numpy(), staged), {})
    assert after.count_rows() == before.count_rows() + 1


def test_upkeep_waits_for_no_run_and_disturbs_none(workplace: Workplace) -> None:
    grown(workplace)
    take_fence(Collection(Store(workplace.store), "docs"), "another")
    there = files(workplace)
    for attempt in (lambda: maintain(config=workplace.config), lambda: maintain(config=workplace.config, erase=True)):
        with pytest.raises(Conflict, match="in progress"):
            attempt()
    assert files(workplace) == there


class Crash(BaseException):
    pass


WRITES: list[tuple[Any, str]] = [
    (LanceDataset, "commit_existing_index_segments"),
    (LanceDataset, "cleanup_old_versions"),
    (LanceDataset, "commit"),
    (Compaction, "commit"),
    (Tags, "create"),
    (Tags, "delete"),
    (Objects, "put"),
    (Objects, "put_if_absent"),
    (Objects, "delete"),
]


@contextmanager
def crash_after(writes: int) -> Iterator[list[int]]:
    """The process dies when so many writes are done: from then on none has an effect. Yields the count."""
    done = [0]

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if done[0] >= writes:
                raise Crash
            done[0] += 1
            return real(*args, **options)

        return call

    static = {"commit"}
    with patch.object(heartbeat.Heartbeat, "_beat"):
        patches = []
        for owner, name in WRITES:
            wrapped: Any = dying(getattr(owner, name))
            patches.append(_replaced(owner, name, staticmethod(wrapped) if name in static else wrapped))
        try:
            for each in patches:
                each.__enter__()
            yield done
        finally:
            for each in reversed(patches):
                each.__exit__(None, None, None)


def _replaced(owner: Any, name: str, new: Any) -> Any:
    if owner is Compaction:  # of the native module: its attributes cannot be set
        stand_in = type("Compaction", (), {"plan": staticmethod(Compaction.plan), name: new})
        return patch.object(maintenance, "Compaction", stand_in)
    return patch.object(owner, name, new)


def crash_everywhere(workplace: Workplace, command: Callable[[], Any], check: Callable[[], None]) -> int:
    """Crash `command` after each of its writes; the same command again must end well. Gives the number of writes."""
    template = workplace.root / "template"
    Path(workplace.store).rename(template)
    writes = 0
    with patch.object(who.Holder, "dead", return_value=True):
        while True:
            shutil.rmtree(workplace.store, ignore_errors=True)
            shutil.copytree(template, workplace.store)
            with crash_after(writes):
                try:
                    command()
                    return writes
                except Crash:
                    pass
            command()
            check()
            writes += 1


@pytest.mark.timeout(120)
def test_maintenance_that_crashes_at_any_write_is_finished_by_the_same_command(workplace: Workplace) -> None:
    grown(workplace, SHORT)
    rows = workplace.published()

    def check() -> None:
        assert workplace.published().equals(rows)
        assert data_files(workplace) == 2
        assert maintain(config=workplace.config).status == "nothing"

    assert crash_everywhere(workplace, lambda: maintain(config=workplace.config), check) > 15
    assert workplace.apply().status == "nothing"


@pytest.mark.timeout(120)
def test_after_a_crash_of_maintenance_an_update_works_and_costs_nothing(workplace: Workplace) -> None:
    held = grown(workplace, SHORT)

    rng = random.Random(0)
    template = workplace.root / "template"
    Path(workplace.store).rename(template)
    with patch.object(who.Holder, "dead", return_value=True):
        for writes in rng.sample(range(15), 4):
            shutil.rmtree(workplace.store, ignore_errors=True)
            shutil.copytree(template, workplace.store)
            with crash_after(writes), pytest.raises(Crash):
                maintain(config=workplace.config)
            assert workplace.apply().embed["contents"] == 0
            assert workplace.texts() == held


CANARY = "Zq7 vX9k 1LmW-canary-8Tb3 pYd0"


def seen(workplace: Workplace, text: str) -> list[str]:
    """Files in which the text lies as it is."""
    return [name for name, content in files(workplace).items() if text.encode() in content]


def test_erasure_leaves_no_byte_of_a_deleted_document(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(*range(10)) | {"secret": CANARY})
    workplace.write("b.parquet", documents(*range(10, 20)))
    workplace.apply()
    workplace.write("a.parquet", documents(*range(10)) | {"secret": "now harmless"})
    workplace.apply()
    assert len(seen(workplace, CANARY)) == 2  # the chunk table and the vectors
    maintain(config=workplace.config)
    assert seen(workplace, CANARY)
    rows = workplace.published()

    done = maintain(config=workplace.config, erase=True)
    assert (done.status, seen(workplace, CANARY)) == ("erased", [])
    assert done.checked == sum(".lance/" in name and "_refs/" not in name and "hint" not in name for name in of_tables(workplace))
    assert workplace.published().equals(rows)
    with pytest.raises(NotFound, match="removed"):
        rollback(config=workplace.config)
    assert workplace.apply().status == "nothing"


def test_erasure_takes_staged_files_and_generations_that_nothing_keeps_current(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(*range(5)) | {"secret": CANARY})
    workplace.apply()
    old = generation(workplace)
    workplace.spec('name = "hash", dimensions = 8')
    workplace.apply()
    workplace.write("a.parquet", documents(*range(5)))
    workplace.apply()
    store, name = Store(workplace.store), generation(workplace)
    (chunks,) = store.tables("docs.chunks.")
    earlier = store.open(chunks, 2).to_table()
    store.stage(chunks, earlier.schema, earlier.to_batches())
    done = maintain(config=workplace.config, erase=True)
    assert done.removed == [old]
    assert store.tables("docs.vectors.") == [name]
    assert seen(workplace, CANARY) == []


def test_erasure_is_refused_unless_what_is_newest_is_what_readers_have(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(1, 2))
    workplace.apply()
    workplace.write("a.parquet", documents(1))
    with pytest.raises(RevectorError, match="1 files changed: run `revector apply docs`"):
        maintain(config=workplace.config, erase=True)
    workplace.apply()
    rollback(config=workplace.config)
    with pytest.raises(RevectorError, match="revector resume docs"):
        maintain(config=workplace.config, erase=True)
    assert workplace.texts() == {f"{id}#0": text for id, text in documents(1, 2).items()}


def test_erasure_that_leaves_something_is_an_error(workplace: Workplace) -> None:
    grown(workplace)
    with patch("workers.upkeep.steps.remove_all_else", return_value=maintenance.Freed()):
        stray = Path(workplace.store) / f"{generation(workplace)}.lance/data/stray.lance"
        stray.write_text(CANARY)
        with pytest.raises(RevectorError, match=r"found 1 others and 0 missing, as data/stray\.lance"):
            maintain(config=workplace.config, erase=True)
    assert maintain(config=workplace.config, erase=True).status == "erased"
    assert not stray.exists()


def two_generations(workplace: Workplace) -> tuple[str, str]:
    workplace.write("a.parquet", documents(*range(10)))
    workplace.apply()
    old = generation(workplace)
    workplace.spec('name = "hash", dimensions = 8', rest='chunking = { by = "document" }')
    workplace.apply()
    return old, generation(workplace)


def test_a_dropped_generation_is_gone_and_its_chunk_table_too(workplace: Workplace) -> None:
    old, new = two_generations(workplace)
    store = Store(workplace.store)
    assert len(store.tables("docs.chunks.")) == 2
    done = drop("docs", old.rpartition(".")[2][:5], workplace.config)
    assert store.tables("docs.") == [table for table in store.tables("docs.") if table not in done.removed]
    assert (store.tables("docs.vectors."), len(store.tables("docs.chunks."))) == ([new], 1)
    assert [row["generation"] for row in history(config=workplace.config)["published"]] == [old, new]
    with pytest.raises(NotFound):
        promote("docs", old, workplace.config)
    with pytest.raises(NotFound, match="removed"):
        rollback(config=workplace.config)
    assert workplace.apply().status == "nothing"
    assert maintain(config=workplace.config).status in ("nothing", "maintained")
    workplace.spec()
    again = workplace.apply()
    assert (again.status, again.generation, again.embed["contents"]) == ("published", old, 10)
    assert workplace.texts() == {f"{id}#0": text for id, text in documents(*range(10)).items()}


def test_what_readers_have_or_the_spec_declares_is_not_dropped(workplace: Workplace) -> None:
    old, new = two_generations(workplace)
    for force in (False, True):
        with pytest.raises(SpecError, match="which is published"):
            drop("docs", new, workplace.config, force=force)
    promote("docs", old, workplace.config)
    with pytest.raises(SpecError, match="--force"):
        drop("docs", new, workplace.config)
    drop("docs", new, workplace.config, force=True)
    assert Store(workplace.store).tables("docs.vectors.") == [old]
    with pytest.raises(NotFound, match="found 0 for 'nonsense'"):
        drop("docs", "nonsense", workplace.config)


@pytest.mark.timeout(120)
def test_a_drop_that_crashes_at_any_write_leaves_a_whole_table_or_none(workplace: Workplace) -> None:
    old, _ = two_generations(workplace)
    rows = workplace.published()

    def drop_or_sweep() -> None:
        store = Store(workplace.store)
        if store.has(old):
            assert store.open(old).to_table().num_rows == 10
            drop("docs", old, workplace.config)
        else:
            maintain(config=workplace.config)

    def check() -> None:
        names = [path.name for path in Path(workplace.store).glob("docs.*")]
        assert len(names) == 2
        assert workplace.published().equals(rows)

    assert crash_everywhere(workplace, drop_or_sweep, check) > 10
    assert workplace.apply().status == "nothing"


def publication(epoch: int, restores: int, at: datetime) -> Publication:
    return Publication(
        "c", epoch, "publish", "g", restores or epoch, "t", 1, "", "{}", 0, 0, restores, "", at.isoformat(timespec="milliseconds"), "", ""
    )


@given(
    gaps=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), min_size=1, max_size=12),
    count=st.integers(1, 5),
    days=st.integers(0, 60),
)
def test_current_newest_and_young_publications_stay(gaps: list[tuple[int, int]], count: int, days: int) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    rows: list[Publication] = []
    for epoch, (gap, back) in enumerate(gaps, 1):
        at += timedelta(days=gap)
        rows.append(publication(epoch, rows[-back].origin if 0 < back <= len(rows) else 0, at))
    now = at + timedelta(days=5)
    going = given_up(rows, RetentionSpec(publications=count, days=days), now)
    tables = {row.version for row in rows if row.epoch not in going}
    assert not tables & {row.version for row in rows if row.epoch in going}
    assert rows[-1].epoch not in going
    assert len(tables) >= min(count, len({row.version for row in rows}))
    for row, after in pairwise(rows):
        if now - datetime.fromisoformat(after.at) < timedelta(days=days):
            assert row.epoch not in going
    if days == 0:
        assert len(tables) <= count
    assert given_up(rows, RetentionSpec(publications=len(rows), days=0), now) == set()


def test_every_published_version_bears_its_tag_again_after_maintenance(workplace: Workplace) -> None:
    grown(workplace)
    store, name = Store(workplace.store), generation(workplace)
    tags = store.open(name).tags
    for tag in list(tags.list()):
        tags.delete(tag)
    tags.create("published-1", 1)  # left by a crash between a tag and its publication
    maintain(config=workplace.config)
    held = {row.version for row in publications(Collection(store, "docs"))}
    assert {tag["version"] for tag in lance.dataset(store.uri(name)).tags.list().values()} == held


def test_an_erasure_leaves_no_id_and_no_name_of_a_file_in_the_records(workplace: Workplace) -> None:
    """But for what the newest run could not read, which is in the corpus."""
    workplace.spec(rest="gates = { max_failed = 1.0, max_removed = 1.0 }")
    workplace.write("a.parquet", documents(*range(20)))
    workplace.write("b-secret.parquet", {"d1": "the id of another", "d-secret": "text"})
    (workplace.root / "data" / "c-secret.parquet").write_bytes(b"no parquet")
    workplace.apply()
    workplace.remove("b-secret.parquet")
    workplace.apply()
    workplace.remove("c-secret.parquet")
    (workplace.root / "data" / "d-broken.parquet").write_bytes(b"no parquet")
    workplace.apply()

    def naming(name: str) -> set[str]:
        named = set()
        for key, data in files(workplace).items():
            lists = pq.read_table(pa.BufferReader(data)).to_pylist() if key.endswith(".parquet") else ""
            if name.encode() in data or name in str(lists):
                named.add(key)
        return named

    assert any("/runs/" in key for key in naming("secret"))
    assert any("/files/" in key for key in naming("secret"))
    maintain(config=workplace.config, erase=True)
    assert naming("secret") == set()
    assert [letter["file"] for letter in status("docs", workplace.config)["collections"][0]["letters"]] == ["d-broken.parquet"]
    assert workplace.apply().status == "partial"


def test_an_erasure_waits_for_the_release_of_a_rollback(workplace: Workplace) -> None:
    """What the rollback keeps from readers would stay in the store, with what was deleted since."""
    workplace.write("a.parquet", {f"d{number}": f"text {number}" for number in range(10)})
    workplace.apply()
    newest = workplace.update().version
    rollback(config=workplace.config, to=newest)
    with pytest.raises(RevectorError, match="revector resume docs"):
        maintain(config=workplace.config, erase=True)
    resume(config=workplace.config)
    assert maintain(config=workplace.config, erase=True).status == "erased"
