"""Corpora whose every answer is known, a reader in a process of its own that checks each one, and runs that a fault may meet."""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import NotFound
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from storage.reading.published import Published, open_published
from storage.store.examination import require_sound
from storage.store.lance import Store
from storage.store.objects import Objects
from tests.support.mortal import FORKS, Ended, Setting, end_with_the_rest, run
from workers.encoders.encoder import encode
from workers.encoders.loading import load_encoder

COLLECTION = "docs"
COLUMNS = ["chunk_id", "doc_id", "text", "metadata", "content_hash", "row_hash", "vector"]
FILES = 3
DOCUMENTS = 60
OLD, NEW = (f'name = "hash", dimensions = 16, prompt = "{prompt}"' for prompt in ("", "new: "))


def corpus(state: int, documents: int = DOCUMENTS) -> dict[int, dict[str, str]]:
    """By file, the texts of all documents: from one state to the next some come, go, are edited, move, or say what another said.

    The document `state` tells which state it is; a mixture of two states is none.
    """
    files: dict[int, dict[str, str]] = {number: {} for number in range(FILES)}
    files[0]["state"] = str(state)
    for number in range(documents):
        if (number + state) % 5:
            files[(number + (number + state) // 7) % FILES][f"d{number}"] = f"text {number % 40}, edition {(number + state) // 3}"
    return files


def meant(state: int, documents: int = DOCUMENTS) -> dict[str, str]:
    """What readers of that corpus get: chunk id -> text."""
    return {f"{id}#0": text for file in corpus(state, documents).values() for id, text in file.items()}


@dataclass(frozen=True)
class Place:
    """A folder with a spec and a corpus, and a store, there or elsewhere."""

    root: Path
    store: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """Where to find the store."""
    documents: int = DOCUMENTS

    def spec(self, model: str = OLD, rest: str = "") -> None:
        source = '{ uri = "data/*.parquet", id = "id", text = "text", metadata = ["file"] }'
        lines = [f'store = "{self.store}"', f"[collections.{COLLECTION}]", f"source = {source}", f"model = {{ {model} }}", rest]
        (self.root / "revector.toml").write_text("\n".join(lines))

    def write(self, state: int) -> None:
        """Replace the corpus: each file at once."""
        (self.root / "data").mkdir(exist_ok=True)
        for number, documents in corpus(state, self.documents).items():
            table = pa.table({"id": list(documents), "text": list(documents.values()), "file": [number] * len(documents)})
            pq.write_table(table, self.root / f".{number}")
            (self.root / f".{number}").replace(self.root / f"data/{number}.parquet")

    def run(self, *arguments: str, setting: Setting = Setting()) -> Ended:  # noqa: B008 - frozen
        """A command, to its end."""
        return run(self.root, *arguments, setting=replace(setting, environment={**self.environment, **setting.environment}))

    def must(self, *arguments: str, setting: Setting = Setting()) -> Ended:  # noqa: B008 - frozen
        """A command that has to do its work."""
        ended = self.run(*arguments, setting=setting)
        if ended.code:
            raise AssertionError(f"expected exit code 0 of {' '.join(arguments)}, found {ended.code}: {ended.line}")
        return ended

    def keep(self) -> dict[str, bytes]:
        """All objects of the store."""
        objects = Objects(self.store)
        return {key: objects.get(key) or b"" for folder in objects.names("") for key in objects.walk(folder)}

    def restore(self, kept: Mapping[str, bytes]) -> None:
        """Make the store what `keep` gave."""
        objects = Objects(self.store)
        with ThreadPoolExecutor(8) as pool:  # on S3 each object takes a while
            list(pool.map(objects.remove, objects.names("")))
            list(pool.map(objects.put, kept, kept.values()))

    def published(self) -> pa.Table:
        """All rows that readers get, by chunk id."""
        return open_published(self.store, COLLECTION).table.to_arrow().select(COLUMNS).sort_by("chunk_id")


def lost_and_doubled(found: pa.Table, expected: pa.Table) -> tuple[int, int]:
    """How many of the `expected` rows are not there as they are, to the last bit of the vector; how many are there beyond those."""
    there, wanted = (Counter(map(repr, rows.to_pylist())) for rows in (found, expected))
    return (wanted - there).total(), (there - wanted).total()


@dataclass(frozen=True, slots=True)
class Seen:
    """What readers saw."""

    answers: int
    errors: tuple[str, ...]
    states: frozenset[tuple[int, int, int]]
    """Epoch, version of the vectors, state of the corpus."""


def look(store: str, documents: int = DOCUMENTS, hold: Callable[[], object] = lambda: None) -> tuple[int, int, int]:
    """One answer, checked: the whole of one state, in the published space, and a search that finds what it looks for.

    `hold` is called before the search, which must not care how long that takes. Raises AssertionError.
    """
    published = open_published(store, COLLECTION)
    rows = published.table.to_arrow()
    texts = dict(zip(rows["chunk_id"].to_pylist(), rows["text"].to_pylist(), strict=True))
    state = int(texts["state#0"])
    assert len(texts) == len(rows), "a chunk is there twice"
    assert texts == meant(state, documents), f"not what the corpus said in state {state}"
    hold()
    _check_vectors(published, rows)
    return published.publication.epoch, published.publication.version, state


def _check_vectors(published: Published, rows: pa.Table) -> None:
    encoder = load_encoder(resolve_model(ModelSpec(**published.publication.model_spec())))
    assert published.space["id"] == published.publication.space == encoder.model.space.id, "a table of another space"
    stored = np.stack(rows["vector"].to_numpy(zero_copy_only=False))
    made = encode(encoder, rows["text"].to_pylist(), "document").vectors
    assert np.array_equal(stored, made.astype(stored.dtype)), "vectors of other texts"
    (hit,) = published.table.search(stored[0].astype(np.float32)).refine_factor(10).limit(1).to_list()
    assert hit["text"] == rows["text"][0].as_py(), "a search that does not find its own text"


class Reader:
    """A process that looks again and again, while this is entered; `seen` has what it saw, once it is left."""

    def __init__(self, place: Place, held: float = 0.0) -> None:
        """`held`: seconds between reading a version and searching in it."""
        self._stop = FORKS.Event()
        self._here, there = FORKS.Pipe(duplex=False)
        self._process = FORKS.Process(target=_watch, args=(place, held, self._stop, there), daemon=True)
        self.seen = Seen(0, (), frozenset())

    def __enter__(self) -> "Reader":
        self._process.start()
        assert self._here.poll(60), "the reader did not begin"
        self._here.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._here.poll(60):
            self.seen = self._here.recv()
        else:
            self.seen = Seen(0, ("the reader hangs",), frozenset())
            self._process.kill()
        self._process.join()


def _watch(place: Place, held: float, stop: Any, out: Any) -> None:
    end_with_the_rest()
    os.environ.update(place.environment)
    out.send("ready")
    answers, errors, states = 0, list[str](), set[tuple[int, int, int]]()
    ended, took = False, 0.0
    while not ended:
        ended = stop.wait(max(0.03, 2 * took))  # it leaves the processor to who is read from. Then one look more, at how it ended
        began = time.monotonic()
        try:
            states.add(look(place.store, place.documents, lambda: stop.wait(held) if held else None))
            answers += 1
        except NotFound as error:
            if states:
                errors.append(str(error))
        except Exception as error:  # noqa: BLE001 - whatever a reader meets is what is counted
            errors.append(f"{type(error).__name__}: {error}")
        took = time.monotonic() - began - held
    out.send(Seen(answers, tuple(errors), frozenset(states)))


@dataclass(frozen=True, slots=True)
class Scene:
    """A command with something to do."""

    name: str
    prepare: Callable[[Place], None]
    command: tuple[str, ...]
    states: frozenset[int]
    """Of the corpus, that readers may see meanwhile."""


def _load(place: Place) -> None:
    require_sound(Store(place.store))  # that is not part of a run, but for the very first
    place.spec()
    place.write(0)


def _update(place: Place) -> None:
    _load(place)
    place.must("apply")
    place.write(1)


def _change_model(place: Place) -> None:
    _update(place)
    place.spec(NEW)


def _grow(place: Place) -> None:
    """Many small fragments, of which parts are deleted."""
    _load(place)
    for state in range(3):
        place.write(state)
        place.must("apply")


SCENES = {
    scene.name: scene
    for scene in (
        Scene("first load", _load, ("apply", "--json"), frozenset({0})),
        Scene("update", _update, ("apply", "--json"), frozenset({0, 1})),
        Scene("model change", _change_model, ("apply", "--json"), frozenset({0, 1})),
        Scene("maintain", _grow, ("maintain", "--json"), frozenset({2})),
    )
}
