"""Where the time of a run goes: seconds of each stage of the driver, and of each model process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

STEPS = ("read", "tokenize", "model", "write")
"""Of a shard, in order."""


@dataclass
class Profile:
    """Seconds by stage of the driver and by model process, filled while a run goes on."""

    stages: dict[str, float] = field(default_factory=dict)
    """Seconds of the driver's wall time, in the order in which they began."""
    workers: dict[str, dict[str, float]] = field(default_factory=dict)
    """Per model process: seconds of each of STEPS, `shards`, `tokens`."""
    how: str = ""
    """How the model ran: "packed, float32"."""
    _open: dict[str, float] = field(default_factory=dict)
    """Stages that go on, and when they began."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the wall time within to that of `name`, also if it ends with an error."""
        began = self._open[name] = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - began
            self._open.pop(name, None)

    def so_far(self) -> dict[str, float]:
        """Seconds of each stage, those that go on counted in. May be asked from another thread."""
        seconds, going_on = dict(self.stages), dict(self._open)
        for name, began in going_on.items():
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
        return seconds

    def split(self, name: str, rest: str, seconds: float) -> None:
        """Show `seconds` of stage `name` as a stage of their own, `rest`: that they were something else is known only afterwards."""
        self.stages[name] -= seconds
        self.stages[rest] = self.stages.get(rest, 0.0) + seconds

    def note(self, worker: str, tokens: int, spent: dict[str, float]) -> None:
        """Add a shard to its model process. `spent`: seconds of each of STEPS."""
        known = self.workers.setdefault(worker, dict.fromkeys(("shards", "tokens", *STEPS), 0))
        for name, value in {"shards": 1, "tokens": tokens, **spent}.items():
            known[name] += value

    def to_dict(self) -> dict[str, Any]:
        """As a result keeps it: `waited` is the share of the embedding's time in which a process' model did nothing."""
        embedding = self.stages.get("embed", 0.0)
        workers = [
            {"worker": name, **spent, "waited": max(0.0, 1 - spent["model"] / embedding) if embedding else 0.0}
            for name, spent in self.workers.items()
        ]
        return {"how": self.how, "stages": self.stages, "workers": workers}
