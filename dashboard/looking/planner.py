"""Plans, made when somebody asks: by the command line, in a process of its own that ends with it."""

import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any

import orjson

from dashboard.settings import Argv
from pipelines.errors import Conflict, NotFound
from pipelines.redaction import redact

MOST_AT_ONCE = 2
PLAN_SECONDS = 1800.0
"""After that a plan is given up: of a huge source that changed as a whole, `revector plan` in a terminal shows how far it is."""
STOP_AT_EOF = "REVECTOR_STOP_AT_EOF"
"""Tells a command to end when its input does."""
_PLANNED = (0, 2)
"""Exit codes of a plan that was made."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What the next run of a collection would do, as of when it was asked."""

    at: datetime
    plan: Mapping[str, Any] = field(default_factory=dict)
    """As `revector plan --json` has it."""
    error: str = ""
    done: bool = False

    @property
    def documents(self) -> Mapping[str, int]:
        return dict(self.plan.get("documents") or {})


class Planner:
    """Keeps the newest plan of each collection, for as long as the server lives."""

    def __init__(self, revector: Argv, place: Argv) -> None:
        self.offered = bool(revector)
        self._revector = revector
        self._place = place
        self._made: dict[str, Planned] = {}
        self._lock = threading.Lock()

    def made(self) -> dict[str, Planned]:
        """By collection: plans that are made or being made."""
        with self._lock:
            return dict(self._made)

    def begin(self, collection: str) -> None:
        """Have a plan made, unless one of it is being made. Raises NotFound where plans are not offered, Conflict while others go on."""
        if not self.offered:
            raise NotFound("expected a dashboard that was started with a spec, found one of a store alone: `revector dashboard --config`")
        with self._lock:
            going = [name for name, planned in self._made.items() if not planned.done]
            if collection in going:
                return
            if len(going) >= MOST_AT_ONCE:
                raise Conflict(
                    f"expected at most {MOST_AT_ONCE} plans at once, found those of {' and '.join(going)}: try again in a moment"
                )
            self._made[collection] = Planned(datetime.now(UTC))
        threading.Thread(target=self._make, args=(collection,), name=f"plan of {collection}", daemon=True).start()

    def _make(self, collection: str) -> None:
        planned = self._planned(collection)
        with self._lock:
            self._made[collection] = planned

    def _planned(self, collection: str) -> Planned:
        began = datetime.now(UTC)
        argv = [*self._revector, "plan", collection, "--json", *self._place]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
            try:
                # Its input stays open as long as this process lives, and it ends with that.
                process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=out, stderr=said, env=os.environ | {STOP_AT_EOF: "1"})
            except OSError as error:
                return Planned(began, error=f"expected to start a plan, found {type(error).__name__}", done=True)
            with process:
                try:
                    code = process.wait(PLAN_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    return Planned(began, error=f"expected a plan within {PLAN_SECONDS:.0f} s, found none", done=True)
            if code in _PLANNED:
                return Planned(began, orjson.loads(_whole(out)), done=True)
            lines = _whole(said).decode("utf-8", "replace").strip().splitlines()
            return Planned(began, error=redact(lines[-1] if lines else f"exit code {code}"), done=True)


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
