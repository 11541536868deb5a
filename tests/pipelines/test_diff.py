"""What is to be done is a pure difference: complete, minimal, the same in any order, and nothing once it was done."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from random import Random

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipelines.content.chunks import HASH, Documents, chunk_rows, hash_documents
from pipelines.content.diff import FileRecord, diff_files, diff_rows
from pipelines.content.documents import DeadLetter, SourceFile
from pipelines.fingerprint import DIGEST_BYTES
from storage.collection import Collection
from storage.store.lance import Store
from storage.tables.chunk_table import ChunkTable

PATHS = [f"{letter}.txt" for letter in "abcdef"]
METADATA = pa.struct([("kind", pa.string()), ("n", pa.int64())])
Known = dict[str, FileRecord]
small = st.integers(0, 3)


def key(n: int) -> bytes:
    return blake2b(b"%d" % n, digest_size=DIGEST_BYTES).digest()


def hashes(numbers: Sequence[int]) -> pa.ChunkedArray:
    """In two chunks, as a scan may give them."""
    middle = len(numbers) // 2
    return pa.chunked_array([pa.array([key(n) for n in part], HASH) for part in (numbers[:middle], numbers[middle:])], HASH)


# Files


def by_path(records: Sequence[FileRecord]) -> Known:
    return {record.file.path: record for record in records}


records = st.builds(
    FileRecord,
    file=st.builds(SourceFile, path=st.sampled_from(PATHS), size=small, etag=st.sampled_from("xy")),
    partners=st.frozensets(st.sampled_from(PATHS), max_size=2),
    retry=st.sampled_from([False, False, False, True]),
)
known_files = st.lists(records, unique_by=lambda record: record.file.path).map(by_path)


@given(known_files, known_files, st.randoms(use_true_random=False))
def test_files_are_read_that_are_new_changed_or_depend_on_one_that_is(known: Known, now: Known, random: Random) -> None:
    listed = [record.file for record in now.values()]
    touched = {path for path in known if path not in now}
    touched |= {file.path for file in listed if file.path not in known or known[file.path].file != file or known[file.path].retry}

    def depends(path: str, seen: frozenset[str] = frozenset()) -> bool:
        further = known[path].partners - seen if path in known else frozenset()
        return path in touched or any(depends(partner, seen | {path}) for partner in further)

    diff = diff_files(listed, known)
    assert [file.path for file in diff.read] == sorted(path for path in now if depends(path))
    assert diff.gone == set(known) - set(now)
    assert by_path(diff.kept) == {path: known[path] for path in now if not depends(path)}
    assert diff.empty == (set(known) == set(now) and not touched)

    shuffled = random.sample(listed, len(listed))
    other = diff_files(shuffled, dict(random.sample(list(known.items()), len(known))))
    assert (other.read, other.gone, by_path(other.kept)) == (diff.read, diff.gone, by_path(diff.kept))


@given(known_files, known_files)
def test_files_that_were_read_are_not_read_again(known: Known, now: Known) -> None:
    listed = [record.file for record in now.values()]
    diff = diff_files(listed, known)
    fresh = [FileRecord(file, partners=now[file.path].partners) for file in diff.read]
    assert diff_files(listed, by_path([*fresh, *diff.kept])).empty


class Ownership(RuleBasedStateMachine):
    """Documents in several files: only files that `diff_files` names are opened, and yet the first file always has the document.

    The bookkeeping is that of a pass over a corpus: a file that gives way to another one notes it as its partner.
    """

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, set[int]] = {}
        self.etags: dict[str, int] = {}
        self.known: dict[str, FileRecord] = {}
        self.owner: dict[int, str] = {}

    @rule(changes=st.dictionaries(st.sampled_from(PATHS), st.none() | st.sets(small), min_size=1, max_size=4))
    def edit_and_read(self, changes: dict[str, set[int] | None]) -> None:
        for path, documents in changes.items():
            self.etags[path] = self.etags.get(path, 0) + 1
            self.files.pop(path, None)
            if documents is not None:
                self.files[path] = documents
        listed = [SourceFile(path, 1, str(self.etags[path])) for path in self.files]
        diff = diff_files(listed, self.known)
        released = diff.gone | {file.path for file in diff.read}
        self.owner = {document: path for document, path in self.owner.items() if path not in released}
        self.known = {record.file.path: record for record in diff.kept}
        for file in diff.read:  # in file order
            self.known[file.path] = FileRecord(file)
            for document in self.files[file.path]:
                self._claim(document, file.path)

    def _claim(self, document: int, path: str) -> None:
        holder = self.owner.get(document, path)
        self.owner[document] = first = min(holder, path)
        for loser in {holder, path} - {first}:
            record = self.known[loser]
            self.known[loser] = replace(record, partners=record.partners | {first})

    @invariant()
    def first_file_has_each_document(self) -> None:
        documents = set().union(*self.files.values())
        assert self.owner == {document: min(path for path, held in self.files.items() if document in held) for document in documents}


Ownership.TestCase.settings = settings(max_examples=150, stateful_step_count=6, deadline=None)
test_of_a_document_in_several_files_the_first_file_has_it_after_any_edits = Ownership.TestCase


# Rows


rows = st.lists(st.integers(0, 30), unique=True, max_size=20)


@given(rows, rows, st.randoms(use_true_random=False))
def test_rows_once_applied_leave_nothing_to_do(desired: list[int], stored: list[int], random: Random) -> None:
    difference = diff_rows(pa.table({"row_hash": hashes(desired)}), pa.table({"row_hash": hashes(stored)}))
    pending, stale = ([listed[n] for n in positions] for listed, positions in ((desired, difference.pending), (stored, difference.stale)))
    assert set(pending) == set(desired) - set(stored)
    assert set(stale) == set(stored) - set(desired)
    after = [row for row in stored if row not in stale] + pending
    assert sorted(after) == sorted(desired)
    again = diff_rows(pa.table({"row_hash": hashes(random.sample(desired, len(desired)))}), pa.table({"row_hash": hashes(after)}))
    assert not len(again.pending)
    assert not len(again.stale)


# Chunks


class Cuts:
    """A chunker that cuts after every `size` code points, and leaves out blank pieces."""

    def __init__(self, size: int) -> None:
        self.size = size

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        cut = [[(start, min(start + self.size, len(text))) for start in range(0, len(text), self.size)] for text in texts]
        return [[(a, b) for a, b in spans if text[a:b].strip()] for text, spans in zip(texts, cut, strict=True)]


metadata_values = st.none() | st.fixed_dictionaries({"kind": st.none() | st.sampled_from("ab"), "n": st.none() | small})
source_rows = st.lists(
    st.fixed_dictionaries(
        {
            "doc_id": st.text("a#1", min_size=1, max_size=3),
            "text": st.text("aü𝄞 ", max_size=12),
            "metadata": metadata_values,
            "file": st.sampled_from(PATHS),
        }
    ),
    unique_by=lambda row: row["doc_id"],
    max_size=6,
)
DOCUMENTS = pa.schema([("doc_id", pa.string()), ("text", pa.string()), ("metadata", METADATA), ("file", pa.string())])


def cut_rows(rows: list[dict[str, object]], size: int = 3) -> list[dict[str, object]]:
    documents = hash_documents(pa.Table.from_pylist(rows, schema=DOCUMENTS))
    return [row for part in chunk_rows(documents, Cuts(size)) for row in part.to_pylist()]


@given(source_rows, st.integers(1, 5), st.randoms(use_true_random=False))
def test_chunks_are_pieces_of_their_document_whatever_batch_it_comes_in(rows: list[dict[str, str]], size: int, random: Random) -> None:
    whole = cut_rows(rows, size)
    assert [row for one in rows for row in cut_rows([one], size)] == whole
    shuffled = random.sample(rows, len(rows))
    assert sorted(cut_rows(shuffled, size), key=lambda row: row["chunk_id"]) == sorted(whole, key=lambda row: row["chunk_id"])

    of = {row["doc_id"]: row for row in rows}
    for row in whole:
        document = of[row["doc_id"]]
        assert row["text"] == document["text"][row["start"] : row["end"]]
        assert row["content_hash"] == blake2b(row["text"].encode(), digest_size=DIGEST_BYTES).digest()
        assert (row["metadata"], row["file"]) == (document["metadata"], document["file"])
        assert row["chunk_id"] == f"{row['doc_id']}#{row['ordinal']}"
    assert len({row["chunk_id"] for row in whole}) == len({row["row_hash"] for row in whole}) == len(whole)
    assert [row["ordinal"] for row in whole] == [n for _, rows in groupby(whole, lambda row: row["doc_id"]) for n, _ in enumerate(rows)]


@given(source_rows.filter(len), st.sampled_from(["doc_id", "text", "metadata", "file"]))
def test_hash_tells_a_change_of_the_document_and_not_of_its_file(rows: list[dict[str, object]], changed: str) -> None:
    other = {"doc_id": "other", "text": "something else", "metadata": {"kind": "c", "n": None}, "file": "elsewhere.txt"}[changed]
    pair = pa.Table.from_pylist([rows[0], rows[0] | {changed: other}], schema=DOCUMENTS)
    before, after = hash_documents(pair).columns.to_pylist()
    assert (before["doc_hash"] == after["doc_hash"]) == (changed == "file")
    assert (before["doc_key"] == after["doc_key"]) == (changed != "doc_id")
    old, new = ([row["row_hash"] for row in cut_rows([source])] for source in (rows[0], rows[0] | {changed: other}))
    if old and new:
        assert (old == new) == (changed == "file")


def test_nothing_to_cut_gives_nothing() -> None:
    empty = Documents(hash_documents(DOCUMENTS.empty_table()).columns)
    assert list(chunk_rows(empty, Cuts(3))) == []


def test_dead_letters_do_not_make_a_file_changed() -> None:
    file = SourceFile("a.txt", 1, "x")
    assert diff_files([file], {"a.txt": FileRecord(file, dead=(DeadLetter("document", "a.txt", "1", "no text"),))}).empty


def test_files_that_were_read_in_another_way_are_read_again_and_those_gone_by_then_are_still_known(tmp_path: Path) -> None:
    table = ChunkTable(Collection(Store(str(tmp_path)), "c"), "chunking")
    files = [SourceFile(path, 1, "x") for path in PATHS[:3]]
    table.write_files(1, "by one column", [FileRecord(file) for file in files], 1)
    assert diff_files(files, table.read_files(1, "by one column").records).empty
    diff = diff_files(files[:2], table.read_files(1, "by another column").records)
    assert (diff.read, diff.gone) == (files[:2], {files[2].path})
