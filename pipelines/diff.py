"""What must be done, as a pure difference between what is desired and what is stored. No I/O.

Three levels, each cheap for what the one above ruled out: files by size and etag, documents by hash, rows by hash.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.documents import DeadLetter, SourceFile


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What is known of a file since it was last read."""

    file: SourceFile
    documents: int = 0
    dead: tuple[DeadLetter, ...] = ()
    partners: frozenset[str] = frozenset()
    """Files that hold the kept one of a duplicate of this file: when they change, this one must be read again."""
    retry: bool = False
    """Read again in any case: something in it failed, for a reason that may have passed."""


@dataclass(frozen=True, slots=True)
class FilesDiff:
    """Which files must be opened."""

    read: list[SourceFile]
    """New or changed, in file order."""
    gone: frozenset[str]
    """Paths that were read once and are no longer listed."""
    kept: list[FileRecord]
    """Unchanged: not opened."""

    @property
    def released(self) -> frozenset[str]:
        """Paths whose stored documents must be found again in a file that is read, or are removed."""
        return self.gone | {file.path for file in self.read}

    @property
    def empty(self) -> bool:
        return not self.read and not self.gone


def diff_files(listed: Sequence[SourceFile], known: Mapping[str, FileRecord]) -> FilesDiff:
    """Compare a listing to the records of an earlier one."""
    gone = frozenset(known) - {file.path for file in listed}
    stale = {file.path for file in listed if file.path not in known or known[file.path].file != file or known[file.path].retry}
    while more := {path for path, record in known.items() if record.partners & (stale | gone)} - stale - gone:
        stale |= more
    read = [file for file in listed if file.path in stale]
    return FilesDiff(sorted(read), gone, [known[file.path] for file in listed if file.path not in stale])


class State(IntEnum):
    """What became of a document."""

    ADDED = 0
    CHANGED = 1
    MOVED = 2
    """The same document in another file: its rows are written anew, its vectors are not."""
    UNCHANGED = 3


class StoredDocuments:
    """What is stored of documents, ready to be asked many times: a search of a few against millions must not cost the millions."""

    def __init__(self, stored: pa.Table) -> None:
        """`stored`: rows with at least `doc_key`, `doc_hash` and `file`; those of one document are alike."""
        self._columns = {name: stored[name].combine_chunks() for name in ("doc_key", "doc_hash", "file")}
        prefixes = _prefixes(self._columns["doc_key"])
        self._order = np.argsort(prefixes, kind="stable")
        self._sorted = prefixes[self._order]

    def classify(self, documents: pa.Table) -> np.ndarray:
        """The State (int8) of each of `documents` (the same columns)."""
        state = np.full(len(documents), State.ADDED, dtype=np.int8)
        if not len(self._sorted) or not len(documents):
            return state
        place = np.searchsorted(self._sorted, _prefixes(documents["doc_key"]))
        at = pa.array(self._order[np.minimum(place, len(self._order) - 1)])
        # Two keys may share their first half. The worst that comes of it is that a document is written again.
        known, same_hash, same_file = (
            np.asarray(pc.equal(documents[name].combine_chunks(), column.take(at)), dtype=bool) for name, column in self._columns.items()
        )
        state[known] = State.CHANGED
        state[known & same_hash] = State.MOVED
        state[known & same_hash & same_file] = State.UNCHANGED
        return state


def _prefixes(hashes: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The first halves of 16-byte hashes: uint64."""
    whole = hashes.combine_chunks() if isinstance(hashes, pa.ChunkedArray) else hashes
    halves = np.frombuffer(whole.buffers()[1], dtype=np.uint64) if len(whole) else np.zeros(0, dtype=np.uint64)
    return np.asarray(halves[2 * whole.offset : 2 * (whole.offset + len(whole)) : 2])


def member(values: pa.Array | pa.ChunkedArray, of: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Whether each of `values` is among `of`: bool, shape (len(values),)."""
    if not len(of):
        return np.zeros(len(values), dtype=bool)
    whole = of.combine_chunks() if isinstance(of, pa.ChunkedArray) else of
    return np.asarray(pc.is_in(values, value_set=whole), dtype=bool)


@dataclass(frozen=True, slots=True)
class RowsDiff:
    """What separates a vectors table from its chunk table."""

    pending: np.ndarray
    """Positions in the desired rows that have no vector yet: int64."""
    stale: np.ndarray
    """Positions in the stored rows that the corpus no longer says: int64."""


def diff_rows(desired: pa.Table, stored: pa.Table) -> RowsDiff:
    """The anti-join of two tables on `row_hash`, both ways."""
    pending = np.flatnonzero(~member(desired["row_hash"], stored["row_hash"]))
    stale = np.flatnonzero(~member(stored["row_hash"], desired["row_hash"]))
    return RowsDiff(pending, stale)


@dataclass(frozen=True, slots=True)
class Contents:
    """Rows grouped by content: what one forward pass serves."""

    rows: np.ndarray
    """Positions of rows, those of one content together: int64."""
    starts: np.ndarray
    """Where each content begins in `rows`, and behind the last one its length: int64, one longer than the contents."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def first(self) -> np.ndarray:
        """The first row of each content."""
        return np.asarray(self.rows[self.starts[:-1]])


def group_contents(hashes: pa.Array | pa.ChunkedArray) -> Contents:
    """Group equal hashes. Contents come in the order of their first row, rows in ascending order within a content."""
    whole = hashes.combine_chunks() if isinstance(hashes, pa.ChunkedArray) else hashes
    codes = np.asarray(whole.dictionary_encode().indices, dtype=np.int64)
    rows = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[rows], np.arange(codes.max(initial=-1) + 2))
    return Contents(rows, starts)


def take_groups(contents: Contents, chosen: np.ndarray) -> Contents:
    """Only the contents for which `chosen` (bool, one per content) holds."""
    sizes = np.diff(contents.starts)
    rows = contents.rows[np.repeat(chosen, sizes)]
    return Contents(rows, np.concatenate([[0], np.cumsum(sizes[chosen])]))


def first_in_order(keys: Iterable[bytes], keep_last: bool) -> np.ndarray:
    """Which of `keys` to keep so that each occurs once: bool. The first of equal ones, or the last."""
    listed = list(keys)
    order = range(len(listed) - 1, -1, -1) if keep_last else range(len(listed))
    seen: set[bytes] = set()
    keep = np.zeros(len(listed), dtype=bool)
    for position in order:
        if listed[position] not in seen:
            seen.add(listed[position])
            keep[position] = True
    return keep
