"""Search: by a text or by a stored chunk, in any version, with conditions on the metadata."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from dashboard.desk import AtDesk, Desk
from dashboard.wording.tabular import AS, as_file
from pipelines.content.chunks import metadata_type
from pipelines.errors import ModelError, NotFound, RevectorError, SpecError
from pipelines.redaction import redact
from pipelines.spec.parsing import check_text
from storage.reading.filters import OPERATORS, Condition
from storage.reading.published import more_like, search_table
from storage.reading.versions import PUBLISHED
from storage.tables.version import Version

MOST_RESULTS = 50
MOST_CHARACTERS = 4_000
"""Of a question."""
MOST_CONDITIONS = 8
STATUS = {NotFound: 404, SpecError: 400, ModelError: 503}

router = APIRouter()
Results = Annotated[int, Query(ge=1, le=MOST_RESULTS)]
Several = Annotated[list[str] | None, Query()]


@router.get("/c/{name}/search")
def search(
    request: Request,
    name: str,
    desk: AtDesk,
    q: str = "",
    id: str = "",
    v: str = PUBLISHED,
    k: Results = 10,
    field: Several = None,
    op: Several = None,
    value: Several = None,
    form: Annotated[str, Query(alias="as")] = "",
) -> Response:
    """`q`: a question; `id`: a chunk, whose neighbours are asked for; `v`: the version; `field`, `op`, `value`: conditions, in step."""
    collection = desk.collection(name)
    conditions = [*zip(field or [], op or [], value or [], strict=False)]
    hits: list[dict[str, Any]] = []
    version, status, why = None, 200, ""
    began = time.monotonic()
    try:
        version = desk.choices.version(collection, v)
        hits = find(desk, version, q, id, k, conditions)
    except tuple(STATUS) as error:
        status, why = status_of(error), redact(str(error))
    if form in AS and not why:
        return as_file([_flat(desk, rank, hit) for rank, hit in enumerate(hits, 1)], form, f"{name}-search")
    return desk.page(
        request,
        "search.html",
        status,
        name=name,
        asked={"q": q, "id": id, "v": v, "k": k, "field": field or [], "op": op or [], "value": value or []},
        conditions=conditions,
        kinds=kinds_of(version) if version else {},
        operators=OPERATORS,
        choices=desk.choices.offered(collection),
        offered=desk.answerer.offered,
        hits=hits,
        seconds=time.monotonic() - began,
        version=version,
        why=why,
    )


def status_of(error: RevectorError) -> int:
    return next(status for kind, status in STATUS.items() if isinstance(error, kind))


def find(desk: Desk, version: Version, q: str, id: str, k: int, conditions: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """What is nearest to a question or to a chunk; of neither nothing, but the model is made ready.

    Raises SpecError, NotFound, ModelError; HTTPException where too many search.
    """
    where = _where(desk, conditions)
    if id:
        with desk.answerer.turn():
            return more_like(version.vectors, check_text("an id", id), k, where)
    if not q.strip():
        desk.answerer.wake(version)
        return []
    check_question(desk, q)
    with desk.answerer.turn():
        return search_table(version.vectors, desk.answerer.vectors(version, [q])[0], k, where)


def check_question(desk: Desk, q: str) -> None:
    """Raises SpecError for one that cannot be asked here."""
    if len(check_text("a question", q)) > MOST_CHARACTERS:
        raise SpecError(f"expected a question of at most {MOST_CHARACTERS:,} characters, found {len(q):,}")
    if not desk.answerer.offered:
        raise SpecError("expected the id of a chunk: this dashboard was started without a process that has the models")


def _where(desk: Desk, conditions: list[tuple[str, str, str]]) -> list[Condition]:
    """Rows of the form that were left empty are none."""
    filled = [(field, op, value) for field, op, value in conditions if field]
    if filled and not desk.settings.texts:
        raise SpecError("expected no conditions: this dashboard shows figures alone, and conditions would tell values one by one")
    if len(filled) > MOST_CONDITIONS:
        raise SpecError(f"expected at most {MOST_CONDITIONS} conditions, found {len(filled)}")
    return [
        Condition(field, [one.strip() for one in value.split(",")] if op == "in" else value, op)  # type: ignore[arg-type]
        for field, op, value in filled
    ]


def kinds_of(version: Version) -> dict[str, str]:
    """What conditions can be on, each with its type."""
    fields = metadata_type(version.vectors.schema) or []
    return {field.name: str(field.type) for field in fields} | {"doc_id": "string"}


def _flat(desk: Desk, rank: int, hit: dict[str, Any]) -> dict[str, Any]:
    figures = {"rank": rank, "score": hit["score"], "chunk_id": hit["chunk_id"], "doc_id": hit["doc_id"]}
    if not desk.settings.texts:
        return figures
    return figures | {"text": hit["text"]} | {f"metadata.{name}": value for name, value in hit["metadata"].items()}
