"""drift: how a version differs from an earlier one: what grew, what shrank, what is new."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.content.chunks import HASH
from pipelines.content.settling import halves
from pipelines.fingerprint import digests
from pipelines.measures.divergence import DRAWS, Shift, alike, change
from pipelines.measures.gate import Gate
from pipelines.measures.quality import Drift, drift, unit
from pipelines.spec.reports import DriftOptions
from storage.reading.neighbourhoods import locate
from storage.reading.neighbours import sample, vectors_at
from storage.store.lance import ROW_ADDRESS, SCAN_ROWS, scan_batches, take
from storage.store.spill import Spill, by_hash, matched
from storage.tables.version import Version
from workers.reports.analysis import Findings, Study

SAMPLE = 500
"""Contents of each side that distributions are compared by."""
STRIKING = 4.5
"""Standard deviations from which on a cluster is told: one in 150,000 is as far off by chance."""
EXAMPLES = 3
MOST = 50
"""Clusters that are told, those with the largest deviations first."""
RARE = 0.05
"""The share of what was there that is as little like the landmarks as what is called unlike."""
_BINS = np.linspace(-1, 1, 2001)
_CONTENT = pa.schema([("content_hash", HASH), (ROW_ADDRESS, pa.uint64())])
_BESIDE = ("chunk_id", "content_hash", "similarity", "second_similarity", "cluster")


@dataclass(frozen=True)
class Moved:
    """Rows that one version has and the other has not, by their content: that it is named anew or filed elsewhere moves nothing."""

    addresses: NDArray[np.uint64]
    """In the table of rows, by content."""
    clusters: NDArray[np.int64]
    """Of each, by its place in all clusters."""
    similarity: NDArray[np.float64]
    """How many have which, by _BINS."""
    alike: float
    """How many rows there are to a document, as `divergence.alike` has it."""

    def __len__(self) -> int:
        return len(self.addresses)


def study_drift(study: Study) -> Findings:
    """What came and what went, by cluster, beside what chance would change; an alarm where more moved than the options allow."""
    options, before = study.options, study.before
    assert isinstance(options, DriftOptions)
    if before is None:
        return Findings({"before": None, "nothing": "no earlier version with other rows was reported on: `--since VERSION` names one"})
    clusters = np.array([*sorted({*study.atlas.names, *study.atlas.clusters.tolist()} - {-1}), -1])
    counts, usual = _counted(before.table, clusters)
    surplus = list(_surpluses(before.table, study.rows))
    came = _moved(study.rows, np.concatenate([one for _, one in surplus]), clusters)
    went = _moved(before.table, np.concatenate([one for one, _ in surplus]), clusters)
    summary: dict[str, Any] = {
        "before": before.version.number,
        "rows": {"before": int(counts.sum()), "after": study.rows.count_rows(), "came": len(came), "went": len(went)},
        "new_share": len(came) / max(1, study.rows.count_rows()),
    }
    if not counts.sum() or not summary["rows"]["after"]:
        return Findings(summary | {"nothing": "one of both versions has no rows"})
    kinds = len(clusters)
    arrived, left = (np.bincount(moved.clusters, minlength=kinds) for moved in (came, went))
    found = change(counts, arrived, left, max(came.alike, went.alike))
    alarm = _alarm(found, options.limit)
    told = _striking(study, found, clusters, came, went)
    distribution = _distribution(study.version, before.version, study.rows, came)
    summary |= {
        "divergence": found.divergence,
        "by_chance": found.chance,
        "p": found.p,
        "moved_share": found.moved,
        "alarm": not alarm.passed,
        "clusters": told,
        "unlike": _unlike(usual, came.similarity),
        "mmd": None if distribution is None else {"distance": distribution.distance, "p": distribution.p},
    }
    return Findings(summary, (alarm,))


def _alarm(found: Shift, limit: float) -> Gate:
    """It sounds where chance does not explain what changed, and more of the rows moved than the limit says."""
    explained = found.p > 1 / (1 + DRAWS)
    beside = f"divergence {found.divergence:.2g}, by chance at most {found.chance:.2g}"
    detail = f"{found.moved:.2%} of rows would have to change cluster to undo it, at most {limit:.2%} (reports.drift.limit); {beside}"
    return Gate("drift", "information", found.moved, limit, explained or found.moved <= limit, detail)


def _counted(table: Any, clusters: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows by cluster, and how many have which similarity."""
    counts, similar = np.zeros(len(clusters), np.int64), np.zeros(len(_BINS) - 1)
    for rows in scan_batches(table, _BESIDE[2:]):
        counts += np.bincount(_places(rows, clusters), minlength=len(clusters))
        similar += _similar(rows)
    return counts, similar


def _places(rows: pa.Table, clusters: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each row's cluster; one that is not known is nowhere, as is a row that is beside nothing."""
    numbers = rows["cluster"].to_numpy()
    order = np.argsort(clusters)
    places = order[np.searchsorted(clusters, numbers, sorter=order).clip(max=len(clusters) - 1)]
    return np.where(clusters[places] == numbers, places, len(clusters) - 1)


def _similar(rows: pa.Table) -> NDArray[np.float64]:
    """How many rows are how like the nearest landmark of another content: to its own each is quite alike."""
    first, second = rows["similarity"].to_numpy(), rows["second_similarity"].to_numpy()
    return np.histogram(np.where(first > 0.999, second, first).clip(-1, 1), _BINS)[0].astype(np.float64)


def _surpluses(before: Any, after: Any) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    """Addresses of rows that only the one table has, and that only the other one has, by content, in the order of contents."""
    spills = []
    for table in (before, after):
        spill = Spill(_CONTENT, by_hash("content_hash"))
        for rows in scan_batches(table, _CONTENT.names[:1]):
            spill.add(rows)
        spills.append(spill)
    for had, have in matched(*spills):
        yield _surplus(had, have), _surplus(have, had)


def _surplus(rows: pa.Table, others: pa.Table) -> NDArray[np.uint64]:
    """Of contents that `rows` have more often than `others`, those beyond. Half of a hash tells contents apart: what two of a billion have
    in common by chance is one row of a report."""
    mine, theirs = (halves(one["content_hash"])[:, 0] for one in (rows, others))
    order = np.argsort(mine, kind="stable")
    mine, theirs = mine[order], np.sort(theirs)
    there = np.searchsorted(theirs, mine, "right") - np.searchsorted(theirs, mine, "left")
    place = np.arange(len(mine)) - np.searchsorted(mine, mine, "left")
    addresses: NDArray[np.uint64] = rows[ROW_ADDRESS].to_numpy()[order][place >= there]
    return addresses


def _moved(table: Any, addresses: NDArray[np.uint64], clusters: NDArray[np.int64]) -> Moved:
    places, documents, similar = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)], np.zeros(len(_BINS) - 1)
    for first in range(0, len(addresses), SCAN_ROWS):
        rows = take(table, addresses[first : first + SCAN_ROWS], _BESIDE)
        places.append(_places(rows, clusters))
        similar += _similar(rows)
        names = pa.array([name.rpartition("#")[0] for name in rows["chunk_id"].to_pylist()], pa.string())
        documents.append(halves(digests(names))[:, 0])
    sizes = np.unique(np.concatenate(documents), return_counts=True)[1]
    return Moved(addresses, np.concatenate(places), similar, alike(sizes))


def _striking(study: Study, found: Shift, clusters: NDArray[np.int64], came: Moved, went: Moved) -> list[dict[str, Any]]:
    """Clusters that grew or shrank beyond chance, with some of what came or went."""
    order = [place for place in np.lexsort((clusters, -abs(found.z))).tolist() if abs(found.z[place]) >= STRIKING and clusters[place] >= 0]
    told = []
    for place in order[:MOST]:
        grew = found.z[place] > 0
        table, moved = (study.rows, came) if grew else (study.before.table if study.before else None, went)
        chosen = moved.addresses[moved.clusters == place][:EXAMPLES]
        told.append(
            {
                "cluster": int(clusters[place]),
                "name": study.atlas.names.get(int(clusters[place]), ""),
                "how": ("new" if not found.before[place] else "grew") if grew else ("gone" if not found.after[place] else "shrank"),
                "before_share": float(found.before[place]),
                "after_share": float(found.after[place]),
                "came": int((came.clusters == place).sum()),
                "went": int((went.clusters == place).sum()),
                "z": float(found.z[place]),
                "examples": take(table, chosen, ["chunk_id"])["chunk_id"].to_pylist() if len(chosen) else [],
            }
        )
    return told


def _unlike(usual: NDArray[np.float64], came: NDArray[np.float64]) -> dict[str, Any] | None:
    """The share of what came that is less like any landmark than all but 5 % of what was there."""
    if not came.sum():
        return None
    bound = int(np.searchsorted(np.cumsum(usual), RARE * usual.sum()))
    return {
        "share": float(came[:bound].sum() / came.sum()),
        "usual": float(usual[:bound].sum() / usual.sum()),
        "below": float(_BINS[bound]),
    }


def _distribution(version: Version, before: Version, rows: Any, came: Moved) -> Drift | None:
    """MMD between what came and what was there, by samples; None where they are too few."""
    if len(came) < 2:
        return None
    hashes = {bytes(one) for one in take(rows, came.addresses[:SAMPLE], ["content_hash"])["content_hash"].to_pylist()}
    new = locate(version.vectors, "content_hash", hashes)
    some = vectors_at(version.vectors, np.array([new[one] for one in sorted(new)], np.uint64))
    there = vectors_at(before.vectors, sample(before.vectors, SAMPLE)[ROW_ADDRESS].to_numpy())
    new_ones, old_ones = (directions[np.isfinite(directions).all(axis=1)] for directions in (unit(some), unit(there)))
    return drift(new_ones, old_ones) if min(len(new_ones), len(old_ones)) > 1 else None
