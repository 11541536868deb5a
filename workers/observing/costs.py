"""What a run costs: the cores and GPUs that it held, used or not, by the prices of the spec. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.spec.running import PricesSpec

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class MachineTime:
    """Machine time that nobody else could use."""

    cpu_seconds: float = 0.0
    """Of one core."""
    gpu_seconds: float = 0.0
    """Of one GPU."""

    def __add__(self, other: "MachineTime") -> "MachineTime":
        return MachineTime(self.cpu_seconds + other.cpu_seconds, self.gpu_seconds + other.gpu_seconds)

    def times(self, factor: float) -> "MachineTime":
        """Scaled: what one token held, times the tokens of another run."""
        return MachineTime(self.cpu_seconds * factor, self.gpu_seconds * factor)

    def amount(self, prices: PricesSpec) -> float:
        """Money, in the currency of `prices`, which are per hour."""
        return (self.cpu_seconds * prices.cpu_hour + self.gpu_seconds * prices.gpu_hour) / HOUR


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run cost, or would cost, in `currency`."""

    total: float
    stages: dict[str, float]
    """Of each stage; together the total."""
    currency: str


def cost(held: Mapping[str, MachineTime], prices: PricesSpec) -> Cost | None:
    """Of what each stage held. None without prices: nobody knows, which is not for nothing."""
    if not known(prices):
        return None
    stages = {stage: machine_time.amount(prices) for stage, machine_time in held.items()}
    return Cost(sum(stages.values()), stages, prices.currency)


def known(prices: PricesSpec) -> bool:
    """Whether the spec has any price. Without one a cost is not known, which is another thing than nothing."""
    return bool(prices.cpu_hour or prices.gpu_hour)
