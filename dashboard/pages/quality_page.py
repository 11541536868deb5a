"""How good a collection is: its gates over time, candidates beside what is published, task scores, and drift."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter, Query, Request, Response

from dashboard.desk import AtDesk
from dashboard.wording.tabular import AS, as_file
from dashboard.wording.trend import Point, trend
from storage.history.evaluations import find_evaluation
from storage.marts.columns import GATES, REPORTS

RECENT_ROWS = 6_000
"""Of gates and of figures that are looked at, the newest: some hundreds of judgements."""
SHOWN_JUDGEMENTS = 30
MOST_GENERATIONS = 5
"""Side by side."""

router = APIRouter()
Row = Mapping[str, Any]


@router.get("/c/{name}/quality")
def quality(
    request: Request,
    name: str,
    desk: AtDesk,
    gate: str = "",
    judgement: Annotated[str, Query(max_length=100)] = "",
    form: Annotated[str, Query(alias="as")] = "",
) -> Response:
    """`gate`: whose values are listed; `judgement`: whose failing rows are; `as`: csv or json, of the gates that are looked at."""
    collection = desk.collection(name)
    gates = _recent(desk.lookout.mart(GATES, name), "judged_at")
    if form in AS:
        return as_file(gates, form, f"{name}-gates")
    history = desk.lookout.publications(name)
    published = history[-1].generation if history else ""
    figures = _recent(desk.lookout.mart(REPORTS, name), "reported_at")
    sides = _sides(gates, published)
    judgements = _judgements(gates)
    chosen = judgement or next((made["id"] for made in judgements if made["failed"]), "")
    return desk.page(
        request,
        "quality.html",
        name=name,
        sides=sides,
        published=published,
        served=history[-1] if history else None,
        newest=next((made for made in judgements if made["generation"] == published), None),
        gates=_compared(gates, sides),
        gate=gate,
        values=[row for row in reversed(gates) if row["gate"] == gate][:SHOWN_JUDGEMENTS],
        judgements=judgements[:SHOWN_JUDGEMENTS],
        judged=find_evaluation(collection, chosen) if chosen else None,
        scores=_compared([_as_gate(row) for row in figures if row["kind"] in ("tasks", "balance", "bias")], sides),
        drift=_drifts([row for row in figures if row["kind"] == "drift" and row["generation"] == published])[:SHOWN_JUDGEMENTS],
    )


def _recent(table: pa.Table, time: str) -> list[dict[str, Any]]:
    """The newest rows, oldest first. `time`: the column of it."""
    newest = pc.sort_indices(table, [(time, "ascending")])[-RECENT_ROWS:]
    rows: list[dict[str, Any]] = table.take(newest).to_pylist()
    return rows


def _as_gate(row: Row) -> dict[str, Any]:
    """A figure of a report, as if it were a gate."""
    measure = row["measure"].replace("_", " ")
    return {
        **row,
        "gate": measure if measure.startswith(row["kind"]) else f"{row['kind']}: {measure}",
        "detail": f"version {row['version']}",
    }


def _sides(gates: Iterable[Row], published: str) -> list[str]:
    """The generations that were judged last, the published one first."""
    judged = dict.fromkeys(row["generation"] for row in reversed(list(gates)))
    return [*([published] if published in judged else []), *(name for name in judged if name != published)][:MOST_GENERATIONS]


def _compared(gates: Iterable[Row], sides: Sequence[str]) -> list[dict[str, Any]]:
    """Each gate with what it found last of each side, and how that went on the first."""
    of: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in gates:
        of[row["gate"]][row["generation"]].append(row)
    return [
        {
            "gate": gate,
            "threshold": next((rows[-1]["threshold"] for side in sides if (rows := by_side[side])), None),
            "sides": [by_side[side][-1] if by_side[side] else None for side in sides],
            "trend": _trend(gate, by_side[sides[0]]),
        }
        for gate, by_side in of.items()
        if any(by_side[side] for side in sides)
    ]


def _trend(gate: str, rows: Sequence[Row]) -> Any:
    measured = [row for row in rows if row["value"] is not None]
    points = [Point(row["value"], row["passed"]) for row in measured]
    return trend(points, measured[-1]["threshold"], f"{gate} over {len(points)} judgements") if len(points) > 1 else ""


def _judgements(gates: Iterable[Row]) -> list[dict[str, Any]]:
    """Each with the gates that it did not pass, newest first."""
    by_id: dict[str, list[Row]] = defaultdict(list)
    for row in gates:
        by_id[row["evaluation_id"]].append(row)
    made = [
        {
            "id": id_,
            **{column: rows[0][column] for column in ("generation", "version", "judged_at", "who", "run_id")},
            "gates": len(rows),
            "unmeasured": sum(row["value"] is None for row in rows),
            "failed": [row["gate"] for row in rows if not row["passed"]],
        }
        for id_, rows in by_id.items()
    ]
    return sorted(made, key=lambda row: row["id"], reverse=True)


def _drifts(figures: Iterable[Row]) -> list[dict[str, Any]]:
    """A row a version, newest first: its figures by name, and the one that is held against a limit."""
    by_version: dict[int, dict[str, Any]] = {}
    for row in figures:
        made = by_version.setdefault(row["version"], {"version": row["version"], "at": row["reported_at"], "figures": {}})
        made["figures"][row["measure"]] = row["value"]
        if row["threshold"] is not None:
            made |= {"limit": row["threshold"], "value": row["value"], "passed": row["passed"]}
    return [by_version[version] for version in sorted(by_version, reverse=True)]
