"""One collection: its versions as a timeline, its generations and candidates, the spec that made it."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from dashboard.desk import AtDesk

router = APIRouter()


@router.get("/c/{name}")
def collection(request: Request, name: str, desk: AtDesk) -> HTMLResponse:
    known = desk.collection(name)
    return desk.page(request, "collection.html", name=known.name, history=desk.lookout.publications(name))
