"""What a model runs on."""

from dataclasses import dataclass

from pipelines.spec.running import Precision


@dataclass(frozen=True, slots=True)
class Machine:
    """What a model runs on, and how. None of it moves a vector by more than the tolerance of its precision."""

    device: str = "cpu"
    """torch's name for it."""
    threads: int | None = None
    """Of torch, on a processor; None: torch decides."""
    precision: Precision = "auto"
    """Of the matrix products; "auto": bfloat16 where the device has it natively and the vectors stay the same within tolerance."""
    batch_tokens: int | None = None
    """Tokens of one forward pass, padding counted; None: what suits the device."""


PROCESSOR = Machine()
"""The processor of this machine, as torch finds it."""
