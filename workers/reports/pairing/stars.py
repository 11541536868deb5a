"""Groups of near-duplicates: each around one content that all others in it are near to, so that no chain joins what is far apart."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Stars:
    """Groups of contents that are in pairs."""

    centres: NDArray[np.uint64]
    """One for each group."""
    sizes: NDArray[np.int64]
    """Contents in it, with the centre."""


def stars(first: NDArray[np.uint64], other: NDArray[np.uint64]) -> Stars:
    """Groups of the contents of pairs, (p,) each, where `first` is smaller than `other`."""
    contents, ends = np.unique(np.concatenate([first, other]), return_inverse=True)
    belongs = belonging(ends[: len(first)], ends[len(first) :], len(contents))
    sizes = np.bincount(belongs, minlength=len(contents))
    return Stars(contents[sizes > 1], sizes[sizes > 1])


def belonging(first: NDArray[np.int64], other: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The centre of each of the numbers below `count`, by pairs of them, where `first` is smaller than `other`.

    In ascending order each number that no centre before it is near to becomes a centre; any other belongs to the smallest that is. (The
    greedy independent set of a graph; all that can be told at the same time is told at once, so the rounds are few.)
    """
    centre, told = np.zeros(count, bool), np.zeros(count, bool)
    while not told.all():
        waits = np.zeros(count, bool)
        waits[other[~told[first]]] = True
        centre |= ~told & ~waits
        told |= centre
        told[other[centre[first]]] = True
    belongs = np.arange(count)
    rays = ~centre[other] & centre[first]
    belongs[other[rays]] = count
    np.minimum.at(belongs, other[rays], first[rays])
    return belongs
