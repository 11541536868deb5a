"""Whether a generation has exactly the rows of its chunk table, and whether its vectors can be compared. Streams; never holds a table."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceDataset
from numpy.typing import NDArray

from pipelines.content.chunks import HASH
from pipelines.content.diff import diff_rows, member
from storage.reading.neighbours import to_numpy, vector_blocks
from storage.store.lance import ROW_ADDRESS, data_file, scan_batches, take
from storage.store.spill import Spill, by_hash, matched

NORM_SAMPLE = 1000
"""Rows that the usual length of a vector is read off."""
_ROWS = pa.schema([("row_hash", HASH), (ROW_ADDRESS, pa.uint64())])
_DOCUMENTS = pa.schema([("doc_key", HASH)])
_CONTENTS = pa.schema([("content_hash", HASH)])


def differences(chunks: LanceDataset, vectors: LanceDataset) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    """Addresses of rows of the chunk table that have no vector, and of rows of the vectors table that are too many; some at a time."""
    for desired, stored in matched(_rows(chunks), _rows(vectors)):
        difference = diff_rows(desired, stored)
        surplus = np.union1d(difference.stale, _repeated(stored))
        yield desired[ROW_ADDRESS].to_numpy()[difference.pending], stored[ROW_ADDRESS].to_numpy()[surplus]


def document_keys(chunks: LanceDataset) -> Iterator[pa.Table]:
    """The `doc_key` of each row of a chunk table, some at a time."""
    return scan_batches(chunks, _DOCUMENTS.names)


def missing_documents(before: Iterator[pa.Table], after: Iterator[pa.Table]) -> tuple[int, int]:
    """How many documents of `before` are not in `after`, and how many there are; of both the `doc_key` of each row, in any order."""
    missing = total = 0
    for had, have in matched(_spilled(before), _spilled(after)):
        keys = pc.unique(had["doc_key"])
        missing += int((~member(keys, have["doc_key"])).sum())
        total += len(keys)
    return missing, total


def _spilled(rows: Iterator[pa.Table]) -> Spill:
    spill = Spill(_DOCUMENTS, by_hash("doc_key"))
    for part in rows:
        spill.add(part)
    return spill


def _rows(dataset: LanceDataset) -> Spill:
    spill = Spill(_ROWS, by_hash("row_hash"))
    for rows in scan_batches(dataset, ["row_hash"]):
        spill.add(rows)
    return spill


def _repeated(rows: pa.Table) -> NDArray[np.int64]:
    """Positions of rows whose hash was there before."""
    codes = np.asarray(pa.chunked_array(rows["row_hash"].chunks, HASH).combine_chunks().dictionary_encode().indices, dtype=np.int64)
    repeated = np.ones(len(codes), dtype=bool)
    repeated[np.unique(codes, return_index=True)[1]] = False
    return np.flatnonzero(repeated)


def chunk_ids(dataset: LanceDataset, addresses: NDArray[np.uint64]) -> list[str]:
    """The ids of the rows at `addresses`, in their order."""
    return list(take(dataset, addresses, ["chunk_id"])["chunk_id"].to_pylist()) if len(addresses) else []


def distinct_contents(dataset: LanceDataset) -> int:
    """How many different contents the rows have."""
    spill = Spill(_CONTENTS, by_hash("content_hash"))
    for rows in scan_batches(dataset, _CONTENTS.names):
        spill.add(rows)
    return sum(len(part["content_hash"].unique()) for part in spill.parts())


def fragments_since(dataset: LanceDataset, since: LanceDataset | None) -> list[Any]:
    """The fragments whose rows `since` does not have; all of them if that is None. A compaction makes new ones of old rows."""
    known = {data_file(fragment) for fragment in since.get_fragments()} if since else set()
    return [fragment for fragment in dataset.get_fragments() if data_file(fragment) not in known and fragment.count_rows()]


def draw(fragments: list[Any], count: int, columns: list[str], seed: int) -> pa.Table:
    """`count` random rows of `fragments`, or all if there are no more. The same for the same fragments and seed."""
    rows = np.array([fragment.count_rows() for fragment in fragments], dtype=np.int64)
    ends = np.cumsum(rows)
    total = int(rows.sum())
    places = np.sort(np.random.default_rng(seed).choice(total, min(count, total), replace=False))
    of_fragment = np.searchsorted(ends, places, side="right")
    offsets = places - (ends - rows)[of_fragment]
    parts = [fragments[index].take(offsets[of_fragment == index], columns=columns) for index in np.unique(of_fragment)]
    return pa.concat_tables(parts)


@dataclass(slots=True)
class Health:
    """What is wrong with the vectors of some rows."""

    rows: int = 0
    """That were looked at."""
    broken: int = 0
    """With a NaN, an infinity, or nothing but zeros."""
    out_of_band: int = 0
    """Of another length than the others."""
    worst: float = 0.0
    """The largest deviation of a length from the usual one, as a factor minus one."""
    broken_rows: list[int] = field(default_factory=list)
    """Addresses of the first ones."""
    band_rows: list[int] = field(default_factory=list)


def usual_length(dataset: LanceDataset) -> float:
    """The median length of a vector, by a sample that is spread over the table; 0 if there are no vectors of any length."""
    count = dataset.count_rows()
    places = np.unique(np.linspace(0, count - 1, min(count, NORM_SAMPLE), dtype=np.int64))
    lengths = _lengths(to_numpy(dataset.take(places.tolist(), columns=["vector"])["vector"].combine_chunks()))
    usable = lengths[np.isfinite(lengths) & (lengths > 0)]
    return float(np.median(usable)) if len(usable) else 0.0


def examine(dataset: LanceDataset, fragments: list[Any], usual: float, factor: float, named: int) -> Health:
    """Look at the vectors of `fragments`. Their lengths should be `usual` times or divided by at most `factor`."""
    health = Health()
    if not fragments:
        return health
    for addresses, vectors in vector_blocks(dataset, fragments):
        lengths = _lengths(vectors)
        broken = ~np.isfinite(lengths) | (lengths == 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            deviation = np.where(broken, 1.0, np.maximum(lengths / usual, usual / lengths))
        outside = deviation > factor
        health.rows += len(lengths)
        health.broken += int(broken.sum())
        health.out_of_band += int(outside.sum())
        health.worst = max(health.worst, float(deviation.max()) - 1)
        health.broken_rows += addresses[broken][: named - len(health.broken_rows)].tolist()
        health.band_rows += addresses[outside][: named - len(health.band_rows)].tolist()
    return health


def _lengths(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """The lengths of `vectors` (n, d): (n,), in float64, where no square of a float32 overflows."""
    squares: NDArray[np.float64] = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    return np.sqrt(squares)
