"""What the next run of a collection would do, and what that would cost: made when somebody asks."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from dashboard.desk import AtDesk, Form

router = APIRouter()


@router.get("/c/{name}/plan")
def shown(request: Request, name: str, desk: AtDesk) -> Response:
    collection = desk.collection(name)
    planned, standing = desk.planner.made().get(collection.name), desk.lookout.standing(collection.name)
    overtaken = bool(planned and standing and standing.has_looked_since(planned.at))
    return desk.page(request, "plan.html", name=collection.name, planned=planned, overtaken=overtaken, offered=desk.planner.offered)


@router.post("/c/{name}/plan")
def begin(name: str, form: Form, desk: AtDesk) -> Response:
    """A plan reads the source and the store, and writes nothing; it is begun by a button, for it takes time."""
    desk.check_form(form)
    desk.planner.begin(desk.collection(name).name)
    return RedirectResponse(f"/c/{name}/plan", 303)
