"""The marts of a collection brought up to date: what the records have, and they have not. The next write makes up for one that was lost."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.logs import warn
from pipelines.redaction import redact
from storage.collection import Collection
from storage.history.catalog import publications
from storage.history.ledger import BROKEN_OFF, Run
from storage.marts import columns
from storage.marts.columns import MARTS, Mart
from storage.marts.judged_rows import KEPT_ROWS, new_figures, new_gates
from storage.marts.mart_files import NoMart, mart_bytes, put_mart, read_mart, table_of
from storage.marts.run_rows import KEPT_RUNS, UNFINISHED, Row, cost_rows, letter_rows, new_runs
from storage.marts.standing_rows import Known, Looked, collection_row, coverage_rows, generation_rows, version_rows

_NEVER = datetime.fromtimestamp(0, UTC)
"""In place of a beginning that nobody knows."""
_IN_ORDER = [("token", "ascending"), ("began", "ascending"), ("run_id", "ascending")]


def leave_marts(collection: Collection, looked: Looked | None = None) -> None:
    """Write what changed since they were written last. `looked`: what a run saw of the source just now.

    The row of the collection itself goes last: who reads it finds the others there. A file that is no mart is made anew.
    """
    now = datetime.now(UTC)
    history = publications(collection)
    before: Row = next(iter(_rows(collection, columns.COLLECTIONS)), {})
    if not before:
        _lay_out(collection)
    runs = _runs(collection)
    _letters(collection, runs)
    gates = _grown(collection, columns.GATES, new_gates, "judged_at")
    figures = _grown(collection, columns.REPORTS, new_figures, "reported_at")
    there = generation_rows(collection, history)
    _put(collection, columns.VERSIONS, version_rows(history), _rows(collection, columns.VERSIONS))
    _put(collection, columns.GENERATIONS, there, _rows(collection, columns.GENERATIONS))
    standing = collection_row(collection, Known(history, there, runs, gates, figures), before, looked, now)
    _renewed(collection, columns.COVERAGE_DAILY, coverage_rows(there, standing.get("newest_source_at"), now), by=("generation", "day"))
    costs = cost_rows(collection, runs)
    whole = costs if len(runs) < KEPT_RUNS else [row for row in costs if row["day"] != costs[0]["day"]]  # of that some may be gone
    _renewed(collection, columns.COSTS_DAILY, whole, by=("day",))  # an unfinished run has no currency yet: it is counted once
    _put(collection, columns.COLLECTIONS, [standing], [{**before, "as_of": now}] if before else [])
    if standing["last_status"] == UNFINISHED and Run(collection, standing["last_run"]).exists("result.json"):
        leave_marts(collection, looked)  # it ended meanwhile, and what it left may be written over


def _lay_out(collection: Collection) -> None:
    """Every table is there, if without rows: who asks the files finds all of them."""
    for mart in MARTS.values():
        if mart_bytes(collection, mart) is None:
            put_mart(collection, mart, mart.schema.empty_table())


def _runs(collection: Collection) -> pa.Table:
    """All that are known now, oldest first. Those that are new, and their stages, are written."""
    known = _read(collection, columns.RUNS)
    new = new_runs(collection, known)
    if not new:
        return known
    rows = [{**row, "error": redact(row["error"]) if row["error"] else None} for row, _ in new]
    kept = pa.concat_tables([_without(known, rows), table_of(columns.RUNS, rows)])
    told = {"token": pc.fill_null(kept["token"], 0), "began": pc.fill_null(kept["began"], _NEVER), "run_id": kept["run_id"]}
    order = pc.sort_indices(pa.table(told), _IN_ORDER)
    kept = kept.take(order.slice(max(0, len(kept) - KEPT_RUNS)))
    stages = pa.concat_tables(
        [_without(_read(collection, columns.STAGES), rows), table_of(columns.STAGES, [stage for _, of in new for stage in of])]
    )
    put_mart(collection, columns.STAGES, stages.filter(pc.is_in(stages["run_id"], value_set=kept["run_id"].combine_chunks())))
    put_mart(collection, columns.RUNS, kept)
    return kept


def _without(known: pa.Table, rows: Sequence[Row]) -> pa.Table:
    """Without the runs of `rows`."""
    return known.filter(pc.invert(pc.is_in(known["run_id"], value_set=pa.array([row["run_id"] for row in rows], pa.string()))))


def _letters(collection: Collection, runs: pa.Table) -> None:
    ended = runs.select(["run_id", "status", "what", "ended"]).to_pylist()
    ended = [row for row in ended if row["status"] not in (UNFINISHED, *BROKEN_OFF) and row["what"] == "apply"]
    known = _rows(collection, columns.DEAD_LETTERS)
    if ended and (not known or known[0]["run_id"] != ended[-1]["run_id"]):
        rows = letter_rows(collection, ended[-1], known)
        if rows is not None and (rows or known):
            _put(collection, columns.DEAD_LETTERS, rows)


def _grown(collection: Collection, mart: Mart, new: Callable[[Collection, pa.Table], list[Row]], time: str) -> pa.Table:
    """All rows of a table that only grows, in the order of the column `time`: what was lost comes late."""
    known = _read(collection, mart)
    added = new(collection, known)
    if added:
        known = pa.concat_tables([known, table_of(mart, added)])
        known = known.take(pc.sort_indices(known, [(time, "ascending")]))
        known = known.slice(max(0, len(known) - KEPT_ROWS))
        put_mart(collection, mart, known)
    return known


def _renewed(collection: Collection, mart: Mart, rows: Sequence[Row], by: tuple[str, ...]) -> None:
    """Rows take the place of all that are the same in the columns `by`, and the others stay."""
    new = {tuple(row[name] for name in by) for row in rows}
    kept = _rows(collection, mart)
    others = [row for row in kept if tuple(row[name] for name in by) not in new]
    _put(collection, mart, [*others, *rows], kept)


def _read(collection: Collection, mart: Mart) -> pa.Table:
    try:
        return read_mart(collection, mart)
    except NoMart as error:
        warn("mart made anew", collection=collection.name, why=str(error))
        empty = mart.schema.empty_table()
        put_mart(collection, mart, empty)
        return empty


def _rows(collection: Collection, mart: Mart) -> list[Row]:
    rows: list[Row] = _read(collection, mart).to_pylist()
    return rows


def _put(collection: Collection, mart: Mart, rows: Sequence[Row], before: Sequence[Row] = ()) -> None:
    """Write the rows, unless they are those of `before`."""
    table = table_of(mart, rows)
    if not before or table != table_of(mart, before):
        put_mart(collection, mart, table)
