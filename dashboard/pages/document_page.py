"""Documents: found by their ids, and one with its chunks on its text, its versions, and what is known of its chunks."""

from contextlib import nullcontext
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from dashboard.desk import AtDesk, Desk
from dashboard.wording.advice import advice_for
from dashboard.wording.pieces import pieces_of
from dashboard.wording.tabular import AS, as_file
from pipelines.errors import NotFound
from pipelines.spec.parsing import check_text
from storage.marts.columns import DEAD_LETTERS
from storage.reading.one_document import MOST_CHUNKS, DocumentState, document_states, list_documents, read_document, same_contents
from storage.reading.versions import PUBLISHED, version_name
from storage.reports.row_findings import Finding, find_findings
from storage.tables.version import Version

PAGE_ROWS = 50
MOST_PAGES = 10_000
MOST_STATES = 30
"""Publications that are looked through for a document, the newest."""
MOST_SAME = 10
"""Chunks of the same content that are named."""

router = APIRouter()
From = Annotated[int, Query(ge=0, le=10_000_000)]


@router.get("/c/{name}/documents")
def documents(
    request: Request,
    name: str,
    desk: AtDesk,
    id: str = "",
    find: str = "",
    v: str = PUBLISHED,
    page: Annotated[int, Query(ge=1, le=MOST_PAGES)] = 1,
    chunk: From = 0,
    form: Annotated[str, Query(alias="as")] = "",
) -> Response:
    """`id`: a document, from the part of it that has chunk number `chunk`; else those whose ids begin with `find`."""
    collection = desk.collection(name)
    version = desk.choices.version(collection, v)
    if id:
        return _one(request, desk, version, check_text("an id", id), v, chunk)
    with desk.answerer.turn() if find else nullcontext():  # what no id begins with is looked for in all of them
        rows = list_documents(version, check_text("an id", find), (page - 1) * PAGE_ROWS, PAGE_ROWS + 1)
    if form in AS:
        return as_file([{"doc_id": doc_id, "file": file} for doc_id, file in rows[:PAGE_ROWS]], form, f"{name}-documents")
    return desk.page(
        request,
        "documents.html",
        name=name,
        asked={"find": find, "v": v, "page": page},
        choices=desk.choices.offered(collection),
        rows=rows[:PAGE_ROWS],
        more=len(rows) > PAGE_ROWS and page < MOST_PAGES,
        letters=_letters(desk, name, find, []) if find and not rows else [],
    )


@router.get("/c/{name}/documents/known")
def known(request: Request, name: str, desk: AtDesk, id: str = "", v: str = PUBLISHED, chunk: From = 0) -> Response:
    """What takes longer to find out of a document: a page of its own, which the other takes in as soon as it is made."""
    collection = desk.collection(name)
    version = desk.choices.version(collection, v)
    rows = desk.lookout.publications(name)[-MOST_STATES:]
    with desk.answerer.turn():
        document = read_document(version, check_text("an id", id), _first(chunk))
        contents = {one.chunk_id: one.content_hash for one in document.chunks} if document else {}
        states = document_states(desk.store, rows, id)
        same = same_contents(version, set(contents.values()), MOST_SAME + 1)
        findings = find_findings(version, contents) if contents else None
    return desk.page(
        request,
        "known.html",
        name=name,
        id=id,
        v=v,
        states=_told(states),
        known=_known(contents, same, findings),
        reported=findings is not None,
        most=MOST_SAME,
    )


def _one(request: Request, desk: Desk, version: Version, id: str, v: str, chunk: int) -> Response:
    name = version.collection.name
    with desk.answerer.turn():  # it looks through all ids: many at once would fill the memory
        document = read_document(version, id, _first(chunk))
    bare = [one.chunk_id for one in document.chunks if not one.embedded] if document else []
    letters = _letters(desk, name, id, bare)
    if document is None and not letters and not _was_there(desk, name, id):
        raise NotFound(f"expected a document of {name}, found none called {id[:100]!r} in any version that is kept")
    return desk.page(
        request,
        "document.html",
        name=name,
        id=id,
        v=v,
        chunk=chunk,
        version=version,
        choices=desk.choices.offered(version.collection),
        document=document,
        pieces=pieces_of(document.chunks) if document and desk.settings.texts else [],
        letters=letters,
        window=MOST_CHUNKS,
    )


def _was_there(desk: Desk, name: str, id: str) -> bool:
    rows = desk.lookout.publications(name)[-MOST_STATES:]
    with desk.answerer.turn():
        return any(state.doc_hash for state in document_states(desk.store, rows, id))


def _first(chunk: int) -> int:
    """Of the part of a document that has it."""
    return chunk // MOST_CHUNKS * MOST_CHUNKS


def _letters(desk: Desk, name: str, id: str, chunks: list[str]) -> list[dict[str, Any]]:
    """Dead letters of a document, also as a file of text, whose name is its id, and of its chunks that have no vector; with what to do."""
    wanted = {id, *chunks}
    rows = [
        row
        for row in desk.lookout.mart(DEAD_LETTERS, name).to_pylist()
        if row["id"] in wanted or (row["stage"] == "file" and row["file"] == id)
    ]
    return [{**row, "what": advice_for(row["stage"], row["reason"]).what} for row in rows]


def _told(states: list[DocumentState]) -> list[dict[str, Any]]:
    """What became of the document at each publication, newest first. Nothing is said of a version that is gone."""
    told, before, unknown = [], None, bool(states) and states[0].publication.epoch > 1
    for state in states:
        if not state.there:
            what = "gone"
        else:
            what = _became(state.doc_hash, before, unknown)
            before, unknown = state.doc_hash, False
        row = state.publication
        told.append({"row": row, "what": what, "chunks": state.chunks, "v": version_name(row.generation, row.version)})
    return told[::-1]


def _became(now: bytes | None, before: bytes | None, unknown: bool) -> str:
    """`unknown`: whether nothing is known of an earlier state."""
    if now is None:
        return "left" if before else "not there"
    if unknown:
        return "there"
    return "came" if before is None else "as it was" if now == before else "changed"


def _known(contents: dict[str, bytes], same: dict[bytes, list[str]], findings: dict[str, Finding] | None) -> list[dict[str, Any]]:
    return [
        {
            "chunk_id": chunk_id,
            "number": int(chunk_id.rpartition("#")[2]),
            "same": [other for other in same.get(content, ()) if other != chunk_id],
            "finding": findings[chunk_id] if findings else None,
        }
        for chunk_id, content in contents.items()
    ]
