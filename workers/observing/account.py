"""What a run has spent and done so far."""

import os
from dataclasses import dataclass, field

from pipelines.spec.running import PricesSpec

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
    total: int | None = None
    """Chunks that must get a vector."""
    failed: dict[str, str] = field(default_factory=dict)
    """Chunk ids that could not be embedded, and why."""
    seconds: float = 0.0
    """That it took."""


def usable_cores() -> int:
    """Of this machine, that this process may use."""
    return len(os.sched_getaffinity(0))
