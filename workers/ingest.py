"""One source shard: read it, leave out what is stored already, cut the rest, stage the rows. Plain code, run anywhere.

The chunk table is pinned at the version that the run began with, so a shard can be done twice, or on any machine, with one result.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa

from pipelines.chunks import HASH, Documents, Spans, chunk_rows, chunk_schema, hash_documents
from pipelines.diff import State, StoredDocuments, first_in_order
from pipelines.documents import Corpus, DeadLetter, DocumentBatch, SourceShard
from storage.chunks import ChunkTable

GROUP_ROWS = 8192
GROUP_BYTES = 16 << 20
_DOCUMENTS = pa.schema([("doc_id", pa.string()), ("doc_key", HASH), ("doc_hash", HASH), ("file", pa.string()), ("state", pa.int8())])
_ROWS = pa.schema([("row_hash", HASH), ("content_hash", HASH), ("length", pa.int64())])


@dataclass(frozen=True)
class Ingest:
    """What all shards of a run have in common."""

    corpus: Corpus
    chunker: Spans
    table: ChunkTable
    version: int | None
    """Of the chunk table, before the run."""
    metadata: pa.StructType | None
    keep_last: bool
    """Of a document id that occurs twice, keep the last instead of the first."""
    stage: bool
    """Write the rows; a plan does not."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A document that was left out because another one has its id."""

    doc_id: str
    doc_key: bytes
    file: str
    kept_in: str | None
    """The file of the one that was kept; None if only the coordinator knows."""


@dataclass(frozen=True)
class Ingested:
    """What became of a shard."""

    documents: pa.Table
    """Each document that was kept: `doc_id`, `doc_key`, `doc_hash`, `file`, `state` (int8, a State)."""
    rows: pa.Table
    """Each chunk row of a document that is not UNCHANGED: `row_hash`, `content_hash`, `length`."""
    fragments: list[str]
    """Staged rows."""
    dead: list[DeadLetter]
    read: dict[str, int] = field(default_factory=dict)
    """Documents kept, by the path of each file that a piece of was read."""
    duplicates: list[Duplicate] = field(default_factory=list)
    """Documents left out for one with the same id."""


def ingest_shard(ingest: Ingest, shard: SourceShard, exclude: frozenset[bytes] = frozenset()) -> Ingested:
    """Do one shard. Documents whose key is in `exclude` are left out."""
    work = _ShardWork(ingest, exclude)
    batches = work.rows(ingest.corpus.read(shard, ingest.metadata))
    schema = chunk_schema(ingest.metadata)
    store, name = ingest.table.store, ingest.table.name
    if ingest.stage:
        first = next(batches, None)  # nothing changed: nothing is opened for writing
        fragments = store.stage(name, schema, _chain(first, batches)) if first is not None else []
    else:
        fragments = []
        for _ in batches:
            pass
    read = {piece.file.path: work.read.get(piece.file.path, 0) for piece in shard.pieces}
    return Ingested(work.documents(), work.chunks(), fragments, work.dead, read, work.duplicates)


def _chain(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest


@lru_cache(maxsize=1)
def _stored(table: ChunkTable, version: int | None) -> StoredDocuments:
    """Kept for the next shard that this process does."""
    return StoredDocuments(table.stored_rows(version))


class _ShardWork:
    """Collects the narrow columns of a shard while its rows stream by."""

    def __init__(self, ingest: Ingest, exclude: frozenset[bytes]) -> None:
        self.dead: list[DeadLetter] = []
        self.read: dict[str, int] = {}
        self.duplicates: list[Duplicate] = []
        self._ingest = ingest
        self._exclude = exclude
        self._holder: dict[bytes, str] = {}
        self._documents: list[pa.Table] = []
        self._rows: list[pa.Table] = []

    def rows(self, batches: Iterable[DocumentBatch]) -> Iterator[pa.RecordBatch]:
        """Rows of `chunk_schema` for all documents that must be written."""
        groups = _groups(self._note_dead(batches))
        if self._ingest.keep_last:
            groups = iter(list(groups)[::-1])  # the last of two equal ids is met first: bounded by the shard
        for group in groups:
            documents = self._distinct(hash_documents(group))
            state = _stored(self._ingest.table, self._ingest.version).classify(documents.columns)
            self._note(documents, state)
            fresh = documents.select(state != State.UNCHANGED)
            if fresh.columns.num_rows:
                rows = chunk_rows(fresh, self._ingest.chunker)
                self._rows.append(_narrow(rows))
                yield from rows.to_batches()

    def documents(self) -> pa.Table:
        return pa.concat_tables([_DOCUMENTS.empty_table(), *self._documents]).combine_chunks()

    def chunks(self) -> pa.Table:
        return pa.concat_tables([_ROWS.empty_table(), *self._rows]).combine_chunks()

    def _note_dead(self, batches: Iterable[DocumentBatch]) -> Iterator[DocumentBatch]:
        for batch in batches:
            self.dead.extend(batch.dead)
            yield batch

    def _note(self, documents: Documents, state: np.ndarray) -> None:
        noted = documents.columns.append_column("state", pa.array(state, pa.int8()))
        self._documents.append(noted.select(_DOCUMENTS.names).cast(_DOCUMENTS))
        for count in documents.columns["file"].value_counts().to_pylist():
            self.read[count["values"]] = self.read.get(count["values"], 0) + count["counts"]

    def _distinct(self, documents: Documents) -> Documents:
        """Leave out what is excluded, and all but one of each id that occurs twice in the shard."""
        columns = documents.columns
        keys = columns["doc_key"].to_pylist()
        files = columns["file"].to_pylist()
        fresh = dict(zip(keys, files, strict=True))
        if len(fresh) == len(keys) and self._holder.keys().isdisjoint(fresh) and self._exclude.isdisjoint(fresh):
            self._holder |= fresh
            return documents
        keep = first_in_order(keys, self._ingest.keep_last)
        for position, key in enumerate(keys):
            if keep[position] and key not in self._exclude and key not in self._holder:
                self._holder[key] = files[position]
            else:
                keep[position] = False
        for position in np.flatnonzero(~keep).tolist():
            key = keys[position]
            self.duplicates.append(Duplicate(columns["doc_id"][position].as_py(), key, files[position], self._holder.get(key)))
        return documents.select(keep)


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
    return rows.append_column("length", length).select(_ROWS.names).cast(_ROWS)
