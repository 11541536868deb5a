"""Where an atlas lies in the plane, in whole numbers, and its clusters with their names and colours.

All of it is of the landmarks alone: every version that an atlas describes is seen in one frame, and no landmark moves.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import NotFound
from storage.reports.atlas import Atlas, find_atlas
from storage.reports.described import Described

FULL = 65_535
"""The longer side of the frame, in its units."""
MARGIN = 0.05
"""Of the longer side, about the landmarks: rows lie half-way to the next landmark at most. What is further out is seen at the border."""
COLOURS = 8
"""Clusters that lie beside each other have different ones."""
_GRID = 24
"""Cells along each side, the densest of which has the name of a cluster."""


@dataclass(frozen=True)
class Island:
    """A cluster on the map."""

    number: int
    name: str
    colour: int
    """0 to COLOURS - 1."""
    x: int
    """Of a landmark amid its densest part, where its name is written."""
    y: int


@dataclass(frozen=True, eq=False)
class Terrain:
    """The frame of an atlas: x and y are 0 to FULL at most, y upwards."""

    low: tuple[float, float]
    scale: float
    """Units in one of the atlas."""
    extent: tuple[int, int]
    """Width and height: the longer one is FULL."""
    islands: tuple[Island, ...]
    """By number."""
    landmarks: int

    def units(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Places (n,) of the atlas in units."""
        whole = [
            ((axis.astype(np.float64) - low) * self.scale).round().clip(0, size).astype(np.uint16)
            for axis, low, size in zip((x, y), self.low, self.extent, strict=True)
        ]
        return whole[0], whole[1]


def terrain_of(described: Described) -> Terrain:
    """Raises NotFound if the atlas is gone."""
    atlas = find_atlas(described.collection, described.generation, described.atlas)
    if atlas is None:
        raise NotFound(f"expected atlas {described.atlas} of {described.generation}, found it gone: `revector report` makes another")
    return make_terrain(atlas)


def make_terrain(atlas: Atlas) -> Terrain:
    places = atlas.places.astype(np.float64) if atlas.size else np.zeros((1, 2))
    low, high = places.min(axis=0), places.max(axis=0)
    margin = max(float((high - low).max()), 1e-6) * MARGIN
    low, size = low - margin, high - low + 2 * margin
    scale = FULL / float(size.max())
    frame = Terrain((float(low[0]), float(low[1])), scale, (round(float(size[0]) * scale), round(float(size[1]) * scale)), (), atlas.size)
    return Terrain(frame.low, scale, frame.extent, tuple(_islands(atlas, frame)), atlas.size)


def _islands(atlas: Atlas, frame: Terrain) -> list[Island]:
    units = np.stack(frame.units(*atlas.places.T), axis=1).astype(np.int64)
    colours = _colours(atlas)
    islands = []
    for number in sorted(colours):
        x, y = _middle(units[atlas.clusters == number]).tolist()
        islands.append(Island(number, atlas.names.get(number) or f"cluster {number}", colours[number], x, y))
    return islands


def _middle(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """One of `places` (n, 2), amid the cell of a grid that has most of them: a cluster may lie in several parts."""
    cells = places * _GRID // (FULL + 1)
    numbers, counts = np.unique(cells[:, 0] * _GRID + cells[:, 1], return_counts=True)
    inside = places[cells[:, 0] * _GRID + cells[:, 1] == numbers[counts.argmax()]]
    middle: NDArray[np.int64] = inside[((inside - inside.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return middle


def _colours(atlas: Atlas) -> dict[int, int]:
    """cluster -> the colour that its neighbours have least; of these the one that is least used. Largest first."""
    numbers, place, sizes = np.unique(atlas.clusters, return_inverse=True, return_counts=True)
    near = atlas.neighbours[:, : min(8, atlas.neighbours.shape[1])]
    there = near >= 0
    borders = np.zeros((len(numbers), len(numbers)), np.int64)
    np.add.at(borders, (np.repeat(place, there.sum(axis=1)), place[near[there]]), 1)
    borders += borders.T
    chosen, used = np.full(len(numbers), -1), np.zeros(COLOURS, np.int64)
    for one in np.argsort(-sizes, kind="stable").tolist():
        beside = np.bincount(chosen[chosen >= 0], borders[one][chosen >= 0], COLOURS)
        chosen[one] = np.lexsort((used, beside))[0]
        used[chosen[one]] += 1
    return {int(number): int(colour) for number, colour in zip(numbers, chosen, strict=True) if number >= 0}
