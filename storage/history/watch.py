"""A run seen from outside, by nothing but the store: how far it is, how it ended, or that it stands still."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.errors import SpecError
from storage.history.heartbeat import HEARTBEAT_SECONDS
from storage.history.ledger import Run
from storage.who import Holder

STILL_SECONDS = 6 * HEARTBEAT_SECONDS
"""Without a heartbeat, after which a run counts as dead: a store that is away for a moment holds one up."""


@dataclass(frozen=True, slots=True)
class Sight:
    """How a run stands at the moment of a look."""

    state: Literal["going on", "ended", "dead", "still"]
    """`dead`: its process is gone. `still`: it runs where this machine cannot look, and gives no sign of life."""
    progress: dict[str, Any] | None
    """The last moment that it told of: the fields of a Progress."""
    result: dict[str, Any] | None
    """Its record, once it has ended."""


class Watch:
    """Looks at one run again and again."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._holder = holder(run)
        self._beat: int | None = None
        self._since = time.monotonic()

    def look(self) -> Sight:
        """Heartbeats are compared with each other, never with a clock: those of two machines may differ."""
        heart = self._run.read("heartbeat.json") or {}
        if heart.get("beat") != self._beat:
            self._beat, self._since = heart.get("beat"), time.monotonic()
        gone = self._holder.dead() if self._holder else None
        result = self._run.read("result.json")  # after the look at the process: one that has ended left this before
        if result is not None:
            return Sight("ended", heart.get("progress"), result)
        if gone:
            return Sight("dead", heart.get("progress"), None)
        still = gone is None and time.monotonic() - self._since > STILL_SECONDS
        return Sight("still" if still else "going on", heart.get("progress"), None)


def holder(run: Run) -> Holder | None:
    """The process of a run; None if it never had the right to commit."""
    objects, key = run.collection.objects, run.collection.key("fence")
    for name in reversed(objects.names(key)):
        record = objects.get_json(f"{key}/{name}")
        if record and record["run_id"] == run.run_id:
            return Holder(record["run_id"], record["host"], record["pid"], record["started"])
    return None


def newest(run_ids: Iterable[str], beginning: str) -> str | None:
    """The id that begins so; of several attempts of one run, the last. None if there is none, SpecError if there are several runs.

    Attempts go on where others died: their ids are the first one's with numbers after it.
    """
    matching = [run_id for run_id in run_ids if run_id.startswith(beginning)]
    matching = [run_id for run_id in matching if f"{run_id}-".startswith(f"{beginning}-")] or matching
    families = {tuple(run_id.split("-")[:2]) for run_id in matching}
    if len(families) > 1:
        raise SpecError(f"expected the beginning of one run id, found {beginning!r}, with which {len(families)} runs begin")
    return max(matching, key=_attempt, default=None)


def _attempt(run_id: str) -> tuple[int, ...]:
    return tuple(int(number) for number in run_id.split("-")[2:] if number.isdecimal())
