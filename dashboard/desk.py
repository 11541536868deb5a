"""What every page has at hand: the store, its state, how things are called by, and the templates."""

import hmac
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import Depends, HTTPException, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dashboard.access.guard import form_token
from dashboard.looking.answerer import Answerer
from dashboard.looking.choices import Choices
from dashboard.looking.lookout import Lookout
from dashboard.looking.planner import Planner
from dashboard.looking.side_by_side import Beside
from dashboard.looking.survey import Survey
from dashboard.settings import Settings
from dashboard.wording.glossary import term
from dashboard.wording.outcomes import outcome
from dashboard.wording.units import FILTERS
from pipelines.errors import NotFound, SpecError
from pipelines.spec.parsing import check_name
from storage.collection import Collection
from storage.store.lance import Store

TEMPLATES = Path(__file__).with_name("templates")


class Desk:
    """One for a server, used by all requests at once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.store)
        self.lookout = Lookout(self.store)
        self.choices = Choices(self.lookout, settings.store)
        self.beside = Beside()
        self.answerer = Answerer(settings.encoder)
        self.planner = Planner(settings.revector, settings.place)
        self.survey = Survey()
        self.form_token = form_token(settings.token)

    @cached_property
    def _templates(self) -> Environment:
        """Whatever a text has in it is a text: all is escaped, and a name that is not there is an error."""
        made = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        made.filters.update(FILTERS)
        made.globals.update(term=term, outcome=outcome, settings=self.settings)
        return made

    def collection(self, name: str) -> Collection:
        """Raises NotFound for a collection that the store does not have."""
        try:
            known = check_name(name) in self.lookout.names()
        except SpecError:
            known = False
        if not known:
            raise NotFound(f"expected a collection of {self.store.root}, found none called {name[:100]!r}")
        return Collection(self.store, name)

    def check_form(self, form: Mapping[str, str]) -> None:
        """Raises HTTPException unless a form is one that this server made."""
        if not hmac.compare_digest(form.get("form_token", "").encode(), self.form_token.encode()):
            raise HTTPException(403, "expected a form of this dashboard as it is now, found an older one: load the page again")

    def page(self, request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
        """A template, with what all of them show."""
        standing = self.lookout.standing(str(context["name"])) if "name" in context else None
        common = {
            "request": request,
            "path": request.url.path,
            "viewer": request.scope.get("viewer", ""),
            "form_token": self.form_token,
            "untold": standing is not None and standing.row is None,
        }
        return HTMLResponse(self._templates.get_template(template).render(common | context), status)

    def door(self, status: int, why: str, wanted: str) -> bytes:
        """What who is not let in sees: nothing of the store. `wanted`: where to go with the token."""
        return self._templates.get_template("door.html").render(status=status, why=why, wanted=wanted).encode()


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form that was sent, the first of each name."""
    sent = parse_qs((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[0] for name, values in sent.items()}


def desk_of(request: Request) -> Desk:
    """The desk of the server that has the request."""
    desk: Desk = request.app.state.desk
    return desk


Form = Annotated[dict[str, str], Depends(form_of)]
AtDesk = Annotated[Desk, Depends(desk_of)]
"""How a page's handler asks for them."""
