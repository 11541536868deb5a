"""The command line of a model change: judge, compare, bridge, promote, roll back."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from flows.cli import remote
from flows.cli.options import MODELS, Cluster, Config, Detach, Json, Name, NameRequired, RunId, StoreOption, Why
from flows.show.output import put

if TYPE_CHECKING:
    pass


commands = typer.Typer()


@commands.command(
    epilog="Examples: revector evaluate docs; revector evaluate docs 1f0c --json | jq '.gates[] | select(.passed | not)'",
    rich_help_panel=MODELS,
)
def evaluate(
    name: NameRequired,
    generation: Annotated[str, typer.Argument(metavar="[GENERATION]", help="As `revector status` lists it.")] = "published",
    config: Config = None,
    store: StoreOption = None,
    json: Json = False,
    run_id: RunId = None,
    cluster: Cluster = None,
    detach: Detach = False,
) -> NoReturn:
    """Hold a version against all gates in full, and keep what they found; exits 3 if one fails.

    GENERATION: its name, a beginning of the name's last part, or "published".
    """
    from flows import commands
    from flows.show import side_by_side

    if cluster or detach:
        remote.send(remote.order("evaluate", name, config, store, [generation]), cluster, detach, run_id, json)
    made = commands.evaluate(name, generation, config, store=store, run_id=run_id)
    put(json, {**asdict(made), "passed": made.passed}, lambda: side_by_side.evaluation(made))
    raise typer.Exit(0 if made.passed else 3)


@commands.command(
    epilog="Examples: revector compare docs published 1f0c; revector compare docs 8a2e 1f0c --json | jq .overlap", rich_help_panel=MODELS
)
def compare(
    name: NameRequired,
    a: Annotated[str, typer.Argument(metavar="A", help="A generation.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    config: Config = None,
    store: StoreOption = None,
    json: Json = False,
) -> None:
    """Two generations side by side: their measures, what they share, and the queries that changed most.

    A, B: a name as `revector status` lists it, a beginning of the name's last part, or "published".
    """
    from flows import commands
    from flows.show import side_by_side

    made = commands.compare(name, a, b, config, store=store)
    put(json, made, lambda: side_by_side.comparison(made))


@commands.command(epilog="Example: revector bridge docs && revector search docs 'how do I undo a release' --bridge", rich_help_panel=MODELS)
def bridge(name: NameRequired, config: Config = None, store: StoreOption = None, json: Json = False) -> NoReturn:
    """Let queries of the spec's model search what is published, while its own vectors are still being made.

    Learns a map from the new model's space into the published one from a few thousand stored contents, and keeps the best of three
    kinds if the searches it makes are near enough to the published model's own (gates.min_bridge_recall); exits 3 if none is. May run
    beside apply. [bold]revector search --bridge[/bold] and open_published(...).bridge(space) use it."""
    from flows import commands
    from flows.show import render_bridge
    from flows.show.progress import progress

    with progress() as report:
        made = commands.bridge(name, config, store=store, report=report)
    put(json, made, lambda: render_bridge.bridge(made))
    raise typer.Exit(made.exit_code)


@commands.command(epilog="Example: revector promote docs docs.vectors.1f0c2b3a9d4e --why 'better on German'", rich_help_panel=MODELS)
def promote(
    name: NameRequired,
    generation: Annotated[str, typer.Argument(metavar="GENERATION", help="As `revector status` lists it, or how its last part begins.")],
    why: Why = "",
    force: Annotated[bool, typer.Option("--force", help="Also if it failed its gates, or is behind what readers have.")] = False,
    config: Config = None,
    store: StoreOption = None,
    json: Json = False,
) -> None:
    """Publish another generation, which a run has finished: one move of a pointer. It stays published until a person decides otherwise."""
    from flows import commands
    from flows.show import terminal

    moved = commands.promote(name, generation, config, store=store, why=why, force=force)
    put(json, moved, lambda: terminal.moved(moved))


@commands.command(epilog="Example: revector rollback docs --why 'bad import of 2026-03-02'", rich_help_panel=MODELS)
def rollback(name: Name = None, why: Why = "", config: Config = None, store: StoreOption = None, json: Json = False) -> None:
    """Publish again what was published before: one move of a pointer, nothing is rewritten."""
    from flows import commands
    from flows.show import terminal

    moved = commands.rollback(name, config, store=store, why=why)
    put(json, moved, lambda: terminal.moved(moved))
