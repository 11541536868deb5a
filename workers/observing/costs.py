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
        """So many times as much."""
        return MachineTime(self.cpu_seconds * factor, self.gpu_seconds * factor)

    def amount(self, prices: PricesSpec) -> float:
        """In the currency of `prices`."""
        return (self.cpu_seconds * prices.cpu_hour + self.gpu_seconds * prices.gpu_hour) / HOUR


@dataclass(frozen=True, slots=True)
class Cost:
    """Money."""

    total: float
    stages: dict[str, float]
    """Of each stage; together the total."""
    currency: str


def cost(held: Mapping[str, MachineTime], prices: PricesSpec) -> Cost | None:
    """Of what each stage held. None without prices: nobody knows, which is not for nothing."""
    if not known(prices):
        return None
    stages = {stage: each.amount(prices) for stage, each in held.items()}
    return Cost(sum(stages.values()), stages, prices.currency)


def known(prices: PricesSpec) -> bool:
    """Whether the spec has prices."""
    return bool(prices.cpu_hour or prices.gpu_hour)
