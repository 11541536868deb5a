"""Whatever is edited and wherever a run crashes: the next one that ends leaves in the chunk table exactly what the corpus says."""

import itertools
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipelines.spec.parsing import parse_spec
from storage.history.fence import take_fence
from storage.history.ledger import Run
from storage.store import spill
from storage.tables import chunk_table
from storage.who import new_run_id
from tests.conftest import Workplace
from workers.ingest import corpus_pass
from workers.observing.account import Account
from workers.planning import live, plan
from workers.planning.state import read_state
from workers.planning.target import Target, resolve_target
from workers.runs import ingesting, session

PATHS = [f"{letter}.jsonl" for letter in "abcd"]
Files = dict[str, dict[int, int]]
Edit = dict[str, dict[int, int] | None]
DUPLICATES = ("first", "last")
FEW_BYTES = 100
"""Of memory: about two rows."""


class Crash(Exception):
    pass


def target_at(folder: str, duplicates: str) -> Target:
    raw = {
        "store": "store",
        "collections": {
            "c": {
                "source": {"uri": "corpus", "id": "id", "text": "text", "format": "jsonl", "duplicates": duplicates},
                "chunking": {"by": "tokens", "size": 8},
                "model": {"name": "hash", "dimensions": 8},
                "gates": {"max_removed": 1},
            }
        },
    }
    return resolve_target(parse_spec(raw, Path(folder)), "c")


def ingest(target: Target) -> None:
    """The first half of a run: bring the chunk table up to the corpus."""
    run = Run(target.collection, new_run_id())
    fence = take_fence(target.collection, run.run_id)
    try:
        with ExitStack() as closing:
            ingesting.ingest_corpus(session.Session(run, fence, Account(), closing), read_state(target).table(target))
    finally:
        run.write("result.json", {})


class Place:
    """A corpus of up to four files, each document in any of them, and its chunk table. One commit a few rows, several shards a file."""

    def __init__(self, folder: str, duplicates: str, spilled: bool) -> None:
        self.folder = Path(folder)
        self.duplicates = duplicates
        self.memory = FEW_BYTES if spilled else spill.MEMORY_BYTES
        self.files: Files = {}
        self.edits = 0
        (self.folder / "corpus").mkdir()

    @property
    def target(self) -> Target:
        return target_at(str(self.folder), self.duplicates)

    def edit(self, changes: Edit) -> None:
        for path, documents in changes.items():
            file = self.folder / "corpus" / path
            self.files.pop(path, None)
            file.unlink(missing_ok=True)
            if documents is not None:
                self.files[path] = documents
                self.edits += 1
                lines = [json.dumps({"id": str(id), "text": f"text {text} of {id}"}) + "\n" for id, text in documents.items()]
                file.write_text("".join(lines) + "\n" * self.edits)  # never the size that it had before

    def run(self, dies_at: int | None = None, *, landed: bool = False) -> None:
        """Ingest, and check the result. With `dies_at` the process dies at that write, before or after it was done."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(corpus_pass, "STEP_ROWS", 1)
            patched.setattr(plan, "SHARD_BYTES", 24)
            patched.setattr(spill, "MEMORY_BYTES", self.memory)
            if dies_at is not None:
                count = itertools.count()
                for owner, name in ((session, "commit"), (chunk_table.ChunkTable, "write_files")):
                    patched.setattr(owner, name, dying(getattr(owner, name), lambda: next(count) == dies_at, landed))
            try:
                ingest(self.target)
            except Crash:
                return
            self.check()

    def check(self) -> None:
        state = read_state(self.target).table(self.target)
        rows = self.target.store.open(self.target.chunk_table.name).to_table(columns=["doc_id", "text", "file"]).to_pylist()
        pick = min if self.duplicates == "first" else max
        owners = {id: pick(path for path, held in self.files.items() if id in held) for held in self.files.values() for id in held}
        expected = [(str(id), f"text {self.files[path][id]} of {id}", path) for id, path in owners.items()]
        assert sorted((row["doc_id"], row["text"], row["file"]) for row in rows) == sorted(expected)
        assert state.files.empty
        found = {path: (record.documents, sorted(letter.id for letter in record.dead)) for path, record in state.known.items()}
        assert found == {
            path: (sum(owners[id] == path for id in held), sorted(str(id) for id in held if owners[id] != path))
            for path, held in self.files.items()
        }


def dying(write: Callable[..., Any], now: Callable[[], bool], landed: bool) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        dies = now()
        result = None if dies and not landed else write(*args, **options)
        if dies:
            raise Crash
        return result

    return call


edits = st.dictionaries(st.sampled_from(PATHS), st.none() | st.dictionaries(st.integers(0, 3), st.integers(0, 2)), max_size=4)
crashes = st.tuples(st.integers(0, 6), st.booleans())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(DUPLICATES), edits, edits, st.lists(st.tuples(crashes, edits), max_size=2), edits, st.booleans(), st.booleans())
# A document that was taken out of the first file, after the crash.
@example("first", {"a.jsonl": {0: 0, 1: 0}, "b.jsonl": {2: 0}}, {"a.jsonl": {0: 1}, "b.jsonl": {2: 1}}, [((3, True), {})], {}, False, False)
# The kept one of a duplicate was taken out.
@example(
    "first",
    {"a.jsonl": {0: 0, 1: 0}, "b.jsonl": {2: 0}, "c.jsonl": {1: 0}},
    {"a.jsonl": {0: 0}, "b.jsonl": {2: 1}},
    [((1, True), {})],
    {},
    False,
    True,
)
# A file that came and went.
@example(
    "first", {"a.jsonl": {0: 0}}, {"c.jsonl": {2: 0}}, [((0, True), {"c.jsonl": None}), ((1, True), {"c.jsonl": None})], {}, False, False
)
# A file that took a document from an unchanged one, and gives it back.
@example("first", {"b.jsonl": {1: 0}}, {"a.jsonl": {1: 0}}, [((0, True), {}), ((1, True), {})], {"a.jsonl": {2: 0}}, False, True)
def test_chunk_table_is_what_the_corpus_says_after_any_edits_and_crashes(
    duplicates: str,
    first: Edit,
    second: Edit,
    crashed: list[tuple[tuple[int, bool], Edit]],
    last: Edit,
    other_reading: bool,
    spilled: bool,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(folder, duplicates, spilled)
        place.edit(first)
        place.run()
        place.edit(second)
        for (dies_at, landed), meanwhile in crashed:
            place.run(dies_at, landed=landed)
            place.edit(meanwhile)
        if other_reading:
            place.duplicates = DUPLICATES[1 - DUPLICATES.index(duplicates)]
        place.run()
        place.edit(last)
        place.run()


def test_each_opening_of_a_table_that_moves_is_read_as_it_is_listed(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(workplace.root / "words.lance")
    lance.write_dataset(pa.table({"id": [f"d{number}" for number in range(6)], "text": ["a few words"] * 6}), uri, max_rows_per_file=2)
    workplace.spec(source='uri = "words.lance", id = "id", text = "text"')
    workplace.apply()
    lance.write_dataset(pa.table({"id": ["d6"], "text": ["a few words"]}), uri, mode="append")
    opened = live.open_source

    def compacted(*of: Any) -> Any:
        lance.dataset(uri).optimize.compact_files()
        return opened(*of)

    monkeypatch.setattr(live, "open_source", compacted)
    workplace.spec(source='uri = "words.lance", id = "id", text = "text"', rest="chunking = { size = 50 }")
    done = workplace.apply()
    assert (done.status, done.dead_letters, len(workplace.texts())) == ("published", 0, 7)


def test_a_commit_to_a_lance_table_is_no_other_place(workplace: Workplace) -> None:
    """What it adds is read, and nothing else."""

    def rows(first: int) -> pa.Table:
        return pa.table({"id": [f"d{number}" for number in range(first, first + 5)], "text": ["a text"] * 5})

    words = workplace.root / "words.lance"
    lance.write_dataset(rows(0), words)
    workplace.spec(source='uri = "words.lance", id = "id", text = "text"')
    workplace.apply()
    lance.write_dataset(rows(5), words, mode="append")
    planned = workplace.plan()
    assert (planned.files["read"], planned.documents["added"], planned.notes) == (1, 5, [])
