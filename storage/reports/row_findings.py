"""What the reports of a version say of single chunks: their cluster, how odd they are, and what is nearly the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.content.chunks import HASH
from pipelines.errors import NotFound
from storage.reports.atlas import cluster_names
from storage.reports.kept_reports import KeptReport, reports_of
from storage.store.lance import scan_batches
from storage.tables.version import Version

MOST_PAIRS = 10
"""Of a content that are told, nearest first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What reports say of a chunk."""

    cluster: int | None
    """None if nothing was said."""
    cluster_name: str | None
    """Words of documents."""
    similarity: float | None
    """Cosine to the landmark that is most like it."""
    odds: float | None
    """The share of landmarks that are as odd; None unless it is among the oddest that are told."""
    outlier: bool | None
    """Whether that is as few as the report asks for; None if there is no such report."""
    near: tuple[tuple[str, float], ...] | None
    """Chunks that are nearly the same, each with its cosine; None if there is no such report."""


def find_findings(version: Version, contents: Mapping[str, bytes]) -> dict[str, Finding] | None:
    """Of some chunks, given by id with the hash of their contents; None if nothing was reported of the version. Scans narrow columns."""
    kept = reports_of(version.collection, version.generation, version.number)
    if not kept:
        return None
    beside = _beside(version, kept, list(contents))
    oddest = next((report.summary for report in kept if report.kind == "outliers"), {})
    odds = {row["chunk_id"]: row["odds"] for row in oddest.get("outliers", ())}
    near = _near(version, kept, set(contents.values()))
    found = {}
    for chunk_id, content in contents.items():
        cluster, name, similarity = beside.get(chunk_id, (None, None, None))
        odd = odds.get(chunk_id)
        outlier = odd is not None and odd <= oddest["odds_limit"] if "outliers" in oddest else None
        pairs = None if near is None else tuple(near.get(content, ())[:MOST_PAIRS])
        found[chunk_id] = Finding(cluster, name, similarity, odd, outlier, pairs)
    return found


def _beside(version: Version, kept: list[KeptReport], ids: list[str]) -> dict[str, tuple[int, str, float]]:
    """Cluster, its name, and similarity by chunk id, by the newest atlas that rows were described by."""
    described = max((report for report in kept if report.kind == "rows"), key=lambda report: report.atlas or 0, default=None)
    if described is None:
        return {}
    rows = _rows(version, described, "chunk_id", pa.array(ids, pa.string()), ["cluster", "similarity", "landmark"])
    names = cluster_names(version.collection, version.generation, described.atlas or 0)
    return {
        row["chunk_id"]: (row["cluster"], names.get(row["cluster"]) or f"cluster {row['cluster']}", row["similarity"])
        for row in rows
        if row["landmark"] >= 0
    }


def _near(version: Version, kept: list[KeptReport], contents: set[bytes]) -> dict[bytes, list[tuple[str, float]]] | None:
    """Nearly the same contents, each by one of its chunks, by the hash of the one that was asked for."""
    report = next((report for report in kept if report.kind == "duplicates"), None)
    if report is None:
        return None
    wanted = pa.array(sorted(contents), HASH)
    near: dict[bytes, list[tuple[str, float]]] = {}
    for mine, theirs in (("content_hash", "other"), ("other_hash", "chunk_id")):
        for row in _rows(version, report, mine, wanted, [theirs, "cosine"], "-pairs-"):
            near.setdefault(row[mine], []).append((row[theirs], row["cosine"]))
    return {content: sorted(pairs, key=lambda pair: (-pair[1], pair[0])) for content, pairs in near.items()}


def _rows(version: Version, report: KeptReport, column: str, wanted: pa.Array, columns: list[str], part: str = "") -> list[dict[str, Any]]:
    """Those with one of `wanted` in `column`, of the table of a report whose name has `part`; none if that is gone."""
    table = next((name for name in report.tables if part in name), None)
    if table is None:
        return []
    try:
        dataset = version.collection.store.open(table, report.tables[table])
    except NotFound:
        return []
    hits = (rows.filter(pc.is_in(rows[column], value_set=wanted)) for rows in scan_batches(dataset, [column, *columns]))
    return [row for rows in hits for row in rows.to_pylist()]
