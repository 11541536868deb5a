"""Where a row lies in the plane: beside its nearest landmark, so close that it belongs to no other."""

import numpy as np
from numpy.typing import NDArray


def reach(places: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far from each landmark (n,) its rows may lie, of `places` (n, 2): half-way to the next one."""
    from scipy.spatial import cKDTree

    if len(places) < 2:
        return np.ones(len(places), np.float32)
    return np.asarray(cKDTree(places).query(places, 2)[0][:, 1] / 2, np.float32)


def placed(
    hashes: NDArray[np.uint64],
    landmarks: NDArray[np.int32],
    similarities: NDArray[np.float32],
    places: NDArray[np.float32],
    reaches: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Places (m, 2) of rows beside `landmarks` (m,), whose `places` (n, 2) and `reaches` (n,) are given.

    The less alike the further away, in the direction that the `hashes` (m,) of their contents say: equal contents lie together, a
    landmark's own where it is. What is kept of neighbours in the plane hangs on the landmark: neither the mean of several (.05 of the
    neighbours instead of .41) nor a way towards the second (.41) is better.
    """
    angle = hashes.astype(np.float64) * (2 * np.pi / 2.0**64)
    far = reaches[landmarks] * np.clip(1 - similarities.astype(np.float64), 0, 1)
    spots: NDArray[np.float32] = (places[landmarks] + far[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(np.float32)
    return spots
