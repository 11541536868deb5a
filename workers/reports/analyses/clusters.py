"""clusters: what is there, by topics with names that stay."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.reading.neighbourhoods import locate
from storage.store.lance import ROW_ADDRESS, scan_batches, take
from workers.reports.analysis import Findings, Study
from workers.reports.atlas.naming import Ranked, characteristic, field_values

EXAMPLES = 3
VALUES = 3
"""Values of metadata that are told of a cluster."""
NOWHERE = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class Occupancy:
    """Which rows stand beside which landmark."""

    rows: NDArray[np.int64]
    """How many, (n,)."""
    nearest: NDArray[np.uint64]
    """The address of the row most like it, (n,); NOWHERE where there is none."""
    lost: int
    """Rows that are beside none: their vectors have no direction."""


def study_clusters(study: Study) -> Findings:
    """Of each cluster its rows, what they were in the version before, chunks in the middle of it, and what its metadata has more often."""
    standing = stand(study.rows, study.atlas.size)
    total = study.rows.count_rows()
    before = None if study.before is None else _counted(study.before.table)
    total_before = None if study.before is None else study.before.table.count_rows()
    values = _values(study, standing)
    told = []
    for number in sorted({*study.atlas.clusters.tolist()}):
        inside = np.flatnonzero(study.atlas.clusters == number)
        count = int(standing.rows[inside].sum())
        one: dict[str, Any] = {"cluster": number, "name": study.atlas.names.get(number, ""), "rows": count, "share": count / max(1, total)}
        if before is not None and total_before is not None:
            one |= {"rows_before": before[number], "change": one["share"] - before[number] / max(1, total_before)}
        one |= {
            "examples": _examples(study, standing, inside),
            "values": [value for value, _ in values.get(number, [])[:VALUES]],
        }
        told.append(one)
    told.sort(key=lambda one: (-one["rows"], one["cluster"]))
    compared = None if study.before is None else study.before.version.number
    return Findings({"rows": total, "count": len(told), "beside_none": standing.lost, "before": compared, "clusters": told})


def stand(table: Any, landmarks: int) -> Occupancy:
    """Read the rows beside `landmarks` once."""
    rows = np.zeros(landmarks, np.int64)
    best, nearest, lost = np.full(landmarks, -np.inf), np.full(landmarks, NOWHERE), 0
    for batch in scan_batches(table, ["landmark", "similarity"]):
        places, cosines = batch["landmark"].to_numpy(), batch["similarity"].to_numpy()
        there = places >= 0
        lost += int((~there).sum())
        places, cosines, addresses = places[there], cosines[there], batch[ROW_ADDRESS].to_numpy()[there]
        rows += np.bincount(places, minlength=landmarks)
        order = np.lexsort((addresses, -cosines, places))
        first = order[np.unique(places[order], return_index=True)[1]]
        better = first[cosines[first] > best[places[first]]]
        best[places[better]], nearest[places[better]] = cosines[better], addresses[better]
    return Occupancy(rows, nearest, lost)


def _counted(table: Any) -> Counter[int]:
    counts = Counter[int]()
    for batch in scan_batches(table, ["cluster"]):
        numbers, sizes = np.unique(batch["cluster"].to_numpy(), return_counts=True)
        counts.update(dict(zip(numbers.tolist(), sizes.tolist(), strict=True)))
    return counts


def _examples(study: Study, standing: Occupancy, inside: NDArray[np.intp]) -> list[str]:
    """Chunks beside the landmarks that are nearest to the middle of the cluster."""
    used = inside[standing.nearest[inside] != NOWHERE]
    if not len(used):
        return []
    vectors = study.atlas.vectors[used]
    order = np.lexsort((used, -(vectors @ vectors.mean(axis=0))))[:EXAMPLES]
    return list(take(study.rows, standing.nearest[used[order]], ["chunk_id"])["chunk_id"].to_pylist())


def _values(study: Study, standing: Occupancy) -> Ranked:
    """What the metadata of the rows nearest to the landmarks has more often in a cluster than on the whole."""
    used = np.flatnonzero(standing.nearest != NOWHERE)
    if not len(used) or not study.version.vectors.schema.field("metadata").type.num_fields:
        return {}
    ids = take(study.rows, standing.nearest[used], ["chunk_id"])["chunk_id"].to_pylist()
    where = locate(study.version.vectors, "chunk_id", set(ids))
    rows = take(study.version.vectors, np.array([where[one] for one in ids], np.uint64), ["metadata"])["metadata"].to_pylist()
    fields = {name: [row[name] if row else None for row in rows] for name in rows[0] or {}}
    return characteristic(field_values(fields, len(ids)), study.atlas.clusters[used].tolist())
