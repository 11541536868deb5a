"""Where landmarks lie in the plane: each beside those that are like it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.reports.atlas.graph import Near

FEW = 200
"""Landmarks, below which the two main directions are as good a map as any."""
PERPLEXITY = 15
"""Neighbours that a landmark is drawn to."""
ATTRACTION = 12
"""How many times as strong in the first iterations, in which the large shape is found."""
FIRST, THEN = 100, 200
"""Iterations. With twice as many no more neighbours are kept, and it takes three times as long: a map that goes on growing needs a
larger grid."""
SMALL = 1e-4
"""Spread of the start beside the size of the map: so that nothing stands in the way of anything else."""


def layout(vectors: NDArray[np.float32], near: Near, start: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Places (n, 2) of `vectors` (n, d), directions, by their neighbours: t-SNE (van der Maaten and Hinton, JMLR 9, 2008) with repulsion
    by interpolation (Linderman et al., Nature Methods 16, 2019). The same input gives the same bytes.

    `near`: three times PERPLEXITY neighbours of each, or fewer. `start`: places in an earlier map, no number where there is none; then
    nothing moves further than it must.
    """
    if len(vectors) < FEW:
        return main_plane(vectors)
    if start is not None and (known := np.isfinite(start).all(axis=1)).any():
        return _optimised(_filled(start, known, near), _affinities(near), kept=True)
    return _optimised(_small(main_plane(vectors)), _affinities(near), kept=False)


def main_plane(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The two main directions of `vectors` (n, d), as places (n, 2)."""
    places = np.zeros((len(vectors), 2), np.float32)
    if not len(vectors):
        return places
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    directions = np.linalg.eigh(centred.T @ centred)[1][:, :-3:-1]
    # a direction and its opposite are as good: the one whose largest part is positive
    directions = directions * np.sign(np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[None], axis=0))
    places[:, : directions.shape[1]] = centred @ directions
    return places


def _filled(start: NDArray[np.float32], known: NDArray[np.bool_], near: Near) -> NDArray[np.float64]:
    """`start`, with what has no place in the middle of those of its neighbours that have one, or of all."""
    there = known[near.places] & (near.places >= 0)
    counts = there.sum(axis=1)
    sums = np.where(there[:, :, None], start[near.places], 0).sum(axis=1, dtype=np.float64)
    middle = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], start[known].mean(axis=0, dtype=np.float64))
    return np.where(known[:, None], start, middle) + _apart(len(start)) * SMALL


def _small(places: NDArray[np.float32]) -> NDArray[np.float64]:
    """The shape of `places`, of spread SMALL; no two in the same place."""
    wide = max(float(places.std(axis=0).max()), float(np.finfo(np.float32).tiny))
    return (places.astype(np.float64) / wide + _apart(len(places)) / 100) * SMALL


def _apart(count: int) -> NDArray[np.float64]:
    """Places of a spiral of radius 1 (Vogel's sunflower): equal landmarks cannot be told apart by what pulls them."""
    order = np.arange(count) + 0.5
    radius, angle = np.sqrt(order / count), order * np.pi * (3 - np.sqrt(5))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _affinities(near: Near) -> Any:
    """How strongly each is drawn to its neighbours, by distances of directions."""
    from openTSNE.affinity import PrecomputedAffinities, joint_probabilities_nn

    columns = int((near.places >= 0).all(axis=0).sum())  # as many as all have
    distances = np.sqrt(np.maximum(2 - 2 * near.cosines[:, :columns].astype(np.float64), 0))
    drawn = joint_probabilities_nn(near.places[:, :columns], distances, [min(PERPLEXITY, (columns - 1) / 3)], n_jobs=1)
    return PrecomputedAffinities(drawn, normalize=False)


def _optimised(begin: NDArray[np.float64], affinities: Any, kept: bool) -> NDArray[np.float32]:
    from openTSNE import TSNEEmbedding

    places = TSNEEmbedding(begin, affinities, negative_gradient_method="fft", n_jobs=1, random_state=0)
    if not kept:
        places = places.optimize(FIRST, exaggeration=ATTRACTION, momentum=0.5, learning_rate="auto")
    places = np.asarray(places.optimize(THEN, momentum=0.8, learning_rate="auto"))
    return np.asarray(places if kept else places - places.mean(axis=0), np.float32)
