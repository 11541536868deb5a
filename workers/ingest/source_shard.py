"""One source shard: read it, leave out what is stored already, cut the rest, stage the rows. Plain code, run anywhere.

The chunk table is pinned at the version that the run began with, so a shard can be done twice, or on any machine, with one result. It is
asked for the shard's own files alone; what documents elsewhere make of these, is settled when all shards are done (`corpus_pass`).
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa

from pipelines.content.chunks import HASH, Spans, chunk_rows, chunk_schema, hash_documents
from pipelines.content.documents import DeadLetter, DocumentBatch, SourceShard, gathered
from pipelines.content.settling import file_numbers, halves
from pipelines.content.source import Source
from storage.tables.chunk_table import ChunkTable

GROUP_ROWS = 8192
GROUP_BYTES = 16 << 20
SEEN = pa.schema([("doc_id", pa.string()), ("doc_key", HASH), ("doc_hash", HASH), ("file", pa.string()), ("fresh", pa.bool_())])
ROWS = pa.schema(
    [("doc_key", HASH), ("doc_hash", HASH), ("row_hash", HASH), ("file", pa.string()), ("content_hash", HASH), ("length", pa.int64())]
)


@dataclass(frozen=True)
class Ingest:
    """What all shards of a run have in common."""

    corpus: Source
    chunker: Spans
    table: ChunkTable
    version: int | None
    """Of the chunk table, before the run."""
    fragments: Mapping[str, Sequence[int]]
    """Of the chunk table, that have rows of a file, by its path: of the files that were read before."""
    metadata: pa.StructType | None
    stage: bool
    """Write the rows; a plan does not."""
    narrow: bool
    """Give back the narrow columns of fresh rows."""


@dataclass(frozen=True)
class Ingested:
    """What became of a shard."""

    seen: pa.Table
    """Each document in the order of reading: `doc_id`, `doc_key`, `doc_hash`, `file`, and whether it is `fresh`: not so in its file yet."""
    rows: pa.Table
    """The chunk rows of fresh documents: `doc_key`, `doc_hash`, `row_hash`, `file`, `content_hash`, `length`. Empty unless asked for."""
    fragments: list[str]
    """Staged rows."""
    fresh: int
    """Chunk rows of fresh documents."""
    dead: list[DeadLetter]
    seconds: float = 0.0
    """That it took."""


def ingest_shard(ingest: Ingest, shard: SourceShard) -> Ingested:
    """Do one shard."""
    began = time.monotonic()
    work = _ShardWork(ingest, _StoredDocuments(ingest, sorted({piece.file.path for piece in shard.pieces})))
    batches = work.rows(ingest.corpus.read(shard, ingest.metadata))
    fragments: list[str] = []
    if ingest.stage:
        first = next(batches, None)  # nothing changed: nothing is opened for writing
        if first is not None:
            fragments = ingest.table.collection.store.stage(ingest.table.name, chunk_schema(ingest.metadata), chain([first], batches))
    else:
        for _ in batches:
            pass
    seen = pa.concat_tables([SEEN.empty_table(), *work.seen]).combine_chunks()
    rows = pa.concat_tables([ROWS.empty_table(), *work.narrow]).combine_chunks()
    dead = [letter for letters in work.dead.values() for letter in letters]
    return Ingested(seen, rows, fragments, work.fresh, dead, time.monotonic() - began)


class _StoredDocuments:
    """What is stored of some files, ready to be asked often. About 20 bytes a row of them."""

    def __init__(self, ingest: Ingest, paths: Sequence[str]) -> None:
        fragments = sorted({number for path in paths for number in ingest.fragments.get(path, ())})
        self._sorted = np.zeros(0, dtype=np.uint64)
        if ingest.version is None or not fragments:
            return
        self._number = {path: number for number, path in enumerate(paths)}
        stored = ingest.table.document_hashes(ingest.version, paths, fragments)
        if not len(stored):
            return
        numbers = file_numbers(stored["file"], self._number)
        first, self._second = halves(stored["doc_hash"]).T
        order = np.argsort(first, kind="stable")
        self._sorted, self._second, self._file = first[order], self._second[order], numbers[order]

    def hold(self, documents: pa.Table) -> np.ndarray:
        """Whether each of `documents` (`doc_hash`, `file`) is stored as it is: bool.

        Where two hashes share their first half, or a document is in two files of a shard, it may miss one: that is then written again.
        """
        if not len(self._sorted):
            return np.zeros(len(documents), dtype=bool)
        first, second = halves(documents["doc_hash"]).T
        place = np.minimum(np.searchsorted(self._sorted, first), len(self._sorted) - 1)
        numbers = file_numbers(documents["file"], self._number)
        same = (self._sorted[place] == first) & (self._second[place] == second) & (self._file[place] == numbers)
        return np.asarray(same)


class _ShardWork:
    """Collects the narrow columns of a shard while its rows stream by."""

    def __init__(self, ingest: Ingest, stored: _StoredDocuments) -> None:
        self.dead: dict[str, tuple[DeadLetter, ...]] = {}
        """By file."""
        self.seen: list[pa.Table] = []
        self.narrow: list[pa.Table] = []
        self.fresh = 0
        self._ingest = ingest
        self._stored = stored

    def rows(self, batches: Iterable[DocumentBatch]) -> Iterator[pa.RecordBatch]:
        """Rows of `chunk_schema` for all documents that must be written."""
        for group in _groups(self._note_dead(batches)):
            documents = hash_documents(group)
            fresh = ~self._stored.hold(documents.columns)
            noted = documents.columns.append_column("fresh", pa.array(fresh, pa.bool_()))
            self.seen.append(noted.select(SEEN.names).cast(SEEN))
            if fresh.any():
                for rows in chunk_rows(documents.select(fresh), self._ingest.chunker):
                    if self._ingest.narrow:
                        self.narrow.append(_narrow(rows))
                    self.fresh += len(rows)
                    yield from rows.to_batches()

    def _note_dead(self, batches: Iterable[DocumentBatch]) -> Iterator[DocumentBatch]:
        for batch in batches:
            if batch.dead:
                self.dead[batch.file.path] = gathered((*self.dead.get(batch.file.path, ()), *batch.dead))
            yield batch


def _groups(batches: Iterable[DocumentBatch]) -> Iterator[pa.Table]:
    """Join small batches, for a thousand small files are a thousand batches of one document."""
    waiting: list[pa.Table] = []
    rows = size = 0
    for batch in batches:
        if batch.documents.num_rows:
            table = pa.Table.from_batches([batch.documents])
            waiting.append(table.append_column("file", pa.repeat(pa.scalar(batch.file.path), table.num_rows)))
            rows, size = rows + table.num_rows, size + table.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.concat_tables(waiting)


def _narrow(rows: pa.Table) -> pa.Table:
    length = pa.array(rows["end"].to_numpy() - rows["start"].to_numpy(), pa.int64())
    return rows.append_column("length", length).select(ROWS.names).cast(ROWS)
