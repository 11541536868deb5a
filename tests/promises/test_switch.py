"""A model is changed while readers read and the run dies at any write: they never see two models in one answer, and nothing is lost."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lance import LanceDataset

from flows import apply, promote, rollback, status
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from storage import open_published
from storage.store.objects import Objects
from storage.who import Holder
from tests.conftest import Workplace
from workers.encoders.encoder import encode
from workers.encoders.loading import load_encoder
from workers.runs import session
from workers.runs.filling import Filling

OLD, NEW, CANDIDATE = (f'name = "hash", dimensions = 16, prompt = "{prompt}"' for prompt in ("", "new: ", "candidate: "))
BEFORE = {f"d{number}": f"text {number % 9}" for number in range(12)}
AFTER = {f"d{number}": f"text {number % 7}, edited" for number in range(3, 15)}


class Died(BaseException):
    """As after kill -9: nothing is written any more."""


@contextmanager
def dying(at: int, landed: bool) -> Iterator[list[str]]:
    """The process dies at its write number `at`, before it or when it has `landed`. Gives the writes that were made."""
    writes: list[str] = []

    def mortal(name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def attempt(*args: Any, **options: Any) -> Any:
            writes.append(name)
            if len(writes) > at or (len(writes) == at and not landed):
                raise Died
            result = write(*args, **options)
            if len(writes) == at:
                raise Died
            return result

        return attempt

    with pytest.MonkeyPatch.context() as patch:
        for name in ("put", "put_if_absent"):
            patch.setattr(Objects, name, mortal(name, getattr(Objects, name)))
        patch.setattr(LanceDataset, "commit", staticmethod(mortal("commit", LanceDataset.commit)))
        yield writes


def check_readers(workplace: Workplace) -> None:
    """What is published is one corpus in one space, whole."""
    published = open_published(workplace.store, "docs")
    texts = workplace.texts()
    assert texts in ({f"{id}#0": text for id, text in corpus.items()} for corpus in (BEFORE, AFTER))
    encoder = load_encoder(resolve_model(ModelSpec(**published.publication.model_spec())))
    rows = published.table.to_arrow()
    stored = np.stack(rows["vector"].to_numpy(zero_copy_only=False)).astype(np.float32)
    assert encoder.model.space.id == published.publication.space
    assert np.abs(stored - encode(encoder, rows["text"].to_pylist(), "document").vectors).max() < 1e-2


def prepared(folder: Path) -> Workplace:
    """The old model published; since then the documents were edited, the model changed, and a candidate declared."""
    folder.mkdir(exist_ok=True)
    workplace = Workplace(folder)
    workplace.spec(model=OLD)
    workplace.write("a.parquet", BEFORE)
    workplace.apply()
    workplace.write("a.parquet", AFTER)
    workplace.spec(model=NEW, rest=f"candidates = [{{ {CANDIDATE} }}]")
    return workplace


@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    "landed", [pytest.param(False, id="before the write", marks=pytest.mark.nightly), pytest.param(True, id="after the write")]
)
def test_a_switch_that_dies_at_any_write_is_finished_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, landed: bool
) -> None:
    monkeypatch.setattr(Holder, "dead", lambda self: True)  # it is this process, which lives on
    monkeypatch.setattr(session, "require_sound", lambda store: None)  # each copy would be examined anew
    monkeypatch.setattr(Filling, "_may_run_here", lambda self: True)  # after a bad end it would be Ray, which plays no part here
    prepared(tmp_path / "origin")
    at, survived = 0, False
    while not survived:
        at += 1
        workplace = Workplace(Path(shutil.copytree(tmp_path / "origin", tmp_path / f"at{at}")))
        try:
            with dying(at, landed) as writes:
                workplace.apply()
            survived = True
        except Died:
            check_readers(workplace)
        done = workplace.apply()
        assert done.status in {"published", "nothing"}
        check_readers(workplace)
        assert open_published(workplace.store, "docs").publication.model_spec()["prompt"] == "new: "
        (found,) = status("docs", workplace.config)["collections"]
        assert ("published", 12, 0) in {(each["state"], each["vectors"], each["backlog"]) for each in found["generations"]}
        assert workplace.apply().status == "nothing"
        shutil.rmtree(workplace.root)
    assert at > 20, writes


def test_a_reader_in_a_loop_never_gets_two_models_in_one_answer(tmp_path: Path) -> None:
    workplace = prepared(tmp_path)
    spaces: list[str] = []
    wrong: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            published = open_published(workplace.store, "docs")
            encoder = load_encoder(resolve_model(ModelSpec(**published.publication.model_spec())))
            (text,) = published.table.search().limit(1).to_arrow()["text"].to_pylist()
            hit = published.table.search(encode(encoder, [text], "document").vectors[0]).limit(1).to_list()[0]
            if hit["text"] != text or hit["_distance"] > 1e-3 or encoder.model.space.id != published.publication.space:
                wrong.append(published.publication.space)
            spaces.append(published.publication.space)

    reader = threading.Thread(target=read)
    reader.start()
    new = apply(config=workplace.config).generation
    for _ in range(3):
        rollback("docs", workplace.config)
        promote("docs", new, workplace.config)
    stop.set()
    reader.join()
    assert not wrong
    assert len(set(spaces)) == 2, len(spaces)
