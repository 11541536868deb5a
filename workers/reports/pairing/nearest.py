"""The contents nearest to some: looked for behind the landmarks that are nearest to each.

Which landmarks these are is found among those nearest to its own one, so that a content is compared to some hundred landmarks and to some
hundred or thousand contents, however many there are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.reports.atlas import Atlas
from workers.reports.atlas.graph import beside
from workers.reports.pairing.near import cosines
from workers.reports.pairing.shelf import Shelf

K = 15
AROUND = 512
"""Landmarks nearest to a content's own one, among which its nearest are found."""
LANDMARKS_AT_ONCE = 1024
PROBED = 128
"""Landmarks nearest to a content, behind which its neighbours are looked for."""
CANDIDATES = 16_384
"""Contents from which on no further landmark is probed; and of one landmark at most so many are looked at, those of smallest hash."""
SPARE = 4
"""More than are wanted, whose cosines are taken exactly."""
BLOCK_NUMBERS = 4 << 20
"""Products at a time."""


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


def search(shelf: Shelf, atlas: Atlas, asked: NDArray[np.bool_], bound: NDArray[np.float32]) -> Iterator[Searched]:
    """The K nearest of those that are `asked` for, by landmark. One without a landmark is near to nothing.

    `bound`, of each content: the cosine above which it gains one that is asked for.
    """
    places = np.flatnonzero(asked & (shelf.landmark >= 0))
    own, starts = np.unique(shelf.landmark[places], return_index=True)
    queries = np.split(places, starts[1:])
    for begin in range(0, len(own), LANDMARKS_AT_ONCE):
        around = beside(atlas.vectors[own[begin : begin + LANDMARKS_AT_ONCE]], atlas.vectors, AROUND).places.astype(np.int64)
        for these, near in zip(queries[begin : begin + LANDMARKS_AT_ONCE], around, strict=True):
            yield from _behind(shelf, atlas.vectors, near, these, asked, bound)


def _behind(
    shelf: Shelf,
    landmarks: NDArray[np.float32],
    around: NDArray[np.int64],
    places: NDArray[np.int64],
    asked: NDArray[np.bool_],
    bound: NDArray[np.float32],
) -> Iterator[Searched]:
    """Of contents of one landmark; `around` are those that are nearest to it."""
    most = max(1, BLOCK_NUMBERS // (K * CANDIDATES))
    for begin in range(0, len(places), most):
        queries = places[begin : begin + most]
        vectors = shelf.vectors(queries)
        candidates = _contents(shelf, _probed(shelf, around, vectors @ landmarks[around].T))
        yield _nearest(shelf, queries, candidates, vectors, asked, bound)


def _probed(shelf: Shelf, around: NDArray[np.int64], products: NDArray[np.float32]) -> NDArray[np.int64]:
    """The landmarks that some contents are looked for behind: of each the PROBED nearest, as long as CANDIDATES are not reached."""
    order = np.argsort(-products, axis=1, kind="stable")[:, :PROBED]
    chosen = around[order]
    counts = np.minimum(shelf.starts[chosen + 1] - shelf.starts[chosen], CANDIDATES)
    return np.unique(chosen[np.cumsum(counts, axis=1) - counts < CANDIDATES])


def _contents(shelf: Shelf, landmarks: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of what is behind some landmarks."""
    starts = shelf.starts[landmarks]
    counts = np.minimum(shelf.starts[landmarks + 1] - starts, CANDIDATES)
    ends = np.cumsum(counts)
    return np.asarray(np.arange(ends[-1]) + np.repeat(starts - ends + counts, counts))


def _nearest(
    shelf: Shelf,
    places: NDArray[np.int64],
    candidates: NDArray[np.int64],
    vectors: NDArray[np.float32],
    asked: NDArray[np.bool_],
    bound: NDArray[np.float32],
) -> Searched:
    others = shelf.vectors(candidates)
    products = vectors @ others.T
    products[places[:, None] == candidates] = -np.inf
    products[~np.isfinite(products)] = -np.inf
    query, gainer = np.nonzero(products > np.where(asked[candidates], np.inf, bound[candidates]))
    gains = candidates[gainer], places[query], products[query, gainer]
    count = min(K + SPARE, len(candidates))
    best = np.argpartition(-products, count - 1, axis=1)[:, :count]
    exact = cosines(vectors, np.repeat(np.arange(len(places)), count), others, best.ravel()).reshape(best.shape)
    exact[np.isneginf(np.take_along_axis(products, best, axis=1))] = -np.inf
    order = np.lexsort((shelf.hashes[candidates[best]][:, :, 0], -exact), axis=1)[:, :K]
    near, scores = np.full((len(places), K), -1, np.int64), np.full((len(places), K), -np.inf, np.float32)
    scores[:, : order.shape[1]] = np.take_along_axis(exact, order, axis=1)
    near[:, : order.shape[1]] = np.take_along_axis(candidates[best], order, axis=1)
    near[np.isneginf(scores)] = -1
    return Searched(places, near, scores, gains)
