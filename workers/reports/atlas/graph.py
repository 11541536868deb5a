"""Which vectors are nearest to which: among the landmarks of an atlas, and of other rows to them. Exact, in blocks of bounded memory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

K = 15
"""Neighbours of a landmark in the graph."""
BLOCK_BYTES = 64 << 20
"""Of float32 cosines that are held at once."""


@dataclass(frozen=True, slots=True)
class Near:
    """The k vectors nearest to each of m, best first, equal ones by their places."""

    places: NDArray[np.int32]
    """Which they are, (m, k)."""
    cosines: NDArray[np.float32]
    """(m, k)."""


def beside(vectors: NDArray[np.float32], landmarks: NDArray[np.float32], k: int = 2) -> Near:
    """The k of `landmarks` (n, d) nearest to each of `vectors` (m, d), all of length 1 or 0; k is n where there are fewer.

    A vector without a direction has a cosine of 0 to all. Memory is BLOCK_BYTES beside what is given and returned.
    """
    import torch

    k = min(k, len(landmarks))
    places, cosines = np.zeros((len(vectors), k), np.int32), np.zeros((len(vectors), k), np.float32)
    if not k:
        return Near(places, cosines)
    columns, size = torch.from_numpy(landmarks).T, max(1, BLOCK_BYTES // (4 * len(landmarks)))
    products = torch.empty((min(size, len(vectors)), len(landmarks)))
    for first in range(0, len(vectors), size):
        rows = torch.from_numpy(vectors[first : first + size])
        torch.mm(rows, columns, out=products[: len(rows)])
        best = products[: len(rows)].topk(k).indices.numpy().astype(np.int32)
        block = slice(first, first + len(rows))
        places[block], cosines[block] = _ordered(best, rows.numpy(), landmarks)
    return Near(places, cosines)


def graph(vectors: NDArray[np.float32], k: int = K) -> Near:
    """The k nearest others of each of `vectors` (n, d), all of length 1 or 0; -1, with a cosine of 0, where there are fewer."""
    near = beside(vectors, vectors, k + 1)
    itself = near.places == np.arange(len(vectors), dtype=np.int32)[:, None]
    # beside more than k equals of its own a vector may not be among its nearest: then the last of them goes
    itself[~itself.any(axis=1), -1:] = True
    others = len(vectors), max(near.places.shape[1] - 1, 0)
    places, cosines = np.full((len(vectors), k), -1, np.int32), np.zeros((len(vectors), k), np.float32)
    places[:, : others[1]], cosines[:, : others[1]] = near.places[~itself].reshape(others), near.cosines[~itself].reshape(others)
    return Near(places, cosines)


def _ordered(
    places: NDArray[np.int32], vectors: NDArray[np.float32], landmarks: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Best first, equal ones by place.

    Cosines are taken anew, row by row: the last bits of a product of matrices depend on how many rows are multiplied at once, and a row
    must get the same bytes in whatever block it comes.
    """
    cosines = np.empty(places.shape, np.float32)
    for column in range(places.shape[1]):
        cosines[:, column] = np.einsum("md,md->m", vectors, landmarks[places[:, column]])
    order = np.lexsort((places, -cosines), axis=1)
    return np.take_along_axis(places, order, axis=1), np.take_along_axis(cosines, order, axis=1)
