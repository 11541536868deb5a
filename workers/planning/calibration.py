"""What earlier runs of a collection tell about speed and cost."""

import itertools
from dataclasses import dataclass
from typing import Any

from storage.history.ledger import runs
from workers.embedding.work import CODE_POINTS_A_TOKEN
from workers.observing.costs import MachineTime
from workers.planning.target import Target

CALIBRATION_RUNS = 20


@dataclass(frozen=True, slots=True)
class Calibration:
    """What earlier runs of this space measured."""

    tokens_per_second: float | None
    """Of a whole run."""
    code_points_a_token: float
    held: dict[str, MachineTime] | None = None
    """What each stage of that run held, for a token; None if it did not tell."""


def calibrate(target: Target) -> Calibration:
    """From the largest of the newest runs of this space: small ones measure the start-up."""
    newest = itertools.islice(reversed(runs(target.collection)), CALIBRATION_RUNS)
    records = [record for run in newest if (record := run.read("result.json")) and "generations" in record]
    filled = [(made, record) for record in records for made in record["generations"] if made["space"] == target.model.space.id]
    largest, record = max(filled, key=lambda pair: int(pair[0]["embed"]["tokens"]), default=(None, {}))
    if largest is None or not largest["embed"]["tokens"]:
        return Calibration(None, CODE_POINTS_A_TOKEN)
    return Calibration(largest["tokens_per_second"], largest["code_points_a_token"], _held(record))


def _held(record: dict[str, Any]) -> dict[str, MachineTime] | None:
    """What each stage of a run held for one token through a model; None if its record does not say."""
    stages, tokens = record["profile"].get("held"), record["embed"]["tokens"]
    return {stage: MachineTime(**held).times(1 / tokens) for stage, held in stages.items()} if stages else None
