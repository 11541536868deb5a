"""What a run tells while it goes on, and what it leaves behind."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pipelines.measures.gate import Gate
from workers.observing.costs import Cost
from workers.observing.workforce import NodeUse

if TYPE_CHECKING:  # they bring pyarrow and lance, which takes time where nothing is asked of them
    from pipelines.content.documents import DeadLetter

Change = Literal["none", "data", "chunking", "model", "metadata"]
Stage = Literal["read", "reuse", "embed", "index", "gates", "publish", "compact", "clean up", "check", "map", "place", "report"]
Role = Literal["main", "served", "candidate"]
"""Of a live generation. `main`: what a run publishes. `served`: what readers have until then. `candidate`: kept beside them."""
Status = Literal["published", "partial", "built", "pinned", "nothing"]
"""`partial`: published, with dead letters. `built`: a gate failed. `pinned`: a rollback keeps readers where they are."""


ALL_READ = {"contents": 0, "tokens": 0}
"""What a model did not read of texts, where it read them whole."""


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
class LiveGeneration:
    """One of those that a run brings up to date, and what that takes."""

    generation: str
    model: str
    """By the name that the spec gives it."""
    space: str
    """The space's id."""
    role: Role
    embed: dict[str, int]
    """`contents`: forward passes; `chunks` that they serve; `tokens`."""
    reuse: dict[str, int]
    """`chunks` that take a stored vector."""


@dataclass(frozen=True, slots=True)
class PlannedGeneration(LiveGeneration):
    """A generation before a run, and what would be done for it; `tokens` are estimated."""

    seconds: float | None
    """Estimated from earlier runs; None before the first."""
    pending: bool


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
    """Of all live generations together. `contents`: forward passes; `chunks` that they serve; `tokens`, estimated."""
    reuse: dict[str, int]
    dead_letters: int
    seconds: float | None
    """Estimated from earlier runs; None before the first."""
    pinned: dict[str, Any] = field(default_factory=dict)
    """Listing, table versions and identities that the plan was made for."""
    pending: bool = False
    """Whether there is anything to do."""
    identity: dict[str, list[Any]] = field(default_factory=dict)
    """What differs from what readers have: its name, then before and after."""
    generations: list[PlannedGeneration] = field(default_factory=list)
    """All that are kept current, in the order in which they are brought up to date."""
    notes: list[str] = field(default_factory=list)
    """For a person: what is not as one would expect."""
    cost: Cost | None = None
    """Estimated from earlier runs, by the prices of the spec; None before the first, and without prices."""
    pin: Any = None
    """What a rollback keeps readers on: a `Pin` of `storage.history.decisions`, which is not imported for it; None without one."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Files that are not read, as no format is known for them, by suffix."""
    reasons: list["DeadLetter"] = field(default_factory=list)
    """The most frequent reasons of dead letters: the first letter of each, and the count of all."""
    failed: dict[str, int] = field(default_factory=dict)
    """`documents` that cannot be read, a lost file by what is in it; `stale`: of these, readers keep an older form; `of` so many."""
    unread: dict[str, int] | None = None
    """`tokens` beyond the longest input of a model, and of how many `contents`; None: not known before they are embedded."""


@dataclass(frozen=True, slots=True)
class BuiltGeneration(LiveGeneration):
    """A generation after a run, and what became of it."""

    status: Status
    version: int
    tokens_per_second: float
    code_points_a_token: float | None
    gates: list[Gate]
    lacking: tuple[int, int, int] | None = None
    """The checksum of the rows that have no vector, where all of them are excused."""
    unread: dict[str, int] = field(default_factory=lambda: dict(ALL_READ))
    """`tokens` beyond the longest input of the model, and of how many `contents` that went through it."""

    @property
    def objection(self) -> str:
        """Why it must not be published, or nothing."""
        return "; ".join(f"{gate.name}: {gate.detail}" for gate in self.gates if not gate.passed)


@dataclass(frozen=True, slots=True)
class Result:
    """What an `apply` did, also one that found nothing to do and began no run."""

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
    status: Status
    version: int | None
    """Of the vectors table."""
    dead_letters: int
    seconds: dict[str, float]
    tokens_per_second: float
    reason: str = ""
    """Why it was not published."""
    profile: dict[str, Any] = field(default_factory=dict)
    """Where the time went: `how` the model ran, seconds of the driver's `stages`, of each of the `workers`, and what each stage `held`."""
    nodes: list[NodeUse] = field(default_factory=list)
    """Of a cluster, that actors ran on."""
    cost: Cost | None = None
    """By the prices of the spec; None without prices."""
    gates: list[Gate] = field(default_factory=list)
    """What the generation was judged by."""
    identity: dict[str, list[Any]] = field(default_factory=dict)
    """What differed from what readers had: its name, then before and after."""
    generations: list[BuiltGeneration] = field(default_factory=list)
    """All that were brought up to date."""
    unread: dict[str, int] = field(default_factory=lambda: dict(ALL_READ))
    """`tokens` that no vector says anything of, for they are beyond the longest input of a model, and of how many `contents`."""
    notes: list[str] = field(default_factory=list)
    """For a person: what is not as one would expect."""
    pin: Any = None
    """What a rollback keeps readers on: a `Pin` of `storage.history.decisions`, which is not imported for it; None without one."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Files that are not read, as no format is known for them, by suffix."""
    failed: dict[str, int] = field(default_factory=dict)
    """`documents` that could not be read or embedded, a lost file by what is in it; `stale`: of these, readers keep an older form; `of`."""
    reports: dict[str, str] = field(default_factory=dict)
    """What became of those that the spec declares: `made`, `kept` as they were, `beyond its limit`, or what was in the way."""

    @property
    def outcomes(self) -> dict[str, str]:
        """Of reports."""
        return self.reports

    @property
    def exit_code(self) -> int:
        """Of the command line: 0 done, 3 a gate failed, 4 published with dead letters."""
        if self.status == "built":
            return 3
        return 4 if self.dead_letters else 0
