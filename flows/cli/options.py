"""What the commands have in common: their options, and how a result is shown."""

from pathlib import Path
from typing import Annotated

import typer

MODELS = "Models"
UPKEEP = "Upkeep"
ELSEWHERE = "Runs elsewhere"
BY_ITSELF = "By itself"
"""Panels of the help."""

Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="The collection; may be left out if the spec has only one.")]
NameRequired = Annotated[str, typer.Argument(metavar="NAME", help="The collection.")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="The spec. (default: $REVECTOR_CONFIG or revector.toml)")]
StoreOption = Annotated[str | None, typer.Option("--store", help="Folder or s3:// URI, instead of $REVECTOR_STORE and the spec's.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Why = Annotated[str, typer.Option("--why", help="For the history: the reason.")]
RunId = Annotated[str | None, typer.Option("--run-id", hidden=True, help="Of whoever submits the run; sorts by time.")]

Cluster = Annotated[
    str | None,
    typer.Option("--cluster", metavar="URL", help="Run it as a job on the Ray cluster whose Jobs API is there: http://host:8265."),
]
Detach = Annotated[bool, typer.Option("--detach", help="With --cluster: submit it, and leave it there.")]
