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
    """Groups of the contents of pairs, (p,) each, where `first` is smaller than `other`.

    In ascending order each content that no centre before it is near to becomes a centre; any other belongs to the smallest that is. (The
    greedy independent set of a graph; all that can be told at the same time is told at once, so the rounds are few.)
    """
    contents, ends = np.unique(np.concatenate([first, other]), return_inverse=True)
    a, b = ends[: len(first)], ends[len(first) :]
    centre, told = np.zeros(len(contents), bool), np.zeros(len(contents), bool)
    while not told.all():
        waits = np.zeros(len(contents), bool)
        waits[b[~told[a] | centre[a]]] = True
        centre |= ~told & ~waits
        told |= centre
        told[b[centre[a]]] = True
    belongs = np.arange(len(contents))
    of_centre = centre[a] & ~centre[b]
    belongs[b[of_centre]] = len(contents)
    np.minimum.at(belongs, b[of_centre], a[of_centre])
    sizes = np.bincount(belongs, minlength=len(contents))
    grouped = sizes > 1
    return Stars(contents[grouped], sizes[grouped])
