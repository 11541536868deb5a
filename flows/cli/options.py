"""What the commands have in common: their options, as the nouns that these make, and how a result is shown."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from flows.request import Request
from flows.show.output import put
from storage.who import check_run_id

MODELS = "Models"
REPORTS = "Reports"
UPKEEP = "Upkeep"
ELSEWHERE = "Runs elsewhere"
BY_ITSELF = "By itself"
"""Panels of the help."""

Name = Annotated[str | None, typer.Argument(metavar="NAME", help="The collection; may be left out if the spec has only one.")]
NameRequired = Annotated[str, typer.Argument(metavar="NAME", help="The collection.")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="The spec. (default: $REVECTOR_CONFIG or revector.toml)")]
StoreOption = Annotated[str | None, typer.Option("--store", help="Folder or s3:// URI, instead of $REVECTOR_STORE and the spec's.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Why = Annotated[str, typer.Option("--why", help="For the history: the reason.")]
AllowRemoval = Annotated[
    bool, typer.Option("--allow-removal", help="However many documents go, and if no file is found any more (gates.max_removed).")
]
RunId = Annotated[str | None, typer.Option("--run-id", hidden=True, help="Of whoever submits the run; sorts by time.")]

Cluster = Annotated[
    str | None,
    typer.Option("--cluster", metavar="URL", help="Run it as a job on the Ray cluster whose Jobs API is there: http://host:8265."),
]
Detach = Annotated[bool, typer.Option("--detach", help="With --cluster: submit it, and leave it there.")]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command finds what it is about."""

    config: Config = None
    store: StoreOption = None

    def request(self, name: str | None = None) -> Request:
        return Request(name, self.config, self.store)


@dataclass(frozen=True, slots=True)
class Call(Place):
    """The same, and to whom the command answers: a program or a person."""

    json: Json = False

    def answer(self, value: Any, show: Callable[[], None]) -> None:
        """`value` as one JSON object on stdout, or what `show` writes."""
        put(self.json, value, show)


@dataclass(frozen=True, slots=True)
class Sending:
    """Where a run goes, and under which id."""

    run_id: RunId = None
    cluster: Cluster = None
    detach: Detach = False

    def __post_init__(self) -> None:
        if self.run_id is not None:
            check_run_id(self.run_id)

    @property
    def away(self) -> bool:
        return bool(self.cluster or self.detach)


R = TypeVar("R")


def with_options(command: Callable[..., R]) -> Callable[..., R]:
    """The command as typer takes it: each parameter that is one of the nouns above is replaced by the options that make it."""
    parameters = signature(command).parameters
    nouns: dict[str, Any] = {name: parameter.annotation for name, parameter in parameters.items() if is_dataclass(parameter.annotation)}
    flat = [option for parameter in parameters.values() for option in _options(parameter)]

    @wraps(command)
    def taking_options(**values: Any) -> R:
        made = {name: noun(**{field.name: values.pop(field.name) for field in fields(noun)}) for name, noun in nouns.items()}
        return command(**values, **made)

    taking_options.__signature__ = Signature(flat)  # type: ignore[attr-defined]
    taking_options.__annotations__ = {option.name: option.annotation for option in flat}
    return taking_options


def _options(parameter: Parameter) -> Iterator[Parameter]:
    if not is_dataclass(parameter.annotation):
        yield parameter
        return
    for field in fields(parameter.annotation):
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
