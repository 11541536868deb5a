"""Rows that may not fit in memory, kept in parts by a key, so that equal keys meet in a part that does fit.

Up to a bound they stay in memory, as one part; beyond it they lie in a temporary file. Differences of tables of any size are taken part
by part in this way: a partitioned hash join (Grace; Kitsuregawa, Tanaka and Moto-oka, 1983).
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO

import numpy as np
import pyarrow as pa

from pipelines.errors import StorageError
from pipelines.fingerprint import DIGEST_BYTES

PARTS = 256
MEMORY_BYTES = 64 << 20
"""Of rows that are held before they go to disk, and of parts that are read at a time."""

PartOf = Callable[[pa.Table], np.ndarray]
"""The part, 0 to PARTS - 1, of each row: uint8."""


def by_hash(column: str) -> PartOf:
    """Parts by the first byte of a hash."""
    return partial(_first_bytes, column)


def by_fragment(column: str, fragments: np.ndarray) -> PartOf:
    """Parts in the order of row addresses, where `fragments` (sorted) are the fragments that they are in."""
    return partial(_fragment_parts, column, fragments)


def _first_bytes(column: str, rows: pa.Table) -> np.ndarray:
    hashes = rows[column].combine_chunks()
    start = hashes.offset * DIGEST_BYTES
    return np.asarray(np.frombuffer(hashes.buffers()[1], np.uint8)[start : start + len(hashes) * DIGEST_BYTES : DIGEST_BYTES])


def _fragment_parts(column: str, fragments: np.ndarray, rows: pa.Table) -> np.ndarray:
    place = np.searchsorted(fragments, rows[column].to_numpy() >> np.uint64(32))
    return np.asarray(np.minimum(place * PARTS // max(1, len(fragments)), PARTS - 1), dtype=np.uint8)


@contextmanager
def on_scratch_disk() -> Iterator[None]:
    """Temporary files are written: an error names their folder. Raises StorageError."""
    try:
        yield
    except OSError as error:
        folder = tempfile.gettempdir()
        raise StorageError(
            f"expected room for temporary files in {folder}, found {error}: free some or set TMPDIR, then run again"
        ) from error


class Spill:
    """Rows of one schema. Filled first, read afterwards, as often as one likes; its file goes when it does."""

    def __init__(self, schema: pa.Schema, part_of: PartOf) -> None:
        self.schema = schema
        self.rows = 0
        self._part_of = part_of
        self._waiting: list[pa.Table] = []
        self._bytes = self._written = 0
        self._file: IO[bytes] | None = None
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._batches: list[list[int]] = [[] for _ in range(PARTS)]
        self._count = 0

    def add(self, rows: pa.Table) -> None:
        """Keep `rows`: the columns of the schema, in any order."""
        if not len(rows):
            return
        rows = rows.select(self.schema.names)
        self.rows += len(rows)
        self._waiting.append(rows)
        self._bytes += rows.nbytes
        if self._bytes > MEMORY_BYTES:
            self.flush()

    @property
    def in_memory(self) -> bool:
        """Whether nothing was written to disk, so that there is one part."""
        return self._file is None

    def whole(self) -> pa.Table:
        """All rows; only while they are in memory."""
        return pa.concat_tables([self.schema.empty_table(), *(rows.cast(self.schema) for rows in self._waiting)]).combine_chunks()

    def parts(self) -> Iterator[pa.Table]:
        """All rows, in the order of the parts."""
        return (part for (part,) in matched(self))

    def flush(self) -> None:
        """Put what is in memory on disk. Raises StorageError if there is no room."""
        with on_scratch_disk():
            self._flush()

    def _flush(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it goes with this object, and with the process
            self._writer = pa.ipc.new_file(pa.PythonFile(self._file, "w"), self.schema)
        assert self._writer is not None
        rows = self.whole()
        self._waiting, self._bytes, self._written = [], 0, self._written + rows.nbytes
        parts = self._part_of(rows)
        order = np.argsort(parts, kind="stable")
        borders = np.searchsorted(parts[order], np.arange(PARTS + 1))
        rows = rows.take(pa.array(order))
        for part in np.flatnonzero(np.diff(borders)).tolist():
            for batch in rows.slice(borders[part], borders[part + 1] - borders[part]).combine_chunks().to_batches():
                self._writer.write_batch(batch)
                self._batches[part].append(self._count)
                self._count += 1

    def read(self, first: int, stop: int) -> pa.Table:
        """The rows of some parts. Only of a spill that was closed."""
        reader = pa.ipc.open_file(pa.PythonFile(self._file, "r"))
        batches = [reader.get_batch(number) for part in range(first, stop) for number in self._batches[part]]
        return pa.Table.from_batches(batches, self.schema).combine_chunks()

    def close(self) -> int:
        """End the writing. Gives the bytes on disk."""
        if self._waiting or self._file is None:
            self.flush()
        if self._writer is not None:
            with on_scratch_disk():
                self._writer.close()
            self._writer = None
        return self._written


def matched(*spills: Spill) -> Iterator[tuple[pa.Table, ...]]:
    """The parts of several spills side by side: with one way to find a part, rows of equal keys come together."""
    if all(spill.in_memory for spill in spills):
        yield tuple(spill.whole() for spill in spills)
        return
    size = sum([spill.close() for spill in spills])
    step = max(1, PARTS * MEMORY_BYTES // max(1, size))
    for first in range(0, PARTS, step):
        yield tuple(spill.read(first, min(first + step, PARTS)) for spill in spills)
