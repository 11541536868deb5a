"""Which colour a point has, in both themes, and what the colours mean; all can be told apart by the colour-blind.

The eight colours of clusters and values were searched for: under simulated protanopia, deuteranopia and tritanopia (Machado et al., 2009)
any two are at least .13 apart in OKLab, where the palette of Okabe and Ito has .076.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.reports.drawing.chart import Chart, Cluster, short_text

CELLS = 64
"""Cells along each side of the grid on which it is seen which clusters lie beside each other."""
VALUES = 7
"""Values of a field that get a colour of their own."""


@dataclass(frozen=True)
class Theme:
    """Light or dark."""

    paper: str
    ink: str
    beside: str
    """Of what is said in small letters."""
    faint: str
    """Of points that a colouring says nothing of."""
    distinct: tuple[str, ...]
    diverging: tuple[str, ...]
    """Red to blue: from less than half to more than twice."""
    rising: tuple[str, ...]


LIGHT = Theme(
    "#ffffff",
    "#1b1f24",
    "#5d646e",
    "#c6cad0",
    ("#3681df", "#7f154a", "#856012", "#bea6ff", "#eba60b", "#d35a7d", "#164597", "#4fd2a4"),
    ("#a5101f", "#dd6a51", "#f0b59a", "#bdbfc3", "#93c0e0", "#4a90c8", "#0b4f9c"),
    ("#bcd7ee", "#8fbce0", "#629fd0", "#3d80bb", "#2263a2", "#114684", "#08285c"),
)
DARK = Theme(
    "#14171c",
    "#e8eaed",
    "#9aa1ab",
    "#454b54",
    ("#3aca84", "#b89cfc", "#ece459", "#b17f02", "#7250b8", "#3892a9", "#af394e", "#91eef9"),
    ("#ff6a5c", "#cf5c50", "#8d564f", "#575d66", "#4d7391", "#4f9ad6", "#7fd0ff"),
    ("#1f4468", "#2a5d8c", "#3a78af", "#5595ce", "#7cb2e4", "#a8cff4", "#d9ecff"),
)


@dataclass(frozen=True)
class Colouring:
    """A colour for each point of a chart."""

    title: str
    codes: NDArray[np.int32]
    """(n,), into `light`, `dark` and `labels`."""
    light: tuple[str, ...]
    dark: tuple[str, ...]
    labels: tuple[str, ...] = ()
    """What each colour means; empty where names on the map say it."""
    note: str = ""
    """A sentence for the caption."""

    def colours(self, theme: Theme) -> tuple[str, ...]:
        return self.dark if theme is DARK else self.light


def by_cluster(chart: Chart) -> Colouring:
    """Clusters that lie beside each other differ; far ones may share a colour, for there are more clusters than colours.

    Clusters of landmarks that stay keep their colours, however many rows they have. The codes are places in `clusters_by_size`, and their
    number for points in none.
    """
    clusters = chart.clusters_by_size
    chosen = _apart(chart.every_cluster, _borders(chart))
    codes_of = np.full(int(chart.clusters.max(initial=-1)) + 2, len(clusters), np.int32)  # the last one: of points in none
    codes_of[[one.number for one in clusters]] = np.arange(len(clusters))
    light, dark = ((*(theme.distinct[chosen[one.number]] for one in clusters), theme.faint) for theme in (LIGHT, DARK))
    note = "Colours only tell neighbouring clusters apart. A name is of a cluster: the words most typical of it."
    return Colouring("clusters", codes_of[np.maximum(chart.clusters, -1)], light, dark, note=note)


def _apart(clusters: Sequence[Cluster], borders: Mapping[int, Mapping[int, int]]) -> dict[int, int]:
    """cluster -> one of the distinct colours: that with least border to others of it, and of these the one whose nearest is farthest."""
    chosen: dict[int, int] = {}
    middles = np.array([cluster.middle or (np.inf, np.inf) for cluster in clusters], np.float64).reshape(-1, 2)
    for place, cluster in enumerate(clusters):
        shared, nearest = np.zeros(len(LIGHT.distinct)), np.full(len(LIGHT.distinct), np.inf)
        for other, length in borders.get(cluster.number, {}).items():
            if other in chosen:
                shared[chosen[other]] += length
        with np.errstate(invalid="ignore"):  # one without a place is far from all
            away = np.nan_to_num(np.hypot(*(middles[:place] - middles[place]).T), nan=np.inf)
        np.minimum.at(nearest, list(chosen.values()), away)
        chosen[cluster.number] = int(np.lexsort((-nearest, shared))[0])
    return chosen


def _borders(chart: Chart) -> dict[int, dict[int, int]]:
    """cluster -> the clusters beside it, and along how many cells: by who has most points in each cell of a grid."""
    inside = chart.placed & (chart.clusters >= 0)
    columns, rows = chart.cells(CELLS)[inside].T
    grid = _most_frequent(rows * CELLS + columns, chart.clusters[inside])
    borders: dict[int, dict[int, int]] = {}
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = grid[: CELLS - down, max(0, -right) : CELLS - max(0, right)]
        there = grid[down:, max(0, right) : CELLS - max(0, -right)]
        meet = (here != there) & (here >= 0) & (there >= 0)
        for pair in zip(here[meet].tolist(), there[meet].tolist(), strict=True):
            for one, other in (pair, pair[::-1]):
                borders.setdefault(one, {}).setdefault(other, 0)
                borders[one][other] += 1
    return borders


def _most_frequent(cells: NDArray[np.int64], clusters: NDArray[np.int32]) -> NDArray[np.int64]:
    """(CELLS, CELLS): the cluster that has most points in a cell, -1 where there are none."""
    pairs, counts = np.unique(np.stack([cells, clusters.astype(np.int64)], axis=1), axis=0, return_counts=True)
    grid = np.full(CELLS * CELLS, -1, np.int64)
    order = np.argsort(counts, kind="stable")
    grid[pairs[order, 0]] = pairs[order, 1]  # of several for one cell the last one stays
    return grid.reshape(CELLS, CELLS)


_STEPS = (-0.5, -0.25, -0.1, 0.1, 1 / 3, 1.0)
_GROWTH = ("less than half", "-50 to -25 %", "-25 to -10 %", "within 10 %", "+10 to +33 %", "+33 to +100 %", "more than twice", "new")


def by_growth(change: NDArray[np.float64], before: int, after: int) -> Colouring:
    """Blue grew, red shrank. `change`: (n,), relative, of a share of rows: .1 is 10 % more; infinite or NaN where there was nothing before.

    `before`, `after`: the two versions.
    """
    codes = np.digitize(change, _STEPS).astype(np.int32)
    codes[~np.isfinite(change)] = len(_STEPS) + 1
    light, dark = ((*theme.diverging, theme.ink) for theme in (LIGHT, DARK))
    note = "Blue has a larger share of all rows than before, red a smaller one."
    return Colouring(f"share of rows, version {before} to {after}", codes, light, dark, _GROWTH, note)


def by_field(name: str, values: Sequence[Any]) -> Colouring:
    """A metadata field: its most frequent values, or ranges of its numbers, and a legend. None is a value that is missing."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    known = [value for value in values if value is not None]
    if len(numbers) == len(known) and len(set(numbers)) > VALUES:
        return _ranges(name, np.array([np.nan if value is None else value for value in values], np.float64))
    counted = sorted(Counter(map(str, known)).items(), key=lambda pair: (-pair[1], pair[0]))
    named, others = counted[:VALUES], counted[VALUES:]
    codes_of = {value: code for code, (value, _) in enumerate(named)}
    codes = [VALUES + 1 if value is None else codes_of.get(str(value), VALUES) for value in values]
    labels = [f"{short_text(value, 24)}  {count:,}" for value, count in named] + [""] * (VALUES - len(named))
    rest = f"{len(others):,} others  {sum(count for _, count in others):,}" if others else ""
    missing = len(values) - len(known)
    light, dark = ((*theme.distinct[:VALUES], theme.faint, theme.faint) for theme in (LIGHT, DARK))
    return Colouring(short_text(name), np.array(codes, np.int32), light, dark, (*labels, rest, f"none  {missing:,}" if missing else ""))


def _ranges(name: str, values: NDArray[np.float64]) -> Colouring:
    """As many points in each range, as far as equal numbers allow."""
    known = values[np.isfinite(values)]
    borders = np.unique(np.quantile(known, np.linspace(0, 1, VALUES + 1)[1:-1], method="nearest"))
    codes = np.digitize(values, borders).astype(np.int32)
    edges = [known.min(), *borders, known.max()]
    labels = [f"{low:,.6g} to {high:,.6g}" for low, high in pairwise(edges)] + [""] * (VALUES - len(edges) + 1)
    codes[~np.isfinite(values)] = VALUES
    missing = len(values) - len(known)
    light, dark = ((*theme.rising, theme.faint) for theme in (LIGHT, DARK))
    return Colouring(short_text(name), codes, light, dark, (*labels, f"none  {missing:,}" if missing else ""))
