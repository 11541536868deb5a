"""What a run tells while it goes on, and what it leaves behind."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Change = Literal["none", "data", "chunking", "model", "metadata"]
Stage = Literal["read", "reuse", "embed", "index", "publish"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a run."""

    stage: Stage
    documents: int = 0
    """Read so far."""
    chunks: int = 0
    """Written so far, with a vector."""
    total: int | None = None
    """Chunks to write; None while that is not known."""
    tokens: int = 0
    """Through the model so far."""
    tokens_per_second: float = 0.0
    reused: int = 0
    """Chunks among those written that took a stored vector or shared a forward pass."""
    seconds_left: float | None = None


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """A Report that tells nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done, and to exactly which state."""

    collection: str
    generation: str
    space: str
    change: Change
    reason: str
    """For a person: what the kind of change was read off."""
    documents: dict[str, int]
    chunks: dict[str, int]
    files: dict[str, int]
    embed: dict[str, int]
    """`contents`: forward passes; `chunks` that they serve; `tokens`, estimated."""
    reuse: dict[str, int]
    dead_letters: int
    seconds: float | None
    """Estimated from earlier runs; None before the first."""
    pinned: dict[str, Any] = field(default_factory=dict)
    """Listing, table versions and identities that the plan was made for."""
    pending: bool = False
    """Whether there is anything to do."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a run did."""

    collection: str
    generation: str
    space: str
    change: Change
    documents: dict[str, int]
    chunks: dict[str, int]
    embed: dict[str, int]
    reuse: dict[str, int]
    run_id: str | None
    """None: there was nothing to do, and no run was begun."""
    status: Literal["published", "partial", "built", "nothing"]
    version: int | None
    """Of the vectors table."""
    dead_letters: int
    seconds: dict[str, float]
    tokens_per_second: float
    reason: str = ""
    """Why it was not published."""
    profile: dict[str, Any] = field(default_factory=dict)
    """Where the time went: `how` the model ran, seconds of the driver's `stages`, and of each of the `workers`."""

    @property
    def exit_code(self) -> int:
        """As the command line ends."""
        if self.status == "built":
            return 3
        return 4 if self.dead_letters else 0
