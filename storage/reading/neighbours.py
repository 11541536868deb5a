"""Nearest neighbours of a few vectors in a whole table, exactly and as a reader gets them; and samples that two versions share."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa
from lance import LanceDataset
from numpy.typing import NDArray

from pipelines.content.chunks import HASH
from pipelines.content.settling import halves
from pipelines.measures.quality import unit
from storage.store.lance import ROW_ADDRESS, scan_batches, take
from storage.tables.index import REFINE, probes

BLOCK_BYTES = 32 << 20
"""Of float32 numbers that are held of a block: vectors, or products."""
READ_BYTES = 64 << 20
"""That Lance reads ahead."""
NOWHERE = np.uint64(2**64 - 1)
"""The address where a table has fewer than k rows."""
TIE = 1e-5
"""Cosines that differ by less are equal."""
EXACT_ROWS = 20_000
"""That meet a condition, up to which all of them are compared: they may lie in any partition. 20 of 300,000 rows of 384 dimensions take
16 ms, 20,000 take 80."""
_SAMPLE = pa.schema([("content_hash", HASH), ("row_hash", HASH), (ROW_ADDRESS, pa.uint64())])


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The k rows nearest to each of q queries, best first."""

    addresses: NDArray[np.uint64]
    """Row addresses, (q, k); NOWHERE where there are fewer than k rows."""
    scores: NDArray[np.float32]
    """Cosines, (q, k); -inf where there is no row."""


def sample(dataset: LanceDataset, count: int) -> pa.Table:
    """A row (`chunk_id`, `doc_id`, `content_hash`, `_rowaddr`) of each of at most `count` contents: those of the smallest hashes.

    Hashes are uniform, so this is a uniform sample of the contents; and two tables give the same one as far as they hold the same
    contents (a bottom-k sketch; Cohen and Kaplan, PODC 2007).
    """
    best, bound = _SAMPLE.empty_table(), np.iinfo(np.uint64).max
    for rows in scan_batches(dataset, _SAMPLE.names[:2]):
        near = rows.filter(pa.array(halves(rows["content_hash"])[:, 0] <= bound))
        if len(near):
            best = _smallest(pa.concat_tables([best, near.select(_SAMPLE.names).cast(_SAMPLE)]), count)
            bound = halves(best["content_hash"])[-1, 0] if len(best) == count else bound
    named = take(dataset, best[ROW_ADDRESS].to_numpy(), ["chunk_id", "doc_id", "content_hash"])
    return named.append_column(ROW_ADDRESS, best[ROW_ADDRESS])


def _smallest(rows: pa.Table, count: int) -> pa.Table:
    """One row of each of the `count` smallest contents: that of the smallest row hash, which does not depend on where rows lie."""
    rows = rows.sort_by([("content_hash", "ascending"), ("row_hash", "ascending")]).combine_chunks()
    hashes = halves(rows["content_hash"])
    first = np.ones(len(rows), dtype=bool)
    first[1:] = (hashes[1:] != hashes[:-1]).any(axis=1)
    return rows.filter(pa.array(first)).slice(0, count)


def exact(dataset: LanceDataset, queries: NDArray[np.floating[Any]], k: int, chosen: str | None = None) -> Neighbours:
    """Of `queries` (q, d), by cosine with every vector: one matrix product a block, memory independent of the table's size.

    `chosen`: SQL of what rows must meet; None: all are compared. A row whose vector has no direction is nobody's neighbour. Of equal
    scores the smaller address goes first.
    """
    wanted = unit(queries)
    addresses = np.full((len(wanted), k), NOWHERE)
    scores = np.full((len(wanted), k), -np.inf, np.float32)
    for block, vectors in vector_blocks(dataset, width=len(wanted), chosen=chosen):
        products = wanted @ unit(vectors).T
        products[~np.isfinite(products)] = -np.inf
        products[:, ~vectors.any(axis=1)] = -np.inf
        keep = _best(products, k)
        nearest = np.take_along_axis(products, keep, axis=1)
        addresses, scores = _merge(np.concatenate([addresses, block[keep]], axis=1), np.concatenate([scores, nearest], axis=1), k)
    return Neighbours(np.where(np.isfinite(scores), addresses, NOWHERE), scores)


def vector_blocks(
    dataset: LanceDataset, fragments: list[Any] | None = None, width: int = 0, chosen: str | None = None
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.float32]]]:
    """Addresses (n,) and vectors (n, d) of all rows, or of those in `fragments`: as many at a time as make BLOCK_BYTES.

    `width`: numbers that the caller needs for each row, where that is more than d. `chosen`: SQL of what rows must meet.
    """
    rows = max(1, BLOCK_BYTES // (4 * max(width, dataset.schema.field("vector").type.list_size)))
    reading: dict[str, Any] = {"with_row_address": True, "batch_size": rows, "io_buffer_size": READ_BYTES}
    scanner = dataset.scanner(columns=["vector"], fragments=fragments, filter=chosen, late_materialization=chosen and True, **reading)
    for batch in scanner.to_batches():
        yield batch[ROW_ADDRESS].to_numpy(), to_numpy(batch["vector"])


def vectors_at(dataset: LanceDataset, addresses: NDArray[np.uint64]) -> NDArray[np.float32]:
    """The vectors of the rows at `addresses`, (n, d)."""
    return to_numpy(take(dataset, addresses, ["vector"])["vector"].combine_chunks())


def to_numpy(vectors: pa.FixedSizeListArray) -> NDArray[np.float32]:
    """Stored vectors as (n, d), float32 whatever their own type is."""
    numbers: NDArray[np.float32] = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return numbers.reshape(len(vectors), vectors.type.list_size)


def _best(products: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Columns of the k largest of each row, in no order; all of them if they are fewer."""
    if products.shape[1] <= k:
        return np.broadcast_to(np.arange(products.shape[1]), products.shape)
    return np.argpartition(-products, k - 1, axis=1)[:, :k]


def _merge(addresses: NDArray[np.uint64], scores: NDArray[np.float32], k: int) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """The k best of candidates, best first."""
    order = np.lexsort((addresses, -scores), axis=1)[:, :k]
    return np.take_along_axis(addresses, order, axis=1), np.take_along_axis(scores, order, axis=1)


def nearest(dataset: LanceDataset, query: NDArray[np.floating[Any]], k: int, chosen: str | None = None) -> Neighbours:
    """Of one `query` (d,), as a reader's search gives them: (1, k) or fewer. `chosen`: SQL of what rows must meet.

    The index is asked for at least so many partitions, and goes on until it has k rows. Where rows are chosen it looks into as many more
    as the chosen ones are fewer; few are all compared, wherever they lie.
    """
    share = 1.0
    if chosen is not None:
        count = dataset.count_rows(chosen)
        if count <= EXACT_ROWS:
            return exact(dataset, query[None], min(k, count), chosen)
        share = count / dataset.count_rows()
    near: dict[str, Any] = {"column": "vector", "q": unit(query[None])[0], "k": k, "metric": "cosine"}
    if partitions := probes(dataset):
        near |= {"minimum_nprobes": ceil(partitions / share), "refine_factor": REFINE}
    scanner = dataset.scanner(columns=["_distance"], nearest=near, prefilter=True, filter=chosen, with_row_address=True)
    rows = scanner.to_table()
    return Neighbours(rows[ROW_ADDRESS].to_numpy()[None], 1 - rows["_distance"].to_numpy()[None])


def searched(dataset: LanceDataset, queries: NDArray[np.floating[Any]], k: int) -> Neighbours:
    """Of `queries` (q, d), as a reader's search gives them. Without an index that is exact, for all of them at once."""
    if probes(dataset) is None:
        return exact(dataset, queries, k)
    addresses = np.full((len(queries), k), NOWHERE)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    for place, query in enumerate(queries):
        one = nearest(dataset, query, k)
        addresses[place, : one.addresses.shape[1]] = one.addresses
        scores[place, : one.scores.shape[1]] = one.scores
    return Neighbours(addresses, scores)


def offered(dataset: LanceDataset, queries: NDArray[np.floating[Any]], k: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """By the index, k rows or fewer for each of `queries` (q, d): the query's number and the address of the row, in no order.

    Near ones, and not the nearest: they are not compared by their full vectors. One pass for all queries: .8 ms for each of a thousand at
    220,000 rows, where a search of a reader takes 17.
    """
    near = {"column": "vector", "q": unit(queries), "k": k, "metric": "cosine", "nprobes": probes(dataset)}
    rows = dataset.scanner(columns=["_distance"], nearest=near, with_row_address=True).to_table()
    return rows["query_index"].to_numpy().astype(np.int64), rows[ROW_ADDRESS].to_numpy()


def search_recall(dataset: LanceDataset, places: NDArray[np.uint64], k: int) -> float:
    """The share of the k nearest rows that a reader's search finds, over the rows at `places`, which do not count themselves.

    By scores: of rows that are equally near any will do (Aumüller, Bernhardsson and Faithfull, ANN-Benchmarks, 2020).
    """
    queries = vectors_at(dataset, places)
    truth, answers = exact(dataset, queries, k + 1), searched(dataset, queries, k + 1)
    hits = total = 0
    for place, query, near, scores, reached in zip(places, unit(queries), truth.addresses, truth.scores, answers.addresses, strict=True):
        nearest = scores[(near != place) & (near != NOWHERE)][:k]
        others = reached[(reached != place) & (reached != NOWHERE)][:k]
        total += len(nearest)
        if len(nearest) and len(others):
            hits += int((unit(vectors_at(dataset, others)) @ query >= nearest[-1] - TIE).sum())
    return hits / total if total else 1.0
