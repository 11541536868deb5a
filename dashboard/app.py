"""The application: all pages behind one guard, and errors as a line that a person can act on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from dashboard.access.guard import Guard
from dashboard.desk import Desk
from dashboard.settings import Settings
from pipelines.errors import Conflict, NotFound, RevectorError, SpecError, StorageError
from pipelines.redaction import redact
from storage.store.s3 import store_failure

STATIC = Path(__file__).with_name("static")
ROUTES = (
    "pages.overview",
    "pages.run_pages",
    "pages.collection_page",
    "pages.quality_page",
    "pages.compare_page",
    "pages.map_points",
    "pages.search_page",
    "pages.document_page",
    "pages.letters_page",
    "pages.plan_page",
    "acts",
)
_STATUS = {NotFound: 404, SpecError: 400, Conflict: 409, StorageError: 503, OSError: 503}
"""What comes first holds."""


def make_app(settings: Settings) -> Guard:
    """The ASGI application of one store."""
    desk = Desk(settings)

    @asynccontextmanager
    async def open_until_the_end(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.answerer.close()

    app = FastAPI(title="revector", lifespan=open_until_the_end, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.desk = desk
    app.mount("/static", StaticFiles(directory=STATIC))
    for routes in ROUTES:
        app.include_router(import_module(f"dashboard.{routes}").router)
    app.add_api_route("/healthz", lambda: Response("ok\n", media_type="text/plain"))

    def told(request: Request, error: Exception) -> Response:
        status, why = _said(error)
        if not request.scope["known"]:  # of a file that all may have: a page of ours names the store
            return HTMLResponse(desk.door(status, why, ""), status)
        return desk.page(request, "error.html", status, why=why)

    for kind in (RevectorError, OSError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, told)
    return Guard(app, settings, desk.door)


def _said(error: Exception) -> tuple[int, str]:
    """Only our own messages are known to hold no texts of documents."""
    if isinstance(error, HTTPException):
        return error.status_code, str(error.detail)
    if isinstance(error, RequestValidationError):
        wrong = error.errors()[0]
        return 400, f"{'.'.join(map(str, wrong['loc'][1:]))}: {wrong['msg']}"  # neither has what was sent
    failure: Any = error if isinstance(error, RevectorError) else store_failure(error) if isinstance(error, OSError) else None
    if failure is None:
        return 500, f"{type(error).__name__}: the server's log says where"
    status = next((status for kind, status in _STATUS.items() if isinstance(failure, kind)), 500)
    return status, redact(str(failure))
