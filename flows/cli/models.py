"""The command line of a model change: judge, compare, bridge, promote, roll back."""

from dataclasses import asdict
from typing import Annotated, NoReturn

import typer

from flows.cli import remote
from flows.cli.options import MODELS, Call, Name, NameRequired, Sending, Why, with_options

commands = typer.Typer()


@commands.command(
    epilog="Examples: revector evaluate docs; revector evaluate docs 1f0c --json | jq '.gates[] | select(.passed | not)'",
    rich_help_panel=MODELS,
)
@with_options
def evaluate(
    name: NameRequired,
    generation: Annotated[
        str, typer.Argument(metavar="GENERATION", help="As `revector status` lists it, or how its last part begins.")
    ] = "published",
    *,
    call: Call,
    sending: Sending,
) -> NoReturn:
    """Hold a version against all gates in full, and keep what they found; exits 3 if one fails.

    GENERATION: its name, a beginning of the name's last part, or "published".
    """
    from flows import commands
    from flows.show import verdicts

    if sending.away:
        remote.send(remote.order("evaluate", call.request(name), [generation]), call, sending)
    made = commands.evaluate(name, generation, call.config, store=call.store, run_id=sending.run_id)
    call.answer({**asdict(made), "passed": made.passed}, lambda: verdicts.evaluation(made))
    raise typer.Exit(0 if made.passed else 3)


@commands.command(
    epilog="Examples: revector compare docs published 1f0c; revector compare docs 8a2e 1f0c --json | jq .overlap", rich_help_panel=MODELS
)
@with_options
def compare(
    name: NameRequired,
    a: Annotated[str, typer.Argument(metavar="A", help="A generation.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    *,
    call: Call,
) -> None:
    """Two generations side by side: their measures, what they share, and the queries that changed most.

    A, B: a name as `revector status` lists it, a beginning of the name's last
    part, or "published".
    """
    from flows import commands
    from flows.show import verdicts

    made = commands.compare(name, a, b, call.config, store=call.store)
    call.answer(made, lambda: verdicts.comparison(made))


@commands.command(epilog="Example: revector bridge docs && revector search docs 'how do I undo a release' --bridge", rich_help_panel=MODELS)
@with_options
def bridge(name: NameRequired, *, call: Call) -> NoReturn:
    """Let queries of the spec's model search what is published, while its own vectors are still being made.

    Learns a map from the new model's space into the published one from a few
    thousand stored contents, and keeps the better of two kinds if the searches it
    makes are near enough to the published model's own (gates.min_bridge_recall);
    exits 3 if none is. May run beside apply. [bold]revector search --bridge[/bold] and
    open_published(...).bridge(space) use it.
    """
    from flows import commands
    from flows.show import verdicts
    from flows.show.progress import progress

    with progress() as report:
        made = commands.bridge(name, call.config, store=call.store, report=report)
    call.answer(made, lambda: verdicts.bridge(made))
    raise typer.Exit(made.exit_code)


@commands.command(epilog="Example: revector promote docs docs.vectors.1f0c2b3a9d4e --why 'better on German'", rich_help_panel=MODELS)
@with_options
def promote(
    name: NameRequired,
    generation: Annotated[str, typer.Argument(metavar="GENERATION", help="As `revector status` lists it, or how its last part begins.")],
    why: Why = "",
    force: Annotated[bool, typer.Option("--force", help="Also if it failed its gates, or is behind what readers have.")] = False,
    *,
    call: Call,
) -> None:
    """Publish another generation, which a run has finished: one move of a pointer. It stays published until a person decides otherwise."""
    from flows import commands
    from flows.show import terminal

    moved = commands.promote(name, generation, call.config, store=call.store, why=why, force=force)
    call.answer(moved, lambda: terminal.moved(moved))


@commands.command(
    epilog="Examples: revector rollback docs --why 'bad import of 2026-03-02'; revector rollback docs --to 9", rich_help_panel=MODELS
)
@with_options
def rollback(
    name: Name = None,
    to: Annotated[int | None, typer.Option("--to", metavar="VERSION", help="A version that `revector history` lists as published.")] = None,
    why: Why = "",
    *,
    call: Call,
) -> None:
    """Publish again what was published before: one move of a pointer, nothing is rewritten.

    Readers stay there: runs go on building and judging, and publish nothing until
    [bold]revector resume[/bold] or [bold]revector promote[/bold].
    """
    from flows import commands
    from flows.show import terminal

    moved = commands.rollback(name, call.config, store=call.store, why=why, to=to)
    call.answer(moved, lambda: terminal.moved(moved))


@commands.command(epilog="Example: revector resume docs --why 'the import was mended'", rich_help_panel=MODELS)
@with_options
def resume(name: Name = None, why: Why = "", *, call: Call) -> None:
    """Release a rollback: readers get the newest version that passed its gates, and from then on what runs publish."""
    from flows import commands
    from flows.show import terminal

    moved = commands.resume(name, call.config, store=call.store, why=why)
    call.answer(moved, lambda: terminal.moved(moved))
