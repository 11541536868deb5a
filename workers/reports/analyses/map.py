"""map: a place in the plane for every chunk, beside what is like it."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.content.chunks import HASH
from pipelines.content.settling import halves
from storage.reports.atlas import Atlas
from storage.store.lance import scan_batches
from storage.store.spill import Spill, by_hash, matched
from workers.reports.analysis import Findings, Study

SAMPLE = 2_000
"""Landmarks whose neighbours are looked for in the plane."""
STILL = 0.01
"""Of the width of the map: who moved less stayed."""
_SPOT = pa.schema([("row_hash", HASH), ("x", pa.float32()), ("y", pa.float32())])


def study_map(study: Study) -> Findings:
    """How large it is, how much of what is near in the space is near in the plane, and what of it moved since the version before."""
    atlas = study.atlas
    summary: dict[str, Any] = {
        "atlas": atlas.number,
        "landmarks": atlas.size,
        "clusters": len(atlas.names),
        "rows": study.rows.count_rows(),
        "neighbours_kept": kept_neighbours(atlas),
    }
    if atlas.size:
        low, high = atlas.places.min(axis=0), atlas.places.max(axis=0)
        summary["extent"] = {"x": [float(low[0]), float(high[0])], "y": [float(low[1]), float(high[1])]}
    if study.before is not None:
        width = float(np.ptp(atlas.places, axis=0).max()) if atlas.size else 0.0
        same, moved = _moved(study.before.table, study.rows, STILL * width)
        summary["before"] = {"version": study.before.version.number, "unchanged": same, "moved_share": moved / max(1, same)}
    return Findings(summary)


def kept_neighbours(atlas: Atlas) -> float | None:
    """The share of a landmark's nearest ones that are among as many nearest in the plane; None for fewer than two landmarks."""
    from scipy.spatial import cKDTree

    count = int((atlas.neighbours[0] >= 0).sum()) if atlas.size else 0
    if not count:
        return None
    some = np.arange(0, atlas.size, max(1, atlas.size // SAMPLE))
    near = cKDTree(atlas.places).query(atlas.places[some], count + 1)[1]
    shares = []
    for place, around in zip(some.tolist(), near.tolist(), strict=True):
        shares.append(len({*[one for one in around if one != place][:count]} & {*atlas.neighbours[place].tolist()}) / count)
    return float(np.mean(shares))


def _moved(before: Any, after: Any, limit: float) -> tuple[int, int]:
    """Rows that both tables have, and those of them that lie further than `limit` from where they lay."""
    spills = []
    for table in (before, after):
        spill = Spill(_SPOT, by_hash("row_hash"))
        for rows in scan_batches(table, _SPOT.names):
            spill.add(rows)
        spills.append(spill)
    same = moved = 0
    for had, have in matched(*spills):
        (old, there), (new, here) = _spots(had), _spots(have)
        common, first, second = np.intersect1d(old, new, return_indices=True)
        same += len(common)
        moved += int((np.linalg.norm(there[first] - here[second], axis=1) > limit).sum())
    return same, moved


def _spots(rows: pa.Table) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Of each row half of its hash, and its place."""
    return halves(rows["row_hash"])[:, 0], np.stack([rows["x"].to_numpy(), rows["y"].to_numpy()], axis=1)
