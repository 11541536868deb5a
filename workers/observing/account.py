"""What a run has done and spent so far: counted while it goes on, told to whoever follows it, and kept in its record."""

import os
import time
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from pipelines.spec.running import PricesSpec
from workers.observing.costs import Cost, MachineTime, cost
from workers.observing.profile import Profile
from workers.observing.telling import ALL_READ, Progress, Report, Stage, silent
from workers.observing.workforce import Workforce

FOR_NOTHING = PricesSpec()


@dataclass
class Tally:
    """What a run has done so far for one generation."""

    contents: int = 0
    """Forward passes."""
    embedded: int = 0
    """Chunks that they served."""
    reused: int = 0
    """Chunks that took a stored vector."""
    tokens: int = 0
    code_points: int = 0
    """Of the texts that went through the model."""
    unread: dict[str, int] = field(default_factory=lambda: dict(ALL_READ))
    """`tokens` of them that it did not read, and of how many `contents`."""
    total: int | None = None
    """Chunks that must get a vector."""
    failed: dict[str, str] = field(default_factory=dict)
    """Chunk ids that could not be embedded, and why."""
    failed_documents: set[bytes] = field(default_factory=set)
    """Keys of the documents that these are of."""
    seconds: float = 0.0
    """Wall time of filling and indexing."""


class Account:
    """Of one run. Written by its main thread; the heartbeat and the metrics read it from theirs."""

    def __init__(self, report: Report = silent, prices: PricesSpec = FOR_NOTHING, alone: bool = True) -> None:
        """`alone`: the run has a machine for itself, so all cores of it count, busy or not."""
        self.profile = Profile()
        self.workforce = Workforce()
        self.tasks = MachineTime()
        """Of tasks on a cluster that read the corpus."""
        self.change = ""
        """The kind of change that the run brings."""
        self.documents = 0
        """Read so far."""
        self.shard_numbers = count()
        self.tallies: list[Tally] = []
        """Of the generations that were begun."""
        self.began = time.monotonic()
        self.moment: Progress | None = None
        """The last that was reported."""
        self.speed = 0.0
        """Tokens per second of the last generation that went through the model."""
        self.embedding_since: float | None = None
        """When the first shard of the present generation began: models take long to load, and that says nothing of the speed."""
        self._report = report
        self._prices = prices
        self._alone = alone

    def begin_generation(self) -> Tally:
        """Count for another generation from here on."""
        self.embedding_since = None
        self.tallies.append(Tally())
        return self.tallies[-1]

    def held(self) -> dict[str, MachineTime]:
        """What each stage has held so far: on a machine of its own all cores, on a cluster one, and what its actors and tasks have."""
        alone, actors = self._alone, self.workforce.held()
        stages = self.profile.so_far()
        stages["other"] = max(0.0, time.monotonic() - self.began - sum(stages.values()))
        held = {stage: MachineTime(seconds * (_usable_cores() if alone else 1)) for stage, seconds in stages.items()}
        held["embed"] = held.get("embed", MachineTime()) + (MachineTime(0.0, actors.gpu_seconds) if alone else actors)
        held["read"] = held.get("read", MachineTime()) + (MachineTime() if alone else self.tasks)
        return held

    def cost(self) -> Cost | None:
        """Of what the run has held so far, by the prices of the spec; None without prices."""
        return cost(self.held(), self._prices)

    def spent(self) -> dict[str, Any]:
        """What the run took so far, for the record: `seconds`, `profile`, `nodes` and `cost`."""
        model = sum(worker["model"] for worker in self.profile.workers.values())
        return {
            "seconds": {"total": time.monotonic() - self.began, "model": model},
            "profile": {**self.profile.to_dict(), "held": self.held()},
            "nodes": self.workforce.nodes(),
            "cost": self.cost(),
        }

    def tell(self, stage: Stage) -> None:
        """Report where the run is: of several generations, in the present one."""
        tally = self.tallies[-1] if self.tallies else Tally()
        elapsed = time.monotonic() - self.embedding_since if self.embedding_since else 0.0
        done = tally.embedded + tally.reused
        rate = tally.tokens / elapsed if elapsed else 0.0
        left = None
        if stage == "embed" and tally.total is not None and tally.embedded:
            left = elapsed / tally.embedded * (tally.total - done)
        shared = tally.reused + max(0, tally.embedded - tally.contents)
        if stage == "embed" and rate:
            self.speed = rate
        self.moment = Progress(stage, self.documents, done, tally.total, tally.tokens, rate, shared, left)
        self._report(self.moment)


def _usable_cores() -> int:
    """Cores of this machine that this process may use: a container or `taskset` may leave it fewer than there are."""
    return len(os.sched_getaffinity(0))
