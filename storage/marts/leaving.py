"""The marts of a collection brought up to date: what the records have, and they have not. The next write makes up for one that was lost."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.redaction import redact
from storage.collection import Collection
from storage.history.catalog import publications
from storage.history.ledger import BROKEN_OFF
from storage.marts import columns
from storage.marts.columns import MARTS, Mart
from storage.marts.judged_rows import KEPT_ROWS, new_figures, new_gates
from storage.marts.mart_files import mart_bytes, put_mart, read_mart, table_of
from storage.marts.run_rows import KEPT_RUNS, UNFINISHED, Row, cost_rows, letter_rows, new_runs
from storage.marts.standing_rows import Known, Looked, collection_row, coverage_rows, generation_rows, version_rows

_NEVER = datetime.fromtimestamp(0, UTC)
"""In place of a beginning that nobody knows."""
_BY_TIME = [("began", "ascending"), ("run_id", "ascending")]


def leave_marts(collection: Collection, looked: Looked | None = None) -> None:
    """Write what changed since they were written last. `looked`: what a run saw of the source just now.

    The row of the collection itself goes last: who reads it finds the others there.
    """
    now = datetime.now(UTC)
    history = publications(collection)
    before: Row = next(iter(_rows(collection, columns.COLLECTIONS)), {})
    if not before:
        _lay_out(collection)
    runs, grown = _runs(collection)
    _letters(collection, runs)
    gates = _grown(collection, columns.GATES, new_gates)
    figures = _grown(collection, columns.REPORTS, new_figures)
    there = generation_rows(collection, history)
    _put(collection, columns.VERSIONS, version_rows(history), _rows(collection, columns.VERSIONS))
    _put(collection, columns.GENERATIONS, there, _rows(collection, columns.GENERATIONS))
    standing = collection_row(collection, Known(history, there, runs, gates, figures), before, looked, now)
    _renewed(collection, columns.COVERAGE_DAILY, coverage_rows(there, standing.get("newest_source_at"), now))
    if grown or not before:
        costs = cost_rows(collection, runs)
        _renewed(collection, columns.COSTS_DAILY, costs if len(runs) < KEPT_RUNS else costs[1:])  # of the oldest day some may be gone
    _put(collection, columns.COLLECTIONS, [standing], [{**before, "as_of": now}] if before else [])


def _lay_out(collection: Collection) -> None:
    """Every table is there, if without rows: who asks the files finds all of them."""
    for mart in MARTS.values():
        if mart_bytes(collection, mart) is None:
            put_mart(collection, mart, mart.schema.empty_table())


def _runs(collection: Collection) -> tuple[pa.Table, bool]:
    """All that are known now, oldest first, and whether some are new: these, and their stages, are written."""
    known = read_mart(collection, columns.RUNS)
    new = new_runs(collection, known)
    if not new:
        return known, False
    rows = [{**row, "error": redact(row["error"]) if row["error"] else None} for row, _ in new]
    kept = pa.concat_tables([_without(known, rows), table_of(columns.RUNS, rows)])
    order = pc.sort_indices(pa.table({"began": pc.fill_null(kept["began"], _NEVER), "run_id": kept["run_id"]}), _BY_TIME)
    kept = kept.take(order.slice(max(0, len(kept) - KEPT_RUNS)))
    stages = pa.concat_tables(
        [_without(read_mart(collection, columns.STAGES), rows), table_of(columns.STAGES, [stage for _, of in new for stage in of])]
    )
    put_mart(collection, columns.STAGES, stages.filter(pc.is_in(stages["run_id"], value_set=kept["run_id"].combine_chunks())))
    put_mart(collection, columns.RUNS, kept)
    return kept, True


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


def _grown(collection: Collection, mart: Mart, new: Callable[[Collection, pa.Table], list[Row]]) -> pa.Table:
    """All rows of a table that only grows."""
    known = read_mart(collection, mart)
    added = new(collection, known)
    if added:
        known = pa.concat_tables([known, table_of(mart, added)])
        known = known.slice(max(0, len(known) - KEPT_ROWS))
        put_mart(collection, mart, known)
    return known


def _renewed(collection: Collection, mart: Mart, rows: Sequence[Row]) -> None:
    """Rows take the place of those of their key, and the others stay."""
    new = {tuple(row[name] for name in mart.key): row for row in rows}
    kept = {tuple(row[name] for name in mart.key): row for row in _rows(collection, mart)}
    _put(collection, mart, [*{**kept, **new}.values()], [*kept.values()])


def _rows(collection: Collection, mart: Mart) -> list[Row]:
    rows: list[Row] = read_mart(collection, mart).to_pylist()
    return rows


def _put(collection: Collection, mart: Mart, rows: Sequence[Row], before: Sequence[Row] = ()) -> None:
    """Write the rows, unless they are those of `before`."""
    table = table_of(mart, rows)
    if not before or table != table_of(mart, before):
        put_mart(collection, mart, table)
