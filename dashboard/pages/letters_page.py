"""Dead letters of a collection: by reason, with file and id, and what to do."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from dashboard.desk import AtDesk
from dashboard.wording.advice import advice_for
from dashboard.wording.tabular import AS, as_file
from storage.marts.columns import DEAD_LETTERS

PAGE_ROWS = 100
_COLUMNS = ("stage", "file", "id", "reason", "inputs", "kind", "what", "first_seen", "run_id")

router = APIRouter()
Letter = Mapping[str, Any]


@router.get("/c/{name}/letters")
def letters(
    request: Request,
    name: str,
    desk: AtDesk,
    kind: str = "",
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
    form: Annotated[str, Query(alias="as")] = "",
) -> Response:
    """`kind`: of which sort only; `as`: csv or json, of all of them."""
    rows = [_advised(row) for row in desk.lookout.mart(DEAD_LETTERS, desk.collection(name).name).to_pylist()]
    chosen = [row for row in rows if kind in ("", row["kind"])]
    if form in AS:
        return as_file([{column: row[column] for column in _COLUMNS} for row in chosen], form, f"{name}-dead-letters")
    first = (page - 1) * PAGE_ROWS
    return desk.page(
        request,
        "letters.html",
        name=name,
        kinds=_by_kind(rows),
        kind=kind,
        total=sum(row["inputs"] for row in rows),
        letters=chosen[first : first + PAGE_ROWS],
        page=page,
        pages=-(-len(chosen) // PAGE_ROWS),
        run=rows[0]["run_id"] if rows else None,
    )


def _advised(row: Letter) -> dict[str, Any]:
    advice = advice_for(row["stage"], row["reason"])
    return {**row, "kind": advice.kind, "what": advice.what}


def _by_kind(rows: Sequence[Letter]) -> list[dict[str, Any]]:
    """Each sort with its inputs, files and advice, the largest first."""
    inputs, files = Counter[str](), dict[str, set[str]]()
    for row in rows:
        inputs[row["kind"]] += row["inputs"]
        files.setdefault(row["kind"], set()).add(row["file"])
    what = {row["kind"]: row["what"] for row in rows}
    return [{"kind": kind, "inputs": count, "files": len(files[kind]), "what": what[kind]} for kind, count in inputs.most_common()]
