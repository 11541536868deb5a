"""One collection: its versions as a timeline, its generations and candidates, and the spec that made it."""

from typing import Any

from fastapi import APIRouter, Request, Response

from dashboard.desk import AtDesk
from dashboard.wording.tabular import AS, as_file
from storage.collection import Collection
from storage.history.catalog import Publication
from storage.history.ledger import Run
from storage.marts.columns import COVERAGE_DAILY, GENERATIONS, RUNS

router = APIRouter()
PAGE = 50
ACTIONS = {
    "publish": "published",
    "update": "brought up to date",
    "promote": "promoted",
    "rollback": "rolled back",
    "resume": "released the rollback",
    "maintenance": "the same rows, written anew",
}


@router.get("/c/{name}")
def collection(request: Request, name: str, desk: AtDesk, page: int = 1) -> Response:
    known = desk.collection(name)
    history = desk.lookout.publications(known.name)
    kind = request.query_params.get("as")
    if kind in AS:
        return as_file([_flat(row) for row in history], kind, f"{known.name}-versions")
    pages = max(1, -(-len(history) // PAGE))
    page = min(max(1, page), pages)
    newest = [*reversed(history)]
    return desk.page(
        request,
        "collection.html",
        name=known.name,
        standing=desk.lookout.standing(known.name),
        history=newest[(page - 1) * PAGE : page * PAGE],
        count=len(history),
        page=page,
        pages=pages,
        actions=ACTIONS,
        offered=offered(history),
        generations=desk.lookout.mart(GENERATIONS, known.name).to_pylist(),
        spec=_spec(known, desk.lookout.mart(RUNS, known.name).to_pylist()),
        coverage=desk.lookout.mart(COVERAGE_DAILY, known.name).to_pylist()[-30:],
    )


def offered(history: list[Publication]) -> set[int]:
    """Epochs that may be rolled back to: not given up, and with other rows than readers have."""
    return {row.epoch for row in history if not row.removed and row.tables != history[-1].tables}


def _flat(row: Publication) -> dict[str, Any]:
    names = ("collection", "epoch", "at", "action", "generation", "version", "space", "chunks", "dead_letters", "run_id", "who", "why")
    return {name: getattr(row, name) for name in names} | {"removed": row.removed or None}


def _spec(collection: Collection, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """As the newest run had it that is on record with one, without what is as usual: by key. `rows`: of runs, oldest first."""
    for row in rows[-20:][::-1]:
        declared = (Run(collection, row["run_id"]).read("intent.json") or {}).get("spec")
        if declared:
            return dict(declared)
    return {}
