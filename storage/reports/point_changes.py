"""What came, changed, moved and went from one version to another, on one map."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.content.chunks import HASH
from storage.reports.described import Described
from storage.reports.points import MOST_POINTS, Points
from storage.reports.terrain import FULL
from storage.store.lance import ROW_ADDRESS, scan_batches, take
from storage.store.spill import Spill, by_hash, matched

SAME, CAME, CHANGED, MOVED = range(4)
FAR = FULL // 50
"""From where on a row that is as it was has moved: only under another atlas, or with another model, it can."""
_SEEN = pa.schema([("row_hash", HASH), (ROW_ADDRESS, pa.uint64()), ("x", pa.float32()), ("y", pa.float32()), ("landmark", pa.int32())])


@dataclass(frozen=True, eq=False)
class Changes:
    """From an earlier version to that of some points."""

    codes: NDArray[np.uint8]
    """SAME, CAME, CHANGED or MOVED, (n,)."""
    origins: NDArray[np.uint16]
    """Where those lay that changed or moved, (m, 2), in the order of the points."""
    gone: NDArray[np.uint16]
    """Where those lay that went, (g, 2): at most as many as there may be points."""
    went: int
    """All of these."""


def changes_since(before: Described, points: Points) -> Changes:
    """A row is known again by its hash, and if that is another by its chunk id."""
    codes, origins = np.full(len(points), CAME, np.uint8), np.zeros((len(points), 2), np.uint16)
    same_map = (before.table, before.atlas) == (points.described.table, points.described.atlas)
    lost: list[pa.Table] = []
    for now, then in matched(_seen(points.described), _seen(before)):
        numbers = points.numbers(now[ROW_ADDRESS].to_numpy())
        place = pc.index_in(now["row_hash"], value_set=then["row_hash"].combine_chunks()).fill_null(-1).to_numpy()
        known = np.asarray((place >= 0) & (numbers >= 0))
        codes[numbers[known]] = SAME
        if not same_map:
            _mark_moved(points, codes, origins, numbers[known], then.take(pa.array(place[known])))
        lost.append(then.filter(pc.invert(pc.is_in(then["row_hash"], value_set=now["row_hash"].combine_chunks()))))
    went = _match_ids(before, points, codes, origins, pa.concat_tables(lost))
    told = codes >= CHANGED
    gone = went.filter(pc.greater_equal(went["landmark"], 0)).slice(0, MOST_POINTS)
    return Changes(codes, origins[told], _places(points, gone), len(went))


def _seen(described: Described) -> Spill:
    spill = Spill(_SEEN, by_hash("row_hash"))
    for rows in scan_batches(described.rows(), ["row_hash", "x", "y", "landmark"]):
        spill.add(rows)
    return spill


def _places(points: Points, rows: pa.Table) -> NDArray[np.uint16]:
    """(n, 2), of rows with `x` and `y`."""
    return np.stack(points.terrain.units(rows["x"].to_numpy(), rows["y"].to_numpy()), axis=1)


def _mark_moved(points: Points, codes: NDArray[np.uint8], origins: NDArray[np.uint16], numbers: NDArray[np.int64], then: pa.Table) -> None:
    places = _places(points, then)
    here = np.stack([points.x[numbers], points.y[numbers]], axis=1)
    far = (np.hypot(*(places.astype(np.float64) - here).T) > FAR) & (then["landmark"].to_numpy() >= 0)
    codes[numbers[far]], origins[numbers[far]] = MOVED, places[far]


def _match_ids(before: Described, points: Points, codes: NDArray[np.uint8], origins: NDArray[np.uint16], lost: pa.Table) -> pa.Table:
    """Mark the points whose chunk ids the rows in `lost` have; gives the rows that are left: they went."""
    came = np.flatnonzero(codes == CAME)
    if not len(came) or not len(lost):
        return lost
    ids = take(before.rows(), lost[ROW_ADDRESS].to_numpy(), ["chunk_id"])["chunk_id"]
    now = take(points.described.rows(), points.addresses[came], ["chunk_id"])["chunk_id"]
    place = pc.index_in(now, value_set=ids.combine_chunks()).fill_null(-1).to_numpy()
    known = place >= 0
    then = lost.take(pa.array(place[known]))
    codes[came[known]], origins[came[known]] = CHANGED, _places(points, then)
    return lost.filter(pc.invert(pc.is_in(ids, value_set=now.combine_chunks())))
