"""How a collection stands, in the words of a person: what it is, and what it needs one for."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim

from dashboard.wording.units import count
from storage.history.catalog import Publication

_STOPPED = ("failed", "cancelled", "built", "unfinished")
"""How updates end that leave readers without what they were for."""
GRACE = timedelta(minutes=10)
"""That a scheduled run may be late."""
Grade = Literal["good", "warn", "bad", "live"]


@dataclass(frozen=True, slots=True)
class Going:
    """A run that has not ended."""

    run_id: str
    state: Literal["going on", "ended", "dead", "still"]
    """As a Sight has it."""
    progress: dict[str, Any]
    """The last moment that it told of: the fields of a Progress."""

    @property
    def alive(self) -> bool:
        return self.state == "going on"

    @property
    def share(self) -> float | None:
        """Of the chunks to write, those that are; None while that is not known."""
        total = self.progress.get("total")
        return min(1.0, self.progress.get("chunks", 0) / total) if total else None


@dataclass(frozen=True, slots=True)
class Need:
    """What a person is asked to look at."""

    grade: Grade
    said: str
    page: str
    """Of the collection, where it is seen."""


@dataclass(frozen=True, slots=True)
class Situation:
    """One collection: what its marts say, what readers have by now, and the run that goes on."""

    name: str
    row: dict[str, Any] | None
    """Of the mart `collections`; None where no run has left one, as before marts came up."""
    here: Publication | None
    """What readers have, live: a decision is newer than the marts of the last run."""
    going: Going | None

    def told(self, column: str) -> Any:
        """Of the mart; None where it does not say."""
        return self.row[column] if self.row else None

    def has_looked_since(self, at: datetime) -> bool:
        """Whether a run has compared the source with the store after `at`."""
        looked = self.told("looked_at")
        return looked is not None and looked > at

    @property
    def month_cost(self) -> float | None:
        """Of this month, UTC; None as long as no run has told of it."""
        now, told = datetime.now(UTC), self.told("as_of")
        return self.told("month_cost") if told and (told.year, told.month) == (now.year, now.month) else None

    @property
    def next_run(self) -> datetime | None:
        """When the schedule comes to it next."""
        return self._due(datetime.now(UTC)) if self._scheduled else None

    @property
    def overdue(self) -> bool:
        """Whether the schedule has come to it since the source was last looked at, and nothing happened."""
        looked = self.told("looked_at")
        return bool(self._scheduled and looked and self._due(looked) + GRACE < datetime.now(UTC) and not (self.going and self.going.alive))

    @property
    def _scheduled(self) -> bool:
        return bool(self.told("schedule")) and not self.told("paused")

    def _due(self, since: datetime) -> datetime:
        return next(CronSim(self.told("schedule"), since.astimezone(ZoneInfo(self.told("timezone") or "UTC")))).astimezone(UTC)

    @property
    def state(self) -> tuple[Grade, str]:
        """In a word, and how it is meant."""
        if self.going and self.going.alive:
            return "live", "updating"
        if self.here is None:
            return "bad", "not published"
        needs = list(self.needs())
        if any(need.grade == "bad" for need in needs):
            return "bad", "stale" if self._behind else "current, with faults"
        unknown = self.row is None or self.told("looked_at") is None
        words = {"pinned": self.told("pinned"), "stale": self._behind or self.overdue, "not known": unknown}
        if word := next((word for word, holds in words.items() if holds), None):
            return "warn", word
        return "good", "current"

    @property
    def _behind(self) -> bool:
        """Whether readers lack something that the last run saw."""
        return bool(self.told("pending") or self.told("update_status") in _STOPPED)

    def needs(self) -> Iterator[Need]:
        """What a person is asked to look at, the worst first."""
        if self.row is None and not self.going:
            yield Need("warn", f"not known before its next run, or `revector export {self.name} --to marts`", f"/c/{self.name}")
        status, last = self.told("last_status"), self.told("last_run")
        if self.going and not self.going.alive:
            yield Need("bad", "the last run gives no sign of life: the same command goes on", f"/runs/{self.name}/{self.going.run_id}")
        elif status == "failed":
            yield Need("bad", f"the last run failed: {self.told('last_error') or 'it left no reason'}", f"/runs/{self.name}/{last}")
        elif status == "cancelled":
            yield Need("warn", "the last run was stopped: the same command goes on", f"/runs/{self.name}/{last}")
        if self.told("update_run") != last and self.told("update_status") in ("failed", "cancelled", "unfinished"):
            broken = "failed" if self.told("update_status") == "failed" else "was stopped"
            yield Need("bad", f"the last update {broken}, before upkeep came", f"/runs/{self.name}/{self.told('update_run')}")
        if failed := self.told("failed_gates"):
            yield Need("bad", f"{count(failed)} gate{'s' if failed > 1 else ''} failed", f"/c/{self.name}/quality")
        if alarms := self.told("alarms"):
            yield Need("bad", f"{count(alarms)} report figure{'s' if alarms > 1 else ''} beyond the limit", f"/c/{self.name}/quality")
        if self.overdue:
            yield Need("warn", "the scheduled update did not come", f"/runs?collection={self.name}")
        if waiting := self.told("waiting"):
            yield Need(
                "warn",
                f"{count(waiting)} candidate{'s passed and wait' if waiting > 1 else ' passed and waits'} for a decision",
                f"/c/{self.name}",
            )
        if self.told("pinned"):
            yield Need("warn", "a rollback keeps readers where they are", f"/c/{self.name}")
        if letters := self.told("dead_letters"):
            yield Need("warn", f"{count(letters)} dead letter{'s' if letters > 1 else ''}", f"/c/{self.name}/letters")
        budget, cost = self.told("monthly_budget"), self.month_cost
        if budget and cost and cost > budget:
            yield Need("warn", "this month has cost more than its budget", f"/runs?collection={self.name}")
