"""What must be done, as a pure difference between what is desired and what is stored. No I/O.

Three levels, each cheap for what the one above ruled out: files by size and etag, documents by hash (`settling`), rows by hash.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.content.documents import DeadLetter, SourceFile


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
    lost: int = 0
    """Documents of a file that could not be read, known or estimated."""
    stale: int = 0
    """Those of them that are stored as they were before."""


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
