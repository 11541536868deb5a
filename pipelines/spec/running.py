"""How a collection is run, as declared: actors, schedules, where flows go, prices. None of it decides a vector."""

import re
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator

from pipelines.spec.keys import SpecTable

Precision = Literal["auto", "float32", "bfloat16"]


VARIABLE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
"""How a spec names a variable of the environment whose value must not stand in it."""
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
LABEL_KEY = re.compile(rf"(?:[a-z0-9.-]{{1,253}}/)?{_WORD}")
LABEL_VALUE = re.compile(rf"!?(?:{_WORD}|in\({_WORD}(?:,{_WORD})*\))")
"""What Ray takes of a label selector."""


class WorkersSpec(SpecTable):
    """Who does it. Nothing here changes a vector."""

    actors: int | None = Field(default=None, ge=1)
    """Model processes; left out: as many as the cluster has GPUs for, and without GPUs one a core, at most four."""
    gpus_per_actor: float = Field(default=0, ge=0)
    """GPUs that each model process gets: whole ones, or a part of one that several share. 0: it works on processors."""
    label: dict[str, str] = Field(default_factory=dict)
    """Ray labels that the node of a model process must have: `"a"`, `"!a"`, `"in(a,b)"` or `"!in(a,b)"`."""
    precision: Precision = "auto"
    """Of the model's matrix products; `auto`: bfloat16 where the processor has it and the vectors stay the same within tolerance."""
    batch_tokens: int | None = Field(default=None, ge=8)
    """The most tokens of one forward pass, padding counted; left out: what suits the device."""
    deadline: float = Field(default=600, gt=0)
    """Seconds that a model process may take for one shard. After that it counts as hung and is replaced."""
    ready: float = Field(default=300, gt=0)
    """Seconds that a model process may take to find a place on a node and to load the model."""

    @field_validator("gpus_per_actor")
    @classmethod
    def _part_or_whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"expected a part of one GPU or whole ones, found {gpus:g}")
        return gpus

    @field_validator("label")
    @classmethod
    def _selectable(cls, label: dict[str, str]) -> dict[str, str]:
        for key, value in label.items():
            if key == "ray.io/node-id":
                raise ValueError(f"expected a label that outlives a cluster, found {key!r}: start nodes with a label of their own")
            if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
                raise ValueError(f'expected a Ray label and "a", "!a", "in(a,b)" or "!in(a,b)", found {key!r} = {value!r}')
        return label


def as_sync(value: Any) -> Any:
    return {"sync": value} if isinstance(value, str) else value


class ScheduleSpec(SpecTable):
    """When the collection's flows start by themselves: cron expressions like `"0 3 * * *"`. What is left out never does."""

    sync: str | None = None
    """Brings the collection up to date."""
    upgrade: str | None = None
    """Builds and judges its candidates."""
    maintain: str | None = None
    """Compacts its tables, and removes what `retention` gives up."""
    evaluate: str | None = None
    """Holds what readers have against all gates again."""
    report: str | None = None
    """Makes the reports of what readers have; a sync makes them anyway."""
    timezone: str = "UTC"
    """Of all of them, by its IANA name: `Europe/Berlin`."""
    paused: bool = False
    """Whether flows are deployed but do not start by themselves, on a schedule or by an event."""

    @field_validator("sync", "upgrade", "maintain", "evaluate", "report")
    @classmethod
    def _cron(cls, expression: str | None) -> str | None:
        if expression is not None:
            try:
                CronSim(expression, datetime(2000, 1, 1))
            except CronSimError as error:
                raise ValueError(f'expected a cron expression like "0 3 * * *", found {expression!r}: {error}') from None
        return expression

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f'expected a time zone like "Europe/Berlin", found {name!r}') from None
        return name


class RunSpec(SpecTable):
    """Where runs that nobody types are started."""

    pool: str = "revector"
    """The work pool of Prefect that takes the flow runs."""
    cluster: str | None = None
    """The address of a Ray cluster's Jobs API, `http://host:8265`, which then does the work; left out: the machine of the flow."""
    image: str | None = None
    """The container image of manifests that `render` writes, with its tag or digest."""


class MartsSpec(SpecTable):
    """Where else the small tables go that each run leaves in the store, for tools that ask in SQL."""

    postgres: str | None = None
    """`"env:NAME"`: the variable whose value is the database's address, `postgresql://user:password@host/database`. The tables lie there in
    a schema `revector` of their own. Left out: they are in the store only.
    """

    @field_validator("postgres")
    @classmethod
    def _by_name(cls, named: str | None) -> str | None:
        if named is not None and not VARIABLE.fullmatch(named):
            raise ValueError('expected "env:NAME", a variable that has the address, found something else: an address may have a password')
        return named


class PricesSpec(SpecTable):
    """What work costs, for plans and records."""

    gpu_hour: float = Field(default=0, ge=0)
    """Price of one GPU for an hour."""
    cpu_hour: float = Field(default=0, ge=0)
    """Price of one core for an hour."""
    currency: str = "USD"
    """Of all of them: a name that is shown, nothing is converted."""
    monthly: float | None = Field(default=None, gt=0)
    """What the runs of a month may cost: shown beside what they did; nothing is stopped by it."""
