"""map: a place in the plane for every chunk, beside what is like it."""

from typing import Any

import numpy as np

from storage.reports.atlas import Atlas
from workers.reports.analysis import Findings, Study

SAMPLE = 2_000
"""Landmarks whose neighbours are looked for in the plane."""


def study_map(study: Study) -> Findings:
    """How large it is, and how much of what is near in the space is near in the plane."""
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
