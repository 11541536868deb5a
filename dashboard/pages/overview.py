"""All collections at a glance: current or stale, what is behind, what it costs, and what needs a person."""

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from dashboard.desk import AtDesk, Desk
from dashboard.looking.planner import Planned
from dashboard.looking.situation import Situation
from dashboard.wording.tabular import AS, as_file

router = APIRouter()


@router.get("/")
def overview(request: Request, desk: AtDesk) -> Response:
    standings = desk.lookout.standings()
    kind = request.query_params.get("as")
    if kind in AS:
        return as_file([_flat(standing) for standing in standings], kind, "collections")
    needs = [(standing.name, need) for standing in standings for need in standing.needs()]
    needs.sort(key=lambda pair: pair[1].grade != "bad")
    totals = {
        "documents": _sum(standing.told("documents") for standing in standings),
        "vectors": sum(standing.here.chunks for standing in standings if standing.here),
        "letters": _sum(standing.told("dead_letters") for standing in standings),
        "current": sum(standing.state[0] == "good" for standing in standings),
    }
    return desk.page(
        request, "overview.html", standings=standings, needs=needs, totals=totals, costs=_costs(standings), plans=_plans(desk, standings)
    )


def _plans(desk: Desk, standings: list[Situation]) -> dict[str, Planned]:
    """By collection: those that no run has come after, which would have done what they say."""
    made = desk.planner.made()
    return {one.name: made[one.name] for one in standings if one.name in made and not one.has_looked_since(made[one.name].at)}


def _sum(counts: Iterable[int | None]) -> int | None:
    """None if one of them is not known: the rest would look like all."""
    known = list(counts)
    return None if None in known else sum(count or 0 for count in known)


def _costs(standings: Sequence[Situation]) -> dict[str, tuple[float, float | None]]:
    """What this month has cost, by currency, and its budget if all that cost something have one."""
    found: dict[str, tuple[float, float | None]] = {}
    for standing in standings:
        cost, currency, budget = standing.month_cost, standing.told("currency"), standing.told("monthly_budget")
        if cost is not None and currency:
            before, limit = found.get(currency, (0.0, 0.0))
            found[currency] = before + cost, None if budget is None or limit is None else limit + budget
    return found


_TOLD = (
    *("documents", "chunks", "vectors", "pending", "coverage", "pending_elsewhere", "dead_letters", "newest_source_at", "looked_at"),
    *("last_run", "last_status", "last_ended", "monthly_budget", "currency"),
)


def _flat(standing: Situation) -> dict[str, Any]:
    own = {"collection": standing.name, "state": standing.state[1], "next_run": standing.next_run, "month_cost": standing.month_cost}
    return {**own, **{name: standing.told(name) for name in _TOLD}}
