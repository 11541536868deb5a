"""A gate: a measured value beside the threshold that it is held against."""

from dataclasses import dataclass
from typing import Literal

NAMED_ROWS = 20
"""Chunk ids that a gate names."""

GateKind = Literal["hard", "promotion", "information"]


@dataclass(frozen=True, slots=True)
class Gate:
    """One check of a version, and what it found."""

    name: str
    kind: GateKind
    """"hard": the version is broken. "promotion": it is worse than it may be. "information": nothing depends on it."""
    value: float | None
    """What was measured; None if it was not, and `detail` says why."""
    threshold: float | None
    """What `value` was held against."""
    passed: bool
    detail: str
    """One line for a person."""
    rows: tuple[str, ...] = ()
    """Chunk ids that made it fail, at most 20."""


def unmeasured(name: str, kind: GateKind, threshold: float | None, why: str) -> Gate:
    """Said aloud: it passes because there is nothing against it, not because it was looked at."""
    return Gate(name, kind, None, threshold, True, why)
