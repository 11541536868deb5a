"""What a person may do here, if the server was started so: promote and roll back. A page names what readers have and what they would get,
and its form does that and nothing else: it is refused when either has changed meanwhile."""

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from dashboard.desk import AtDesk, Desk, Form
from dashboard.settings import Act
from pipelines.errors import Conflict, SpecError
from storage.history.decisions import Decision, going_back, promotion
from storage.marts.handing import leave
from storage.marts.standing_rows import settings_of

router = APIRouter()
MOST_DIGITS = 19
"""Of a version."""
MOST_WHY = 500
"""Characters of a reason."""


@router.get("/c/{name}/promote")
def ask_promote(request: Request, name: str, generation: str, desk: AtDesk) -> Response:
    _check_allowed(desk, "promote")
    return _asked(request, desk, name, "promote", promotion(desk.collection(name), generation), generation)


@router.get("/c/{name}/rollback")
def ask_rollback(request: Request, name: str, desk: AtDesk, epoch: int | None = None) -> Response:
    _check_allowed(desk, "rollback")
    return _asked(request, desk, name, "rollback", going_back(desk.collection(name), epoch=epoch), "" if epoch is None else str(epoch))


@router.post("/c/{name}/promote")
def promote(request: Request, name: str, form: Form, desk: AtDesk) -> Response:
    _check_allowed(desk, "promote")
    desk.check_form(form)
    return _done(request, desk, name, form, promotion(desk.collection(name), form.get("target", "")))


@router.post("/c/{name}/rollback")
def rollback(request: Request, name: str, form: Form, desk: AtDesk) -> Response:
    _check_allowed(desk, "rollback")
    desk.check_form(form)
    epoch = form.get("target", "")
    if epoch and not (epoch.isdecimal() and len(epoch) < MOST_DIGITS):
        raise SpecError(f"expected the number of an epoch, found {epoch[:100]!r}")
    return _done(request, desk, name, form, going_back(desk.collection(name), epoch=int(epoch) if epoch else None))


def _check_allowed(desk: Desk, act: Act) -> None:
    if act not in desk.settings.allow:
        raise HTTPException(403, f"expected a dashboard that may {act}, found one that only shows: `revector dashboard --allow {act}`")


def _asked(request: Request, desk: Desk, name: str, act: Act, decision: Decision, target: str) -> Response:
    return desk.page(
        request,
        "act.html",
        name=name,
        act=act,
        here=decision.here,
        new=decision.new,
        settings_here=settings_of(decision.here.model_spec()) if decision.here else None,
        settings_new=settings_of(decision.new.model_spec()),
        seen=_seen(decision),
        target=target,
    )


def _done(request: Request, desk: Desk, name: str, form: dict[str, str], decision: Decision) -> Response:
    """What was confirmed must be what is done."""
    if form.get("seen") != _seen(decision):
        raise Conflict("expected what readers have, and would get, to be as it was shown, found another version: look again, then decide")
    why = " ".join(form.get("why", "").split())
    if not why or len(why) > MOST_WHY:
        raise SpecError(f"expected a reason of 1 to {MOST_WHY} characters, found {len(why)}")
    viewer: Any = request.scope.get("viewer")
    decision.carry_out(f"{why} ({viewer}, at the dashboard)" if viewer else why)
    leave(desk.collection(name))  # that marts cannot be written must not look as if nothing had been decided
    desk.lookout.forget()
    return RedirectResponse(f"/c/{name}", 303)


def _seen(decision: Decision) -> str:
    """Both, in a word: the epoch that readers are at, and the tables that they would get."""
    new = decision.new
    return f"{decision.here.epoch if decision.here else 0}>{new.generation}@{new.version}/{new.chunk_version}"
