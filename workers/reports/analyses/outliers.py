"""outliers: chunks that are like nothing else, or like a few others only."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.store.lance import ROW_ADDRESS, scan_batches, take
from workers.reports.analysis import Findings, Study
from workers.reports.atlas.graph import beside

MOST = 1_000
"""Rows that are told."""
RARE = 0.002
"""Odds from which on a row counts as an outlier."""
EVERY = 10
"""Of the landmarks one in so many is asked how far the surroundings of another reach."""
WIDE = 10
"""The how manieth of these: the 100th landmark, as it were. What lies in a group of fewer has nothing else about it."""
EQUAL = 0.9999
"""The cosine of a landmark's own content to it."""
_READ = ["landmark", "similarity", "second", "second_similarity", "cluster"]
_BINS = np.linspace(0, 1, 21)


@dataclass(frozen=True)
class Usual:
    """What is usual among the landmarks."""

    nearest: NDArray[np.float32]
    """Cosines to the nearest other landmark, ascending."""
    wide: NDArray[np.float32]
    """Of each landmark the cosine to its WIDEth of the landmarks that are asked, (n,)."""

    def odds(self, similarity: NDArray[np.float32], landmarks: NDArray[np.int32]) -> NDArray[np.float64]:
        """The share of landmarks that are as odd: as far from the next one as `similarity` says, or in surroundings as empty as those of
        `landmarks`; the smaller one.

        The one finds what has come since the landmarks were chosen, the other what was among them: junk lies beside junk, and only
        beyond its group is there nothing for a long way.
        """
        wide = np.sort(self.wide)
        alone, empty = (_below(ordered, values) for ordered, values in ((self.nearest, similarity), (wide, self.wide[landmarks])))
        return np.minimum(alone, empty)


def _below(ordered: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share of `ordered` that is at most each of `values`; never 0."""
    return (np.searchsorted(ordered, values, "right") + 1) / (len(ordered) + 1)


def study_outliers(study: Study) -> Findings:
    """The oddest rows, first those with the smallest odds, of equal ones those least like any landmark."""
    if study.atlas.size < 2 * EVERY * WIDE:
        return Findings({"rows": study.rows.count_rows(), "nothing": f"fewer than {2 * EVERY * WIDE} contents to compare with"})
    usual = usual_of(study.atlas.vectors)
    best, rare, histogram = np.zeros((0, 3)), 0, np.zeros(len(_BINS) - 1, np.int64)
    addresses = np.zeros(0, np.uint64)
    for batch in scan_batches(study.rows, _READ):
        rows = batch.filter(pa.array(batch["landmark"].to_numpy() >= 0))
        similarity = _to_another(rows)
        odds = usual.odds(similarity, rows["landmark"].to_numpy())
        rare += int((odds <= RARE).sum())
        histogram += np.histogram(similarity.clip(0, 1), _BINS)[0]
        best = np.concatenate([best, np.stack([odds, similarity, rows["cluster"].to_numpy()], axis=1)])
        addresses = np.concatenate([addresses, rows[ROW_ADDRESS].to_numpy()])
        order = np.lexsort((addresses, best[:, 1], best[:, 0]))[:MOST]
        best, addresses = best[order], addresses[order]
    total = study.rows.count_rows()
    return Findings(
        {
            "rows": total,
            "rare": rare,
            "rare_share": rare / max(1, total),
            "odds_limit": RARE,
            "groups": _groups(study, best[best[:, 0] <= RARE]),
            "outliers": _told(study, best, addresses),
            "similarities": [{"from": round(float(at), 2), "rows": count} for at, count in zip(_BINS, histogram.tolist(), strict=False)],
        }
    )


def usual_of(vectors: NDArray[np.float32]) -> Usual:
    """Landmarks are in the order of their hashes, so every tenth is a sample."""
    nearest = np.sort(beside(vectors, vectors, 2).cosines[:, 1])
    return Usual(nearest, beside(vectors, np.ascontiguousarray(vectors[::EVERY]), WIDE).cosines[:, -1])


def _to_another(rows: pa.Table) -> NDArray[np.float32]:
    """Cosines to the nearest landmark of another content."""
    first, second = rows["similarity"].to_numpy(), rows["second_similarity"].to_numpy()
    another: NDArray[np.float32] = np.where((first > EQUAL) & (rows["second"].to_numpy() >= 0), second, first)
    return another


def _told(study: Study, best: NDArray[np.float64], addresses: NDArray[np.uint64]) -> list[dict[str, Any]]:
    ids = take(study.rows, addresses, ["chunk_id"])["chunk_id"].to_pylist() if len(addresses) else []
    found = zip(ids, best.tolist(), strict=True)
    return [
        {"chunk_id": one, "odds": odds, "similarity": round(similarity, 4), "cluster": int(cluster)}
        for one, (odds, similarity, cluster) in found
    ]


def _groups(study: Study, rare: NDArray[np.float64]) -> list[dict[str, Any]]:
    """By cluster how many of those that are told are rare, most first."""
    counts = Counter(rare[:, 2].astype(int).tolist())
    order = sorted(counts, key=lambda number: (-counts[number], number))
    return [{"cluster": number, "name": study.atlas.names.get(number, ""), "told": counts[number]} for number in order]
