"""The runs: all of them, the newest first, and one with its stages, what it did, and how far it is."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter, Request, Response

from dashboard.desk import AtDesk, Desk
from dashboard.wording.bars import Bar, daily, stacked
from dashboard.wording.tabular import AS, as_file
from pipelines.errors import NotFound
from storage.history.ledger import Run
from storage.marts.columns import COSTS_DAILY, RUNS, STAGES
from storage.who import check_run_id

router = APIRouter()
PAGE = 50
DAYS = 30
"""Of the trend."""


@router.get("/runs")
def runs(request: Request, desk: AtDesk, collection: str = "", status: str = "", what: str = "", page: int = 1) -> Response:
    name = desk.collection(collection).name if collection else None
    rows = desk.lookout.mart(RUNS, name)
    offered = {column: sorted(filter(None, pc.unique(rows[column]).to_pylist())) for column in ("status", "what")}
    for column, wanted in (("status", status), ("what", what)):
        if wanted:
            rows = rows.filter(pc.equal(rows[column], wanted))
    kind = request.query_params.get("as")
    if kind in AS:
        return as_file(_newest(rows, 0, len(rows)), kind, "runs")
    pages = max(1, -(-len(rows) // PAGE))
    page = min(max(1, page), pages)
    return desk.page(
        request,
        "runs.html",
        rows=_newest(rows, (page - 1) * PAGE, PAGE),
        count=len(rows),
        page=page,
        pages=pages,
        offered=offered,
        chosen={"collection": collection, "status": status, "what": what},
        names=desk.lookout.names(),
        silent=[one.name for one in desk.lookout.standings() if one.row is None and name in (None, one.name)],
        going=[one for one in desk.lookout.standings() if one.going and name in (None, one.name)],
        costs=_daily(desk, name),
    )


def _newest(rows: pa.Table, first: int, count: int) -> list[dict[str, Any]]:
    began = pc.fill_null(rows["began"], datetime.fromtimestamp(0, UTC))
    order = pc.sort_indices(pa.table({"began": began, "run_id": rows["run_id"]}), [("began", "descending"), ("run_id", "descending")])
    found: list[dict[str, Any]] = rows.take(order.slice(first, count)).to_pylist()
    return found


def _daily(desk: Desk, name: str | None) -> dict[str, Any]:
    """What the last days cost, in each currency, as bars; seconds where there are no prices."""
    rows = desk.lookout.mart(COSTS_DAILY, name).to_pylist()
    found: dict[str, Any] = {}
    for currency in sorted({row["currency"] for row in rows}):
        own = [row for row in rows if row["currency"] == currency]
        by_day: dict[Any, float] = {}
        for row in own:
            by_day[row["day"]] = by_day.get(row["day"], 0.0) + ((row["cost"] if currency else row["seconds"]) or 0.0)
        found[currency] = daily(by_day, DAYS)
    return found


@router.get("/runs/{collection}/{run_id}")
def run(request: Request, collection: str, run_id: str, desk: AtDesk) -> Response:
    known = desk.collection(collection)
    ledger = Run(known, check_run_id(run_id))
    rows = desk.lookout.mart(RUNS, known.name)
    row = next(iter(rows.filter(pc.equal(rows["run_id"], run_id)).to_pylist()), None)
    intent, result = ledger.read("intent.json") or {}, ledger.read("result.json") or {}
    standing = desk.lookout.standing(known.name)
    going = standing.going if standing and standing.going and standing.going.run_id == run_id else None
    if row is None and not intent and not result and going is None:
        raise NotFound(f"expected a run of {known}, found none of the id {run_id}")
    stages = desk.lookout.mart(STAGES, known.name)
    own = stages.filter(pc.equal(stages["run_id"], run_id)).sort_by("place").to_pylist()
    bars = stacked([Bar(one["stage"], one["seconds"]) for one in own if one["seconds"]])
    return desk.page(
        request,
        "run.html",
        name=known.name,
        run_id=run_id,
        row=row,
        intent=intent,
        result=result,
        going=going,
        stages=own,
        bars=bars,
        colours={bar.name: bar.colour for bar in bars},
    )
