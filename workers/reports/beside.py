"""The rows of a version beside the landmarks of an atlas: what the other reports stand on, and what an update of them costs.

A row is looked at once. The table of the last version is brought up to the next one: new rows are placed, rows that are gone are taken
out, all others stay as they are. So it is a difference like that of a generation and its chunk table, committed in the same way.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.content.diff import diff_rows
from pipelines.measures.quality import unit
from pipelines.spec.running import WorkersSpec
from storage.reading.neighbours import to_numpy
from storage.reports.atlas import Atlas
from storage.reports.report_table import BESIDE, ReportTable
from storage.store.commit import Change
from storage.store.lance import ROW_ADDRESS, Store, scan_batches, take
from storage.store.spill import Spill, by_hash, matched
from storage.tables.generations import EMBEDDED_SCHEMA
from storage.tables.version import Version
from workers.cluster.connection import on_cluster, start_ray
from workers.cluster.in_order import in_order
from workers.observing.telling import Progress, Report
from workers.reports.atlas.graph import beside

SHARD_ROWS = 32_768
RAY_PRODUCTS = 4e11
"""Multiplications that take about as long as to start Ray (10 s)."""
COMMIT_SECONDS = 8.0
"""Between commits at least: a crash costs what was placed since."""
_COLUMNS = ("chunk_id", "content_hash", "row_hash", "vector")


@dataclass(frozen=True)
class Placing:
    """All that a shard of rows is placed by."""

    store: Store
    generation: str
    version: int
    table: str
    """Where the rows go."""
    atlas: Atlas


def rows_beside(version: Version, atlas: Atlas, workers: WorkersSpec, run_id: str, report: Report) -> tuple[ReportTable, int]:
    """Bring the table of an atlas to exactly the rows of `version`; gives it, and the version of it that has them.

    Raises Conflict if another report changes the table meanwhile.
    """
    table = ReportTable(version.collection, version.generation, f"a{atlas.number}")
    dataset = table.latest(BESIDE)
    number = int(dataset.version)
    fresh, stale = differences(version, dataset)
    placing = Placing(version.collection.store, version.generation, version.number, table.name, atlas)
    staged, done, committed = list[str](), 0, time.monotonic()
    with ExitStack() as closing:
        for fragments, count in _placed(placing, fresh, workers, closing):
            staged, done = [*staged, *fragments], done + count
            report(Progress("place", chunks=done, total=len(fresh)))
            if time.monotonic() - committed >= COMMIT_SECONDS:
                number = table.commit(number, Change(np.zeros(0, np.uint64), staged), run_id)
                staged, committed = [], time.monotonic()
    return table, table.commit(number, Change(stale, staged), run_id)


def differences(version: Version, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Addresses of rows of the version that the table has not, and of rows of the table that the version has not; both sorted."""
    stored, wanted = Spill(EMBEDDED_SCHEMA, by_hash("row_hash")), Spill(EMBEDDED_SCHEMA, by_hash("row_hash"))
    for spill, source in ((stored, dataset), (wanted, version.vectors)):
        for rows in scan_batches(source, EMBEDDED_SCHEMA.names[:2]):
            spill.add(rows)
    fresh, stale = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    for rows, known in matched(wanted, stored):
        difference = diff_rows(rows, known)
        fresh.append(rows[ROW_ADDRESS].to_numpy()[difference.pending])
        stale.append(known[ROW_ADDRESS].to_numpy()[difference.stale])
    return np.sort(np.concatenate(fresh)), np.sort(np.concatenate(stale))


def _placed(placing: Placing, addresses: np.ndarray, workers: WorkersSpec, closing: ExitStack) -> Iterator[tuple[list[str], int]]:
    """Staged fragments, and how many rows they have: by Ray's tasks where it is much work, else in this process."""
    shards = [addresses[first : first + SHARD_ROWS] for first in range(0, len(addresses), SHARD_ROWS)]
    large = len(addresses) * placing.atlas.vectors.size > RAY_PRODUCTS
    if len(shards) > 1 and (large or on_cluster()):
        yield from in_order(start_ray(closing), place_shard, placing, shards, workers.label)
    else:
        yield from (place_shard(placing, shard) for shard in shards)


def place_shard(placing: Placing, addresses: np.ndarray) -> tuple[list[str], int]:
    """Describe the rows at some addresses of the generation, and stage that. Gives the fragments, and how many rows they have."""
    dataset = placing.store.open(placing.generation, placing.version)
    rows = take(dataset, addresses, _COLUMNS).combine_chunks()
    described = describe(rows, placing.atlas)
    fragments = placing.store.stage(placing.table, BESIDE, described.to_batches())
    return fragments, len(rows)


def describe(rows: pa.Table, atlas: Atlas) -> pa.Table:
    """BESIDE, of rows with `chunk_id`, `content_hash`, `row_hash` and `vector`. A vector without a direction is beside nothing."""
    vectors = unit(to_numpy(rows["vector"].combine_chunks()))
    known: NDArray[np.bool_] = np.asarray(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1))
    near = beside(np.where(known[:, None], vectors, 0), atlas.vectors)
    places, cosines = np.full((len(rows), 2), -1, np.int32), np.zeros((len(rows), 2), np.float32)
    places[known, : near.places.shape[1]], cosines[known, : near.places.shape[1]] = near.places[known], near.cosines[known]
    first = places[:, 0]
    there = np.asarray(first >= 0)
    spot = np.zeros((len(rows), 2), np.float32)
    spot[there] = atlas.places[first[there]]
    cluster = np.full(len(rows), -1, np.int32)
    cluster[there] = atlas.clusters[first[there]]
    columns = [first, cosines[:, 0], places[:, 1], cosines[:, 1], spot[:, 0], spot[:, 1], cluster]
    kept = [rows[name] for name in BESIDE.names[:3]]
    return pa.table([*kept, *(pa.array(np.ascontiguousarray(column)) for column in columns)], schema=BESIDE)
