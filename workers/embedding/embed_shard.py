"""One shard of contents: read the texts, run the model once for each, stage the rows. Plain code, run anywhere."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.content.chunks import metadata_type, row_schema
from pipelines.content.sizes import slices
from storage.collection import Collection
from storage.reading.donors import Donors
from storage.store.lance import ROW_ADDRESS, Store, take
from workers.encoders.encoder import Encoder
from workers.observing.profile import STEPS

WRITE_ROWS = 8192
BLOCK_CODE_POINTS = 16 << 20


@dataclass(frozen=True)
class Embedding:
    """What all shards of a run have in common."""

    store: Store
    chunk_table: str
    chunk_version: int
    generation: str

    @property
    def collection(self) -> str:
        """Whose generation it is: its name is no part of another's."""
        return Collection.of(self.store, self.generation).name

    def schema(self) -> pa.Schema:
        """That of the vectors table, without the metadata that describes the whole table."""
        schema: pa.Schema = self.store.open(self.generation).schema
        return schema.remove_metadata()


@dataclass(frozen=True)
class Shard:
    """Contents for one call of one actor."""

    number: int
    addresses: np.ndarray
    """Of rows in the chunk table, one a content: uint64."""

    @property
    def contents(self) -> int:
        return len(self.addresses)

    def halves(self, numbers: Iterator[int]) -> list["Shard"]:
        """Two shards of half the contents each, under numbers of their own: receipts are kept by number."""
        return [Shard(next(numbers), part) for part in np.array_split(self.addresses, 2)]


@dataclass(frozen=True)
class Receipt:
    """What an actor hands back of a shard: never vectors."""

    number: int
    fragments: list[str]
    """Staged rows."""
    rows: int
    """In the fragments."""
    contents: int
    """Forward passes: one a row, and those that failed."""
    tokens: int
    """Through the model, padding not counted."""
    code_points: int
    """Of the texts."""
    worker: str
    """The process that did it."""
    spent: dict[str, float]
    """Seconds of each of `profile.STEPS`; waiting for the model while another shard is in it not counted."""
    unread: dict[str, int]
    """`tokens` beyond the longest input of the model, and of how many `contents`."""
    failed: dict[int, str]
    """Addresses of chunk rows that could not be embedded, and why."""


def embed_shard(embedding: Embedding, encoder: Encoder, shard: Shard, turn: AbstractContextManager[Any]) -> Receipt:
    """Read the texts of a shard, run the model and stage the rows: one forward pass and one row a content.

    `turn` is held while the model works: in other threads the shard before is written and the next one read and prepared meanwhile.
    """
    clock = [time.perf_counter()]
    schema = embedding.schema()
    chunks = embedding.store.open(embedding.chunk_table, embedding.chunk_version)
    rows = take(chunks, shard.addresses, row_schema(metadata_type(schema)).names)
    texts = rows["text"].to_pylist()
    clock.append(time.perf_counter())
    prepared = encoder.prepare(texts, "document")
    clock.append(time.perf_counter())
    with turn:
        encoded = encoder.forward(prepared)
    writing = time.perf_counter()
    dtype = schema.field("vector").type.value_type.to_pandas_dtype()
    with np.errstate(over="ignore"):
        vectors = encoded.vectors.astype(dtype)
    failed = dict(encoded.failed)
    for index in np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():
        failed.setdefault(index, f"a component does not fit {np.dtype(dtype).name}")
    good = np.ones(shard.contents, dtype=bool)
    good[list(failed)] = False
    kept = rows if good.all() else rows.filter(pa.array(good))
    fragments = embedding.store.stage(embedding.generation, schema, vector_rows(kept, vectors[good], schema)) if len(kept) else []
    return Receipt(
        number=shard.number,
        fragments=fragments,
        rows=len(kept),
        contents=shard.contents,
        tokens=encoded.units,
        code_points=sum(map(len, texts)),
        worker=f"{socket.gethostname()}:{os.getpid()}",
        spent=dict(zip(STEPS, (*np.diff(clock).tolist(), encoded.seconds, time.perf_counter() - writing), strict=True)),
        unread={"contents": int(np.count_nonzero(prepared.unread)), "tokens": int(prepared.unread.sum())},
        failed={int(shard.addresses[index]): reason for index, reason in failed.items()},
    )


def reuse_rows(embedding: Embedding, donors: Donors, reuse: pa.Table) -> Iterator[tuple[list[str], int]]:
    """Stage rows whose vectors are stored already: fragments, and how many rows are in them, a block at a time.

    `reuse`: address and `length` of each row, and `source` and `donor`, where `donors` have its vector.
    """
    schema = embedding.schema()
    table = embedding.store.open(embedding.chunk_table, embedding.chunk_version)
    for part in slices(reuse["length"].to_numpy(), BLOCK_CODE_POINTS, WRITE_ROWS):
        addresses, source, donor = (reuse[name].to_numpy()[part] for name in (ROW_ADDRESS, "source", "donor"))
        rows = take(table, addresses, row_schema(metadata_type(schema)).names)
        yield embedding.store.stage(embedding.generation, schema, vector_rows(rows, donors.vectors(source, donor), schema)), len(rows)


def vector_rows(rows: pa.Table, vectors: np.ndarray, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows of the vectors table: chunk row i with vector i."""
    kind = schema.field("vector").type
    for start in range(0, len(rows), WRITE_ROWS):
        part = rows.slice(start, WRITE_ROWS)
        flat = pa.array(vectors[start : start + WRITE_ROWS].reshape(-1), kind.value_type)
        column = pa.FixedSizeListArray.from_arrays(flat, kind.list_size)
        yield from pa.table([*part.columns, column], schema=schema).combine_chunks().to_batches()
