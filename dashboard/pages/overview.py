"""All collections at a glance."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from dashboard.desk import AtDesk

router = APIRouter()


@router.get("/")
def overview(request: Request, desk: AtDesk) -> HTMLResponse:
    return desk.page(request, "overview.html", names=desk.lookout.names())
