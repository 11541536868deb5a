"""Groups of rows side by side: where each lies, how far it spreads, and how far their rates are from equal.

Sums alone are kept, some rows at a time: memory is that of groups x dimensions, however many rows there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pipelines.measures.quality import unit

CONFIDENCE = 0.99
FEWEST = 30
"""Rows of a group from which on its rate is held against the others."""


@dataclass(frozen=True, slots=True)
class GroupPlace:
    """Where a group lies."""

    rows: int
    share: float
    """Of all rows."""
    spread: float | None
    """Mean cosine distance of its rows to its centre; None if no row has a direction."""
    distance: float | None
    """Cosine distance of its centre to that of all rows; None if no row has a direction."""


class Centres:
    """Sums of unit vectors by group."""

    def __init__(self, groups: int, dimension: int) -> None:
        self._rows = np.zeros(groups, np.int64)
        self._directed = np.zeros(groups, np.int64)
        self._sums = np.zeros((groups, dimension))

    def add(self, groups: NDArray[np.integer], vectors: NDArray[np.floating]) -> None:
        """Further rows: the group of each, (n,), and its vector, (n, d). One without a direction counts as a row and is nowhere."""
        directions = unit(vectors)
        directed = np.isfinite(directions).all(axis=1) & directions.any(axis=1)
        self._rows += np.bincount(groups, minlength=len(self._rows))
        order = np.flatnonzero(directed)[np.argsort(groups[directed], kind="stable")]
        present, first, counts = np.unique(groups[order], return_index=True, return_counts=True)
        self._directed[present] += counts
        if len(order):
            self._sums[present] += np.add.reduceat(directions[order], first, axis=0, dtype=np.float64)

    def measured(self) -> list[GroupPlace]:
        """By group. The mean cosine of unit vectors to their mean is the mean's own length: a second look would tell no more."""
        total = self._rows.sum()
        whole = self._sums.sum(axis=0)
        lengths = np.linalg.norm(self._sums, axis=1)
        places = []
        for rows, directed, length, mean in zip(self._rows, self._directed, lengths, self._sums, strict=True):
            known = length > 0 and whole.any()
            distance = 1 - float(mean @ whole) / float(length * np.linalg.norm(whole)) if known else None
            spread = 1 - float(length) / int(directed) if directed else None
            places.append(GroupPlace(int(rows), float(rows / total) if total else 0.0, spread, distance))
        return places


@dataclass(frozen=True, slots=True)
class Gap:
    """How far the rates of groups are from equal."""

    highest: int
    """The group of the highest rate."""
    lowest: int
    gap: float
    """Between the two, as measured: of small groups it is large by chance alone."""
    certain: float
    """What is left of the largest gap when each group is given the benefit of the doubt; 0 if chance may explain it all."""


def interval(rate: float, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a mean of `count` numbers between 0 and 1: no such numbers vary more than those that are 0 or 1."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    middle = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def gap(rates: Sequence[float | None], counts: Sequence[int]) -> Gap | None:
    """Of the groups with at least 30 rows that have a rate (0 to 1); None if they are fewer than two.

    All intervals hold at once with 99 % confidence (Sidak), so that one of fifty groups is not far off by chance.
    """
    known = [
        (rate, count, group) for group, (rate, count) in enumerate(zip(rates, counts, strict=True)) if rate is not None and count >= FEWEST
    ]
    if len(known) < 2:
        return None
    each = CONFIDENCE ** (1 / len(known))
    bounds = [interval(rate, count, each) for rate, count, _ in known]
    certain = max(low for low, _ in bounds) - min(high for _, high in bounds)
    highest, lowest = max(known, key=lambda one: (one[0], -one[2])), min(known, key=lambda one: (one[0], one[2]))
    return Gap(highest[2], lowest[2], highest[0] - lowest[0], max(0.0, certain))
