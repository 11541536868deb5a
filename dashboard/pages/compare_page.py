"""Compare: one question to two versions side by side, and the questions that changed most."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from dashboard.desk import AtDesk, Desk
from dashboard.looking.choices import Choice
from dashboard.looking.side_by_side import Answer, Ranks, Shifts, rank, same_by
from dashboard.pages.search_page import STATUS, Results, check_question, status_of
from dashboard.wording.slopes import slopes
from dashboard.wording.tabular import AS, as_file
from pipelines.redaction import redact
from storage.collection import Collection
from storage.reading.published import more_like, search_table
from storage.reading.versions import PUBLISHED
from storage.tables.version import Version

SHOWN = 10
"""Questions that are seen at once."""

router = APIRouter()


@router.get("/c/{name}/compare")
def compare(
    request: Request,
    name: str,
    desk: AtDesk,
    q: str = "",
    id: str = "",
    a: str = PUBLISHED,
    b: str = "",
    k: Results = 10,
    form: Annotated[str, Query(alias="as")] = "",
) -> Response:
    """`q`: a question, or `id`: a chunk that both have; `a` and `b`: the versions."""
    collection = desk.collection(name)
    choices = desk.choices.offered(collection)
    b = b or next((choice.name for choice in choices if choice.name != a), "")
    ranks, status, why = None, 200, ""
    try:
        if b:
            ranks = _ranks(desk, _sides(desk, collection, a, b), q, id, k)
    except tuple(STATUS) as error:
        status, why = status_of(error), redact(str(error))
    if form in AS and ranks:
        return as_file(_flat(desk, ranks), form, f"{name}-compare")
    shown = {choice.name: choice.shown for choice in choices}
    return desk.page(
        request,
        "compare.html",
        status,
        name=name,
        asked={"q": q, "id": id, "a": a, "b": b, "k": k},
        choices=_with(choices, a, b),
        sides=(shown.get(a, a), shown.get(b, b)),
        ranks=ranks,
        counts=_counts(ranks) if ranks else {},
        drawing=slopes([(place.answer[ranks.by], place.first, place.second) for place in ranks.places], k) if ranks else "",
        offered=desk.answerer.offered,
        why=why,
    )


@router.get("/c/{name}/compare/changed")
def changed(
    request: Request, name: str, desk: AtDesk, a: str = PUBLISHED, b: str = "", form: Annotated[str, Query(alias="as")] = ""
) -> Response:
    """A page of its own, which the one above takes in as soon as it is made."""
    collection = desk.collection(name)
    found, status, why = None, 200, ""
    try:
        first, second = _sides(desk, collection, a, b)
        with desk.answerer.turn():
            found = desk.beside.changed(first, second)
    except tuple(STATUS) as error:
        status, why = status_of(error), redact(str(error))
    if form in AS and found:
        return as_file(_flat_questions(found), form, f"{name}-changed")
    return desk.page(request, "changed.html", status, name=name, asked={"a": a, "b": b}, found=found, most=SHOWN, why=why)


def _sides(desk: Desk, collection: Collection, a: str, b: str) -> tuple[Version, Version]:
    return desk.choices.version(collection, a), desk.choices.version(collection, b)


def _ranks(desk: Desk, sides: tuple[Version, Version], q: str, id: str, k: int) -> Ranks | None:
    """None without a question; then the models are made ready."""
    if id:
        with desk.answerer.turn():
            answers = [more_like(side.vectors, id, k) for side in sides]
    elif q.strip():
        check_question(desk, q)
        with desk.answerer.turn():
            answers = _searched(desk, sides, q, k)
    else:
        desk.answerer.wake(sides[0])
        return None
    return rank(answers[0], answers[1], k, same_by(*sides))


def _searched(desk: Desk, sides: tuple[Version, Version], q: str, k: int) -> list[list[Answer]]:
    """Each by a vector of its own space."""
    vectors = {}
    for side in sides:
        key = side.space["id"], side.recorded.query_prompt
        if key not in vectors:
            vectors[key] = desk.answerer.vectors(side, [q])[0]
    return [search_table(side.vectors, vectors[side.space["id"], side.recorded.query_prompt], k) for side in sides]


def _with(choices: Sequence[Choice], *names: str) -> list[Choice]:
    """The choices, and those of `names` that a list does not have room for."""
    listed = {choice.name for choice in choices}
    return [*choices, *(Choice(name, name) for name in dict.fromkeys(names) if name and name not in listed)]


def _counts(ranks: Ranks) -> dict[str, int]:
    moved = [place.moved for place in ranks.places if place.moved is not None]
    return {
        "same": sum(step == 0 for step in moved),
        "moved": sum(step != 0 for step in moved),
        "first": sum(place.second is None for place in ranks.places),
        "second": sum(place.first is None for place in ranks.places),
    }


def _flat(desk: Desk, ranks: Ranks) -> list[dict[str, Any]]:
    return [
        {
            "chunk_id": place.answer["chunk_id"],
            "doc_id": place.answer["doc_id"],
            "rank_a": place.first,
            "rank_b": place.second,
            "moved": place.moved,
            "score_a": place.first_score,
            "score_b": place.second_score,
            **({"text": place.answer["text"]} if desk.settings.texts else {}),
        }
        for place in ranks.places
    ]


def _flat_questions(found: Shifts) -> list[dict[str, Any]]:
    return [{"chunk_id": question.chunk_id, "overlap": question.overlap} for question in found.questions]
