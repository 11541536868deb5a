"""Pairs of contents above a cosine, among those that have one of their two landmarks in common.

A cell is what has a landmark, or one of some that are nearly the same, as its nearest or its second. Within it every new content is
compared to every other one, so that an update costs what has changed. Of two contents the one of the smaller hash is the first; a content
keeps the first `LISTED` of its firsts, and a cell compares its contents to its first `CELL_CONTENTS`: otherwise boilerplate would make
pairs with the square of its number.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage.reports.atlas import Atlas
from workers.reports.pairing.shelf import Shelf, Since
from workers.reports.pairing.stars import belonging

LISTED = 64
"""Pairs that a content has with contents of smaller hashes."""
CELL_CONTENTS = 20_000
"""Contents of a cell that all of it is compared to."""
BLOCK_NUMBERS = 4 << 20
"""Products at a time."""
PAIRS_AT_ONCE = 1 << 16
"""That are handed on together."""
ALIKE = 0.9
"""The cosine from which on two landmarks are nearly the same."""
CLOSE = 1e-4
"""To the limit: there products of float32 do not decide."""


Found = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""The first and the other of each pair, as places on the shelf, and their cosine: (n,) each."""


def joined(atlas: Atlas) -> NDArray[np.int32]:
    """The cell of each landmark, called by the first in it: landmarks that are nearly the same are one.

    A family of near-duplicates has landmarks of its own. What is near to different ones of them would never meet: of 24,357 pairs of
    Debian's descriptions whose cosine is at least .95 that would be 16 %, and is 1.3 %.
    """
    landmark, column = np.nonzero((atlas.neighbours >= 0) & (atlas.cosines >= ALIKE))
    other = atlas.neighbours[landmark, column].astype(np.int64)
    return belonging(np.minimum(landmark, other), np.maximum(landmark, other), atlas.size).astype(np.int32)


@dataclass(frozen=True, slots=True)
class Cells:
    """Which contents of a shelf are in which cell."""

    shelf: Shelf
    members: tuple[NDArray[np.int32], NDArray[np.int32]]
    """The cell of the nearest landmark of each, and that of its second; -1 where there is none or it is the same."""
    orders: tuple[NDArray[np.int64], NDArray[np.int64]]
    """Places in the order of `members`."""
    starts: tuple[NDArray[np.int64], NDArray[np.int64]]
    """Where in `orders` each cell begins, and the end."""
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

    def having(self, some: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether each content is in one of `some` cells."""
        nearest, second = ((cell >= 0) & some[cell] for cell in self.members)
        return np.asarray(nearest | second)

    def around(self, some: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The cells of `some` contents that have others in them, too."""
        nearest, second = (cell[some & (cell >= 0)] for cell in self.members)
        cells = np.unique(np.concatenate([nearest, second])).astype(np.int64)
        return cells[self.sizes[cells] > 1]

    def of(self, cell: int) -> NDArray[np.int64]:
        """The places of what is in a cell, in the order of their hashes."""
        both = [order[starts[cell] : starts[cell + 1]] for order, starts in zip(self.orders, self.starts, strict=True)]
        places = np.concatenate(both)
        hashes = self.shelf.hashes[places]
        return places[np.lexsort((hashes[:, 1], hashes[:, 0]))]


def cells_of(shelf: Shelf, cell_of: NDArray[np.int32]) -> Cells:
    """`cell_of`: the cell of each landmark."""
    members = _members(cell_of, shelf.landmark, shelf.second)
    first, second = (np.argsort(cells, kind="stable") for cells in members)
    numbers = np.arange(len(cell_of) + 1)
    starts = np.searchsorted(members[0][first], numbers), np.searchsorted(members[1][second], numbers)
    new = shelf.since == Since.NEW
    gone = shelf.gone.filter(pc.invert(shelf.gone["there"]))
    sizes = _tally(len(cell_of), members)
    came = _tally(len(cell_of), (members[0][new], members[1][new]))
    left = _tally(len(cell_of), _members(cell_of, gone["landmark"].to_numpy(), gone["second"].to_numpy()))
    return Cells(shelf, members, (first, second), starts, (came + left) > 0, sizes, sizes - came + left)


def _members(
    cell_of: NDArray[np.int32], landmark: NDArray[np.int32], second: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    named = np.append(cell_of, np.int32(-1))  # the last is that of no landmark
    nearest, other = named[landmark], named[second]
    return nearest, np.where(other == nearest, np.int32(-1), other)


def _tally(count: int, members: tuple[NDArray[np.int32], NDArray[np.int32]]) -> NDArray[np.int64]:
    nearest, second = (np.bincount(cells[cells >= 0], minlength=count) for cells in members)
    return np.asarray(nearest + second)


def pairs_in(cells: Cells, among: NDArray[np.int64], new: NDArray[np.bool_], least: float) -> Iterator[Found]:
    """Of the cells `among` the pairs whose cosine is at least `least`, some at a time; what two cells have comes twice.

    `new`, of each content: a pair has at least one.
    """
    waiting: list[Found] = []
    for cell in among.tolist():
        places = cells.of(cell)
        waiting += _within(cells.shelf.vectors(places), places, new[places], least)
        if sum(len(first) for first, _, _ in waiting) > PAIRS_AT_ONCE or len(waiting) > PAIRS_AT_ONCE:
            yield _together(waiting)
            waiting = []
    if waiting:
        yield _together(waiting)


def _together(found: list[Found]) -> Found:
    first, other, cosine = map(np.concatenate, zip(*found, strict=True))
    return first, other, cosine


def _within(vectors: NDArray[np.float32], places: NDArray[np.int64], fresh: NDArray[np.bool_], least: float) -> Iterator[Found]:
    """Of one cell, in the order of hashes: its new contents against those before them, and those after them that are not new."""
    keys = vectors[:CELL_CONTENTS]
    asked = np.flatnonzero(fresh) if len(keys) == len(places) else np.arange(len(places))
    step = max(1, BLOCK_NUMBERS // len(keys))
    for begin in range(0, len(asked), step):
        queries = asked[begin : begin + step]
        products = vectors[queries] @ keys.T
        near = products >= least - CLOSE
        near[np.arange(len(queries))[queries < len(keys)], queries[queries < len(keys)]] = False
        if not near.any():
            continue
        unsure = np.nonzero(near & (products < least + CLOSE))
        near[unsure] = cosines(vectors, queries[unsure[0]], vectors, unsure[1]) >= least
        columns, asks = np.arange(len(keys)), fresh[queries][:, None]
        query, first = np.nonzero(_leading(near & (columns < queries[:, None]) & (asks | fresh[columns])))
        yield _made(vectors, places, first, queries[query])
        query, other = np.nonzero(near & (columns > queries[:, None]) & asks & ~fresh[columns])
        yield _made(vectors, places, queries[query], other)


def _leading(hits: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The first LISTED of each row."""
    if len(hits) and hits.sum(axis=1).max() > LISTED:
        hits = hits & (np.cumsum(hits, axis=1, dtype=np.int32) <= LISTED)
    return hits


def _made(vectors: NDArray[np.float32], places: NDArray[np.int64], first: NDArray[np.int64], other: NDArray[np.int64]) -> Found:
    return places[first], places[other], cosines(vectors, first, vectors, other).astype(np.float32)


def cosines(
    vectors: NDArray[np.float32], first: NDArray[np.int64], others: NDArray[np.float32], other: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Of pairs of directions, one of `vectors` and one of `others`; the same whatever is beside them: sums of float64."""
    made = np.empty(len(first))
    step = max(1, BLOCK_NUMBERS // max(1, 4 * vectors.shape[1]))
    for begin in range(0, len(first), step):
        some = slice(begin, begin + step)
        made[some] = (vectors[first[some]].astype(np.float64) * others[other[some]].astype(np.float64)).sum(axis=1)
    return np.minimum(made, 1)
