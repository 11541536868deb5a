"""A map as it is drawn: where points lie, what they belong to, and the sentences that say what is seen."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

GRID = 24
"""Cells along each side, of which 3 x 3 are about an island of a cluster."""
NAME_WIDTH = 60
"""Letters of a cluster's name, or of a value, that are shown."""


@dataclass(frozen=True)
class About:
    """What a map is of: its title says it, for a picture is sent on without the page that it stood in."""

    collection: str
    version: int
    rows: int
    """Chunks of the version."""
    landmarks: int
    model: str
    date: str
    """`2026-03-01`: when the report was made."""

    @property
    def title(self) -> str:
        return f"{short_text(self.collection)}: {self.rows:,} chunks by meaning"

    @property
    def subtitle(self) -> str:
        return f"version {self.version} · {self.landmarks:,} landmarks · {short_text(self.model)} · {self.date}"


@dataclass(frozen=True)
class Chart:
    """n points of a map. Those where no row stands are not drawn, but the frame, the names' places and the colours are of all of them:
    they stay as they are from version to version."""

    about: About
    points: str
    """What a point is, in the plural: "landmarks", "chunks"."""
    places: NDArray[np.float32]
    """(n, 2). A point without a finite place is not drawn."""
    clusters: NDArray[np.int32]
    """(n,); negative: in none."""
    names: Mapping[int, str]
    """cluster -> its name."""
    rows: NDArray[np.int64] | None = None
    """(n,): how many chunks stand at each point; None: one."""

    @property
    def caption(self) -> str:
        """How a map is read."""
        shown = int(self.shown.sum())
        unplaced = int((~self.placed).sum())
        return " ".join(
            (
                f"Each dot is one of {shown:,} {self.points}.",
                *(["The larger it is, the more chunks are most like it."] if self.rows is not None else []),
                *([f"{unplaced:,} have no place and are not drawn."] if unplaced else []),
                "Near means similar in meaning.",
                "The axes have no meaning, nor have the distance between far groups and their size on the map.",
            )
        )

    @cached_property
    def sizes(self) -> NDArray[np.float32]:
        """(n,): how wide each dot is, 1 to 3 times the common width; by how many more chunks than usual stand there."""
        if self.rows is None:
            return np.ones(len(self.places), np.float32)
        usual = np.maximum(self.rows / max(float(self.rows[self.rows > 0].mean()), 1.0), 1) if self.rows.any() else np.ones(len(self.rows))
        return np.asarray(np.minimum(np.sqrt(1 + np.log2(usual)), 3), np.float32)

    @cached_property
    def placed(self) -> NDArray[np.bool_]:
        """(n,): which points have a place."""
        return np.asarray(np.isfinite(self.places).all(axis=1))

    @cached_property
    def shown(self) -> NDArray[np.bool_]:
        """(n,): which points are drawn."""
        return self.placed if self.rows is None else np.asarray(self.placed & (self.rows > 0))

    @property
    def clusters_by_size(self) -> list["Cluster"]:
        """Those that have rows, largest first; of two of one size that of the smaller number."""
        return sorted((one for one in self.every_cluster if one.rows), key=lambda one: (-one.rows, one.number))

    @cached_property
    def every_cluster(self) -> list["Cluster"]:
        """Also those that have no rows any more; by number."""
        counted = self.rows if self.rows is not None else np.ones(len(self.clusters), np.int64)
        if not len(self.clusters):
            return []
        order = np.argsort(self.clusters, kind="stable")
        numbers, starts = np.unique(self.clusters[order], return_index=True)
        members = np.split(order, starts[1:])
        total = max(int(counted.sum()), 1)
        return [self._cluster(int(number), who, counted, total) for number, who in zip(numbers, members, strict=True) if number >= 0]

    def _cluster(self, number: int, members: NDArray[np.intp], counted: NDArray[np.int64], total: int) -> "Cluster":
        rows = int(counted[members].sum())
        name = short_text(self.names.get(number) or f"cluster {number}", NAME_WIDTH)
        there = members[self.placed[members]]
        return Cluster(number, name, rows, rows / total, _middle(self.places[there], self._grid[there]))

    @cached_property
    def _grid(self) -> NDArray[np.int64]:
        return self.cells(GRID)

    def cells(self, count: int) -> NDArray[np.int64]:
        """(n, 2): in which column and row of a grid of `count` x `count` cells each point lies; -1 without a place."""
        cells = np.full((len(self.places), 2), -1, np.int64)
        known = self.places[self.placed].astype(np.float64)
        if len(known):
            low = known.min(axis=0)
            extent = np.maximum(known.max(axis=0) - low, np.finfo(np.float32).tiny)
            cells[self.placed] = np.minimum((known - low) / extent * count, count - 1)
        return cells


@dataclass(frozen=True)
class Cluster:
    """One cluster of a chart."""

    number: int
    name: str
    rows: int
    share: float
    """Of the chart's rows."""
    middle: tuple[float, float] | None
    """Where its name is written; None if none of its points has a place."""


def _middle(places: NDArray[np.float32], cells: NDArray[np.int64]) -> tuple[float, float] | None:
    """A place of the cluster's own, amid its densest part: it may lie in several. `cells`: (n, 2), in the grid of the chart."""
    if not len(places):
        return None
    counts = np.bincount((cells + 1) @ [GRID + 2, 1], minlength=(GRID + 2) ** 2).reshape(GRID + 2, GRID + 2)
    around = sliding_window_view(counts, (3, 3)).sum(axis=(2, 3))
    densest = np.array(np.unravel_index(around.argmax(), around.shape))
    inside = places[(abs(cells - densest) <= 1).all(axis=1)].astype(np.float64)
    away = ((inside - inside.mean(axis=0)) ** 2).sum(axis=1)
    x, y = inside[int(away.argmin())].tolist()
    return x, y


def short_text(text: object, width: int = NAME_WIDTH) -> str:
    """The beginning of a text in one line, without control characters: names come from documents, and these from others."""
    line = " ".join(str(text)[: 8 * width].split())
    shown = line if line.isprintable() else "".join(filter(str.isprintable, line))
    return shown if len(shown) <= width else shown[: width - 1] + "…"
