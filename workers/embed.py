"""One shard of contents: read the texts, run the model once for each, stage the rows. Plain code, run anywhere."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.chunks import metadata_type, row_schema
from pipelines.diff import Contents
from storage.tables import ROW_ADDRESS, Store, take
from storage.vectors import Donors
from workers.encoders import Encoder

WRITE_ROWS = 8192
BLOCK_CODE_POINTS = 16 << 20


@dataclass(frozen=True)
class Embedding:
    """What all shards of a run have in common."""

    store: Store
    chunk_table: str
    chunk_version: int
    generation: str

    def schema(self) -> pa.Schema:
        """Of the vectors table, without the metadata that describes the whole table."""
        schema: pa.Schema = self.store.open(self.generation).schema
        return schema.remove_metadata()


@dataclass(frozen=True)
class Shard:
    """Contents for one call of one actor."""

    number: int
    addresses: np.ndarray
    """Of rows in the chunk table, those of one content together: uint64."""
    starts: np.ndarray
    """Where each content begins in `addresses`, and behind the last its length: int64."""
    estimate: int
    """Tokens, before anything was tokenised."""

    @property
    def contents(self) -> int:
        return len(self.starts) - 1

    def halves(self, numbers: Iterator[int]) -> list["Shard"]:
        """Two shards of half the contents each."""
        middle = self.contents // 2
        return [self._part(next(numbers), 0, middle), self._part(next(numbers), middle, self.contents)]

    def _part(self, number: int, start: int, stop: int) -> "Shard":
        begin, end = self.starts[start], self.starts[stop]
        share = (stop - start) / self.contents
        return Shard(number, self.addresses[begin:end], self.starts[start : stop + 1] - begin, int(self.estimate * share))


@dataclass(frozen=True)
class Receipt:
    """What an actor hands back of a shard: never vectors."""

    number: int
    fragments: list[str]
    """Staged rows."""
    addresses: np.ndarray
    """Of the chunk rows that are in them: uint64."""
    contents: int
    """Forward passes."""
    tokens: int
    """Through the model, padding not counted."""
    seconds: float
    """In the model."""
    code_points: int
    """Of the texts."""
    elapsed: float
    """In the whole shard, seconds."""
    failed: dict[str, str]
    """Chunk ids that could not be embedded, and why."""


def embed_shard(embedding: Embedding, encoder: Encoder, shard: Shard) -> Receipt:
    """Do one shard: one forward pass a content, one row a chunk."""
    began = time.perf_counter()
    schema = embedding.schema()
    chunks = embedding.store.open(embedding.chunk_table, embedding.chunk_version)
    rows = take(chunks, shard.addresses, row_schema(metadata_type(schema)).names)
    texts = rows["text"].take(pa.array(shard.starts[:-1])).to_pylist()
    encoded = encoder.encode(texts)
    dtype = schema.field("vector").type.value_type.to_pandas_dtype()
    with np.errstate(over="ignore"):
        vectors = encoded.vectors.astype(dtype)
    failed = dict(encoded.failed)
    for index in np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():
        failed.setdefault(index, f"a component does not fit {np.dtype(dtype).name}")
    owner = np.repeat(np.arange(shard.contents), np.diff(shard.starts))
    good = ~np.isin(owner, list(failed))
    ids = rows["chunk_id"]
    letters = {ids[row].as_py(): failed[int(owner[row])] for row in np.flatnonzero(~good).tolist()}
    kept = rows.filter(pa.array(good))
    fragments = embedding.store.stage(embedding.generation, schema, vector_rows(kept, vectors, owner[good], schema)) if len(kept) else []
    return Receipt(
        number=shard.number,
        fragments=fragments,
        addresses=shard.addresses[good],
        contents=shard.contents,
        tokens=encoded.tokens,
        seconds=encoded.seconds,
        code_points=sum(map(len, texts)),
        elapsed=time.perf_counter() - began,
        failed=letters,
    )


def reuse_rows(embedding: Embedding, donors: Donors, contents: Contents, chunks: pa.Table) -> Iterator[tuple[list[str], np.ndarray]]:
    """Stage rows whose vectors are stored already: fragments, and the chunk addresses in them, a block at a time.

    `contents` groups positions of `chunks` (`length` and addresses); each content has a donor at the same position.
    """
    schema = embedding.schema()
    table = embedding.store.open(embedding.chunk_table, embedding.chunk_version)
    addresses = np.asarray(chunks[ROW_ADDRESS])[contents.rows]
    owner = np.repeat(np.arange(len(contents)), np.diff(contents.starts))
    for part in _blocks(np.asarray(chunks["length"])[contents.rows]):
        rows = take(table, addresses[part], row_schema(metadata_type(schema)).names)
        needed, place = np.unique(owner[part], return_inverse=True)
        vectors = donors.vectors(needed)
        yield embedding.store.stage(embedding.generation, schema, vector_rows(rows, vectors, place, schema)), addresses[part]


def _blocks(lengths: np.ndarray) -> Iterator[slice]:
    """Cut rows into blocks that fit in memory, however long their texts are."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(lengths):
        before = ends[start - 1] if start else 0
        fitting = int(np.searchsorted(ends, before + BLOCK_CODE_POINTS, side="right"))
        stop = max(start + 1, min(start + WRITE_ROWS, fitting))
        yield slice(start, stop)
        start = stop


def vector_rows(rows: pa.Table, vectors: np.ndarray, owner: np.ndarray, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows of the vectors table: chunk row i gets `vectors[owner[i]]`."""
    kind = schema.field("vector").type
    for start in range(0, len(rows), WRITE_ROWS):
        part = rows.slice(start, WRITE_ROWS)
        flat = pa.array(vectors[owner[start : start + WRITE_ROWS]].reshape(-1), kind.value_type)
        column = pa.FixedSizeListArray.from_arrays(flat, kind.list_size)
        yield from pa.table([*part.columns, column], schema=schema).combine_chunks().to_batches()
