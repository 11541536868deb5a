"""What two tables have nearest to the same things, side by side."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceDataset
from numpy.typing import NDArray

from pipelines.measures.quality import TOP, overlap
from storage.reading.neighbours import NOWHERE, Neighbours, exact, sample, vectors_at
from storage.store.lance import ROW_ADDRESS, scan_batches, take

DEPTH = 5 * TOP
"""Rows that are looked through for TOP different contents or documents that both tables hold."""
QUERIES = 200
"""Contents that are asked for: the standard error of a mean overlap is then about .01."""
SHARED = 0.5
"""Of two samples, contents in common from which on tables are compared by content; else by document."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A document or a content that is near to a query."""

    key: str | bytes
    """What it is compared by: a document's id or the hash of a content."""
    address: int
    """Of its best row."""
    score: float
    """Cosine."""


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """What is nearest to one query in two tables."""

    address: int
    """Of the query in the first one."""
    first: list[Hit]
    second: list[Hit]

    @property
    def overlap(self) -> float | None:
        """Share in common; None if there is nothing to compare."""
        return overlap([hit.key for hit in self.first], [hit.key for hit in self.second])


@dataclass(frozen=True, slots=True)
class Neighbourhoods:
    """Those of a fixed sample of queries, each with the vector that its table has stored of it."""

    by: str
    """What is compared: "content_hash", or "doc_id" where the tables were cut in different ways."""
    neighbourhoods: list[Neighbourhood]

    @property
    def mean(self) -> float | None:
        """The mean overlap; None if nothing could be compared."""
        known = [share for neighbourhood in self.neighbourhoods if (share := neighbourhood.overlap) is not None]
        return float(np.mean(known)) if known else None


Find = Callable[[LanceDataset, NDArray[np.float32], int], Neighbours]
"""The nearest rows of some queries: `exact`, or `searched`."""


def compare_neighbourhoods(first: LanceDataset, second: LanceDataset, count: int = QUERIES, find: Find = exact) -> Neighbourhoods:
    """The 10 nearest neighbours of at most `count` queries in both.

    Queries are contents that both hold, or the beginnings of documents where few are the same. A query is not its own neighbour, and
    what only one of the tables holds is nobody's: so a change of the corpus is no change of neighbourhoods.
    """
    samples = sample(first, count), sample(second, count)
    shared = sorted(set(samples[0]["content_hash"].to_pylist()) & set(samples[1]["content_hash"].to_pylist()))
    if len(shared) >= SHARED * min(map(len, samples)):
        by, keys = "content_hash", shared
        places = [_places(rows, "content_hash", shared) for rows in samples]
    else:
        by = "doc_id"
        keys, places = _first_chunks(first, second, samples[0]["doc_id"].to_pylist())
    lists = [_neighbours(table, where, by, find) for table, where in zip((first, second), places, strict=True)]
    lists = [_held(lists[0], second, by), _held(lists[1], first, by)]
    queries = zip(keys, places[0].tolist(), *lists, strict=True)
    return Neighbourhoods(by, [Neighbourhood(place, _others(a, key), _others(b, key)) for key, place, a, b in queries])


def _places(rows: pa.Table, column: str, keys: Sequence[Any]) -> NDArray[np.uint64]:
    """The addresses of `keys`, in their order."""
    address = dict(zip(rows[column].to_pylist(), rows[ROW_ADDRESS].to_pylist(), strict=True))
    return np.array([address[key] for key in keys], dtype=np.uint64)


def _first_chunks(first: LanceDataset, second: LanceDataset, documents: list[str]) -> tuple[list[str], list[NDArray[np.uint64]]]:
    """Those of `documents` that both tables hold, and the addresses of their first chunks."""
    wanted = {f"{document}#0": document for document in documents}
    places = [locate(table, "chunk_id", wanted) for table in (first, second)]
    keys = sorted(places[0].keys() & places[1].keys())
    return [wanted[key] for key in keys], [np.array([addresses[key] for key in keys], dtype=np.uint64) for addresses in places]


def locate(dataset: LanceDataset, column: str, values: Collection[Any]) -> dict[Any, int]:
    """The address of a row for each of `values` that `column` holds."""
    wanted = pa.array(sorted(values), dataset.schema.field(column).type)
    addresses: dict[Any, int] = {}
    for rows in scan_batches(dataset, [column]):
        hits = rows.filter(pc.is_in(rows[column], value_set=wanted))
        for value, address in zip(hits[column].to_pylist(), hits[ROW_ADDRESS].to_pylist(), strict=True):
            addresses.setdefault(value, address)
    return addresses


def _neighbours(dataset: LanceDataset, places: NDArray[np.uint64], by: str, find: Find) -> list[list[Hit]]:
    return hits(dataset, find(dataset, vectors_at(dataset, places), DEPTH), by) if len(places) else []


def hits(dataset: LanceDataset, neighbours: Neighbours, by: str) -> list[list[Hit]]:
    """For each query what its neighbours are, by column `by`: each once, best first."""
    rows, back = np.unique(neighbours.addresses, return_inverse=True)
    present = rows[rows != NOWHERE]
    keys = [*(take(dataset, present, [by])[by].to_pylist() if len(present) else []), None]
    ranked = []
    for addresses, scores, numbers in zip(neighbours.addresses, neighbours.scores, back.reshape(neighbours.addresses.shape), strict=True):
        best: dict[Any, Hit] = {}
        for address, score, number in zip(addresses.tolist(), scores.tolist(), numbers.tolist(), strict=True):
            if address != int(NOWHERE):
                best.setdefault(keys[number], Hit(keys[number], address, score))
        ranked.append(list(best.values()))
    return ranked


def _held(lists: list[list[Hit]], other: LanceDataset, by: str) -> list[list[Hit]]:
    """The lists without what `other` does not hold: that would be no neighbour there in any case."""
    held = locate(other, by, {hit.key for nearest in lists for hit in nearest})
    return [[hit for hit in nearest if hit.key in held] for nearest in lists]


def _others(near: list[Hit], key: str | bytes) -> list[Hit]:
    return [hit for hit in near if hit.key != key][:TOP]
