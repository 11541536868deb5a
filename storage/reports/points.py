"""The rows of a version as points of a map: whole numbers, in the order of the table that describes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.content.chunks import HASH
from pipelines.errors import SpecError
from storage.reports.described import Described
from storage.reports.terrain import Terrain
from storage.store.lance import ROW_ADDRESS, scan_batches, take
from storage.store.spill import Spill, by_hash, matched

MOST_POINTS = 2_000_000
"""Of a version with more rows every second one is a point, or every third."""
MOST_ROWS = 10_000_000
"""That are read for a map: seconds, once."""
NOWHERE = -1
"""The island of a point that is in no cluster."""


@dataclass(frozen=True, eq=False)
class Points:
    """n points."""

    described: Described
    terrain: Terrain
    x: NDArray[np.uint16]
    """In units of the terrain, (n,)."""
    y: NDArray[np.uint16]
    islands: NDArray[np.int16]
    """Places in `terrain.islands`, or NOWHERE, (n,)."""
    addresses: NDArray[np.uint64]
    """Of the rows in the table that describes them, ascending, (n,)."""
    rows: int
    """Of the version."""
    every: int
    """One in so many rows is a point."""
    unplaced: int
    """Rows without a place: their vectors have no direction."""

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Points of each island."""
        return np.bincount(self.islands[self.islands >= 0], minlength=len(self.terrain.islands))

    @cached_property
    def sources(self) -> NDArray[np.uint64]:
        """The addresses of the rows in the vectors table, (n,)."""
        ours = Spill(pa.schema([("row_hash", HASH), (ROW_ADDRESS, pa.uint64())]), by_hash("row_hash"))
        theirs = Spill(ours.schema, by_hash("row_hash"))
        for spill, table in ((ours, self.described.rows()), (theirs, self.described.vectors())):
            for rows in scan_batches(table, ["row_hash"]):
                spill.add(rows)
        found = np.zeros(len(self), np.uint64)
        for mine, others in matched(ours, theirs):
            numbers = self.numbers(mine[ROW_ADDRESS].to_numpy())
            places = pc.index_in(mine["row_hash"], value_set=others["row_hash"].combine_chunks())
            known = np.asarray(numbers >= 0)
            found[numbers[known]] = others[ROW_ADDRESS].to_numpy()[places.to_numpy()[known]]
        return found

    def numbers(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Of the points of rows at `addresses`; -1 for rows that are none."""
        if not len(self):
            return np.full(len(addresses), -1)
        place = np.searchsorted(self.addresses, addresses).clip(max=len(self) - 1)
        return np.where(self.addresses[place] == addresses, place, -1)

    def take(self, numbers: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """`columns` of the vectors table of some points, in their order. Raises SpecError for a number that is none."""
        if wrong := [number for number in numbers if not 0 <= number < len(self)]:
            raise SpecError(f"expected points 0 to {len(self) - 1} of {self.described}, found {wrong[0]}")
        if not numbers:
            return []
        rows: list[dict[str, Any]] = take(self.described.vectors(), self.sources[list(numbers)], columns).to_pylist()
        return rows


def read_points(described: Described, terrain: Terrain) -> Points:
    """Raises SpecError for a version of too many rows."""
    table = described.rows()
    rows = int(table.count_rows())
    if rows > MOST_ROWS:
        raise SpecError(f"expected at most {MOST_ROWS:,} rows on a map, found {rows:,} in {described}: see its clusters instead")
    every = max(1, -(-rows // MOST_POINTS))
    numbers = np.array([island.number for island in terrain.islands], np.int32)
    parts: list[tuple[NDArray[Any], ...]] = []
    seen = unplaced = 0
    for batch in scan_batches(table, ["x", "y", "cluster", "landmark"]):
        chosen = slice(-seen % every, None, every)
        x, y, cluster, landmark, address = (batch[name].to_numpy()[chosen] for name in ("x", "y", "cluster", "landmark", ROW_ADDRESS))
        seen += len(batch)
        there = landmark >= 0
        unplaced += int((~there).sum())
        parts.append((*terrain.units(x[there], y[there]), _islands(cluster[there], numbers), address[there]))
    kinds = (np.uint16, np.uint16, np.int16, np.uint64)
    columns = [np.concatenate([np.zeros(0, kind), *(part[column] for part in parts)]) for column, kind in enumerate(kinds)]
    return Points(described, terrain, columns[0], columns[1], columns[2], columns[3], rows, every, unplaced)


def _islands(clusters: NDArray[np.int32], numbers: NDArray[np.int32]) -> NDArray[np.int16]:
    if not len(numbers):
        return np.full(len(clusters), NOWHERE, np.int16)
    place = np.searchsorted(numbers, clusters).clip(max=len(numbers) - 1)
    return np.where(numbers[place] == clusters, place, NOWHERE).astype(np.int16)


def inside(places_x: NDArray[np.uint16], places_y: NDArray[np.uint16], polygon: NDArray[np.int64]) -> NDArray[np.intp]:
    """The numbers of the points (n,) within `polygon` (k, 2), by the even-odd rule, ascending.

    A point at which a ray to the right crosses an odd number of edges; an edge has its lower end and not its upper one, so no crossing
    counts twice. All in whole numbers: a browser that does the same sum finds the same points.
    """
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    near = np.flatnonzero((places_x >= low[0]) & (places_x <= high[0]) & (places_y >= low[1]) & (places_y <= high[1]))
    near = near[np.argsort(places_y[near], kind="stable")]  # so that each edge looks at the points beside it only
    x, y = places_x[near].astype(np.int64), places_y[near].astype(np.int64)
    odd = np.zeros(len(near), bool)
    for edge in zip(polygon.tolist(), np.roll(polygon, -1, axis=0).tolist(), strict=True):
        (x1, y1), (x2, y2) = sorted(edge, key=lambda corner: corner[1])
        beside = slice(*np.searchsorted(y, (y1, y2)))
        odd[beside] ^= (x[beside] - x1) * (y2 - y1) < (x2 - x1) * (y[beside] - y1)
    return np.sort(near[odd])
