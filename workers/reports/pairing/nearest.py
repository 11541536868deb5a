"""The contents nearest to some: by the table's own index, where it has one, and by comparing them to all where it has none.

What the index offers is compared again by full vectors. An index of a bit a dimension alone has .65 of the nearest 15 of film passages; of
the nearest of 160 that it offers .96 are right.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.reading.neighbours import offered
from storage.store.lance import ROW_ADDRESS, scan_batches
from storage.tables.index import probes
from workers.reports.pairing.near import BLOCK_NUMBERS, cosines
from workers.reports.pairing.shelf import Register, Shelf

K = 15
QUERIES = 1024
"""Contents that are searched at a time."""
OFFERED = 160
"""Rows that the index is asked for. Of 96 are .93 right, of 160 .96 (film passages, 24 of 53 partitions)."""
SPARE = 4
"""More than are wanted, whose cosines are taken exactly."""


@dataclass(frozen=True, slots=True)
class Searched:
    """The nearest of some contents, and whose nearest these may be in turn. All are places on the shelf."""

    places: NDArray[np.int64]
    """(q,)."""
    near: NDArray[np.int64]
    """Best first, (q, K); -1 where there are fewer."""
    cosines: NDArray[np.float32]
    """(q, K)."""
    gains: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
    """Contents that were not asked for, one of `places`, and their cosine, which is above the bound: (g,) each."""


@dataclass(frozen=True, slots=True)
class Links:
    """Candidates of queries: the number of the query, and a place on the shelf, (n,) each, none twice."""

    query: NDArray[np.int64]
    place: NDArray[np.int64]


def search(shelf: Shelf, vectors: Any, asked: NDArray[np.bool_], bound: NDArray[np.float32]) -> Iterator[Searched]:
    """The K nearest of those that are `asked` for. One without a landmark, whose vector has no direction, is near to nothing.

    `vectors`: the table that the shelf is of. `bound`, of each content: the cosine above which it gains one that is asked for.
    """
    places = np.flatnonzero(asked & (shelf.landmark >= 0))
    bound = np.where(asked, np.inf, bound)
    index = _Index(shelf, vectors) if len(places) and probes(vectors) is not None else None
    for begin in range(0, len(places), QUERIES):
        queries = places[begin : begin + QUERIES]
        few = np.ones(len(queries), dtype=bool)
        if index is not None:
            links = index.links(queries)
            few = np.bincount(links.query, minlength=len(queries)) < min(K, len(shelf) - 1)  # copies of a few contents took the places
            sure = ~few[links.query]
            yield _ranked(shelf, queries[~few], Links((np.cumsum(~few) - 1)[links.query[sure]], links.place[sure]), bound)
        if few.any():
            yield _ranked(shelf, queries[few], _among_all(shelf, queries[few], bound), bound)


class _Index:
    """The index of a table, that offers contents. 16 bytes a row."""

    def __init__(self, shelf: Shelf, vectors: Any) -> None:
        register, places, addresses = Register(shelf), [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
        for rows in scan_batches(vectors, ["content_hash"]):
            places.append(register.places(rows["content_hash"]))
            addresses.append(rows[ROW_ADDRESS].to_numpy())
        every = np.concatenate(addresses)
        order = np.argsort(every)
        self._shelf, self._vectors = shelf, vectors
        self._addresses, self._places = every[order], np.concatenate(places)[order]

    def links(self, queries: NDArray[np.int64]) -> Links:
        query, addresses = offered(self._vectors, self._shelf.vectors(queries), OFFERED)
        place = self._places[np.searchsorted(self._addresses, addresses)]
        other = (place != queries[query]) & (place >= 0) & (self._shelf.landmark[place] >= 0)
        both = np.unique(np.stack([query[other], place[other]], axis=1), axis=0)
        return Links(both[:, 0], both[:, 1])


def _among_all(shelf: Shelf, queries: NDArray[np.int64], bound: NDArray[np.float32]) -> Links:
    """By one matrix product a block: the nearest, and whoever gains a query."""
    import torch

    wanted, step = shelf.vectors(queries), max(1, BLOCK_NUMBERS // QUERIES)
    best = torch.full((len(queries), 0), -torch.inf)
    near = torch.zeros((len(queries), 0), dtype=torch.int64)
    gains = [np.zeros((0, 2), np.int64)]
    for begin in range(0, len(shelf), step):
        products = wanted @ shelf.vectors(slice(begin, begin + step)).T
        products[~np.isfinite(products) | (shelf.landmark[begin : begin + step] < 0)] = -np.inf
        within = np.flatnonzero((queries >= begin) & (queries < begin + step))
        products[within, queries[within] - begin] = -np.inf
        gaining = np.flatnonzero(bound[begin : begin + step] < 1)
        query, gainer = np.nonzero(products[:, gaining] > bound[begin + gaining])
        gains.append(np.stack([query, begin + gaining[gainer]], axis=1))
        top = torch.from_numpy(products).topk(min(K + SPARE, products.shape[1]))
        best, near = torch.cat([best, top.values], dim=1), torch.cat([near, top.indices + begin], dim=1)
        kept = best.topk(min(K + SPARE, best.shape[1]))
        best, near = kept.values, near.gather(1, kept.indices)
    there = np.nonzero(np.isfinite(best.numpy()))
    both = np.unique(np.concatenate([np.stack([there[0], near.numpy()[there]], axis=1), *gains]), axis=0)
    return Links(both[:, 0], both[:, 1])


def _ranked(shelf: Shelf, queries: NDArray[np.int64], links: Links, bound: NDArray[np.float32]) -> Searched:
    """By exact cosines, taken pair by pair: the same bytes in whatever block a pair comes. Of equals the smaller hash goes first."""
    exact = _cosines(shelf, queries, links)
    order = np.lexsort((shelf.hashes[links.place, 0], -exact, links.query))
    query, place, exact = links.query[order], links.place[order], exact[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    near, scores = np.full((len(queries), K), -1, np.int64), np.full((len(queries), K), -np.inf, np.float32)
    first = rank < K
    near[query[first], rank[first]], scores[query[first], rank[first]] = place[first], exact[first]
    gained = exact > bound[place]
    return Searched(queries, near, scores, (place[gained], queries[query[gained]], exact[gained]))


def _cosines(shelf: Shelf, queries: NDArray[np.int64], links: Links) -> NDArray[np.float32]:
    wanted, step = shelf.vectors(queries), max(1, BLOCK_NUMBERS // max(1, shelf.stored.shape[1]))
    made = np.zeros(len(links.query), np.float32)
    for begin in range(0, len(made), step):
        some = slice(begin, begin + step)
        others = shelf.vectors(links.place[some])
        made[some] = cosines(wanted, links.query[some], others, np.arange(len(others)))
    return made
