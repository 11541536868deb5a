"""Pairs of contents above a cosine, among those that have one of their two landmarks in common.

A cell is what has a landmark as its nearest or its second. Within it every new content is compared to every other one, so that an update
costs what has changed. Of two contents the one of the smaller hash is the first; a content keeps the first `LISTED` of its firsts, and a
cell compares its contents to its first `CELL_CONTENTS`: otherwise boilerplate would make pairs with the square of its number.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.reports.pairing.shelf import Shelf, Standing

LISTED = 32
"""Pairs that a content has with contents of smaller hashes."""
CELL_CONTENTS = 20_000
"""Contents of a cell that all of it is compared to."""
BLOCK_NUMBERS = 4 << 20
"""Products at a time."""
CLOSE = 1e-4
"""To the limit: there products of float32 do not decide."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Which contents of a shelf are in which cell."""

    shelf: Shelf
    order: NDArray[np.int64]
    """Places by their second landmark."""
    seconds: NDArray[np.int64]
    """Where in `order` each landmark begins, and the end."""
    moved: NDArray[np.bool_]
    """Whether contents came into a cell or left it, for each."""
    sizes: NDArray[np.int64]
    sizes_before: NDArray[np.int64]

    @property
    def capped(self) -> NDArray[np.bool_]:
        """Cells in which not all are compared to all."""
        return self.sizes > CELL_CONTENTS

    @property
    def renewed(self) -> NDArray[np.bool_]:
        """Cells whose first contents may be others than before: all that is in them is as good as new."""
        return self.moved & (np.maximum(self.sizes, self.sizes_before) > CELL_CONTENTS)

    def of(self, cell: int) -> NDArray[np.int64]:
        """The places of what is in a cell, in the order of their hashes."""
        starts = self.shelf.starts
        nearest = np.arange(starts[cell], starts[cell + 1])
        both = np.concatenate([nearest, self.order[self.seconds[cell] : self.seconds[cell + 1]]])
        hashes = self.shelf.hashes[both]
        return both[np.lexsort((hashes[:, 1], hashes[:, 0]))]


def cells_of(shelf: Shelf) -> Cells:
    count = len(shelf.starts) - 1
    order = np.argsort(shelf.second, kind="stable")
    seconds = np.searchsorted(shelf.second[order], np.arange(count + 1))
    new = shelf.standing == Standing.NEW
    gone = shelf.gone.filter(np.logical_not(shelf.gone["there"].to_numpy()))
    came = _tally(count, shelf.landmark[new], shelf.second[new])
    left = _tally(count, gone["landmark"].to_numpy(), gone["second"].to_numpy())
    sizes = np.diff(shelf.starts) + np.diff(seconds)
    return Cells(shelf, order, seconds, (came + left) > 0, sizes, sizes - came + left)


def _tally(count: int, *columns: NDArray[np.int32]) -> NDArray[np.int64]:
    return sum((np.bincount(column[column >= 0], minlength=count) for column in columns), np.zeros(count, np.int64))


def pairs_in(
    cells: Cells, among: NDArray[np.int64], new: NDArray[np.bool_], least: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Of the cells `among`: the first and the other of each pair, as places, and their cosine, at least `least`, (n,) each.

    `new`, of each content: a pair has at least one. What two cells have comes twice.
    """
    for cell in among.tolist():
        places = cells.of(cell)
        fresh = new[places]
        if len(places) > 1 and fresh.any():
            yield from _within(cells.shelf.vectors(places), places, fresh, least)


def _within(
    vectors: NDArray[np.float32], places: NDArray[np.int64], fresh: NDArray[np.bool_], least: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Of one cell, in the order of hashes: its new contents against those before them, and those after them that are not new."""
    keys = vectors[:CELL_CONTENTS]
    asked = np.flatnonzero(fresh) if len(keys) == len(places) else np.arange(len(places))
    step = max(1, BLOCK_NUMBERS // len(keys))
    for begin in range(0, len(asked), step):
        queries = asked[begin : begin + step]
        products = vectors[queries] @ keys.T
        near = products >= least - CLOSE
        if not near.any():
            continue
        unsure = np.nonzero(near & (products < least + CLOSE))
        near[unsure] = cosines(vectors, queries[unsure[0]], unsure[1]) >= least
        columns = np.arange(len(keys))
        before = near & (columns < queries[:, None]) & (fresh[queries][:, None] | fresh[columns])
        query, first = np.nonzero(_leading(before))
        yield _made(vectors, places, first, queries[query])
        after = near & (columns > queries[:, None]) & fresh[queries][:, None] & ~fresh[columns]
        query, other = np.nonzero(after)
        yield _made(vectors, places, queries[query], other)


def _leading(hits: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The first LISTED of each row."""
    if len(hits) and hits.sum(axis=1).max() > LISTED:
        hits = hits & (np.cumsum(hits, axis=1, dtype=np.int32) <= LISTED)
    return hits


def _made(
    vectors: NDArray[np.float32], places: NDArray[np.int64], first: NDArray[np.int64], other: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    return places[first], places[other], cosines(vectors, first, other).astype(np.float32)


def cosines(vectors: NDArray[np.float32], first: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of pairs of directions, the same whatever they are computed beside: sums of float64."""
    made = np.empty(len(first))
    step = max(1, BLOCK_NUMBERS // max(1, 4 * vectors.shape[1]))
    for begin in range(0, len(first), step):
        some = slice(begin, begin + step)
        made[some] = (vectors[first[some]].astype(np.float64) * vectors[other[some]].astype(np.float64)).sum(axis=1)
    return made
