"""The actors of a run: where they are, how long they have been there, and what befell them."""

import time
from dataclasses import dataclass, field

from pipelines.logs import log
from workers.observing.costs import MachineTime


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an actor says once its model is loaded."""

    how: str
    """The model runs, in a line for people: "packed, float32"."""
    host: str
    gpus: tuple[str, ...]
    """That it sees, by name."""
    seconds: float
    """Since its process began."""


@dataclass(frozen=True, slots=True)
class NodeUse:
    """What a run had of a node."""

    node: str
    """Ray's id."""
    host: str
    gpus: list[str]
    """That its actors saw, by name."""
    actors: int
    """One after another or at once."""
    actor_seconds: float
    """Together, from the beginning of their processes to their end."""


@dataclass(eq=False, slots=True)
class Stay:
    """One actor, from its beginning to its end."""

    gpus: float
    """That it holds."""
    since: float = field(default_factory=time.monotonic)
    until: float | None = None
    node: str | None = None
    """Known once the model is loaded, or cannot be."""
    loaded: Loaded | None = None

    @property
    def seconds(self) -> float:
        """That it has been on its node; nothing while that is not known, for it may be waiting for a place."""
        return (self.until or time.monotonic()) - self.since if self.node else 0.0

    def begin(self, node: str | None, loaded: Loaded) -> None:
        """Its model is loaded. From the beginning of its process on it counts as held: before, it may have waited for a place."""
        self.node, self.loaded = node or loaded.host, loaded
        self.since = max(self.since, time.monotonic() - loaded.seconds)
        log("actor started", node=self.node, host=loaded.host, gpus=list(loaded.gpus), how=loaded.how, seconds=loaded.seconds)

    def end(self) -> None:
        """The machine is free again. Only the first call counts."""
        self.until = self.until or time.monotonic()


class Workforce:
    """All actors that a run has had. Filled by the pool, read by others while that goes on."""

    def __init__(self) -> None:
        self.stays: list[Stay] = []
        self.replaced = 0
        """Actors that died, hung or did not load the model."""
        self.requeued = 0
        """Shards that were put back, whole or in halves."""
        self.in_flight = 0
        """Shards that actors have."""

    def hire(self, gpus: float) -> Stay:
        """Enter an actor that was asked for. It holds nothing before its node is known."""
        self.stays.append(Stay(gpus))
        return self.stays[-1]

    @property
    def alive(self) -> int:
        """Actors that have the model."""
        return sum(stay.loaded is not None and stay.until is None for stay in list(self.stays))

    def held(self) -> MachineTime:
        """By all actors so far: each has a core for itself, and its part of the GPUs."""
        return sum((MachineTime(stay.seconds, stay.seconds * stay.gpus) for stay in list(self.stays)), MachineTime())

    def nodes(self) -> list[NodeUse]:
        """What the run had of each node, in the order in which it came there."""
        by_node: dict[str, list[Stay]] = {}
        for stay in self.stays:
            if stay.node:
                by_node.setdefault(stay.node, []).append(stay)
        return [_use(node, stays) for node, stays in by_node.items()]


def _use(node: str, stays: list[Stay]) -> NodeUse:
    loaded = [stay.loaded for stay in stays if stay.loaded]
    gpus = sorted({name for actor in loaded for name in actor.gpus})
    return NodeUse(node, loaded[0].host if loaded else "", gpus, len(stays), sum(stay.seconds for stay in stays))
