"""The command line of upkeep: compaction and removal, and the check of what `apply` relies on."""

from typing import Annotated, NoReturn

import typer

from flows.cli import remote
from flows.cli.options import UPKEEP, Call, Name, NameRequired, Sending, with_options

commands = typer.Typer()


@commands.command(
    epilog="Examples: revector maintain docs; revector maintain docs --erase --json | jq .freed.bytes", rich_help_panel=UPKEEP
)
@with_options
def maintain(
    name: Name = None,
    erase: Annotated[
        bool, typer.Option("--erase", help="Leave no byte of a document that is no longer in the corpus. No rollback after this.")
    ] = False,
    *,
    call: Call,
    sending: Sending,
) -> None:
    """Compact tables, keep indexes whole, and remove what nothing needs any more. Readers get the same rows.

    What goes is set by [bold]retention = { publications = 10, days = 30 }[/bold] in the spec.
    A publication stays while it is current, among the newest, or was current
    within so many days. Others can no longer be rolled back to, and content that
    only they hold costs a forward pass when it comes back. Files of the last hour
    stay until the next time.

    [bold]--erase[/bold] leaves the newest state of each generation in use, without a byte of
    deleted documents, and checks that. [bold]Earlier versions can then no longer be
    rolled back to[/bold], and readers that hold one open lose it. Generations that
    neither the spec declares nor readers have are dropped. Run apply before it:
    what is deleted is what apply no longer found.
    """
    from flows import commands
    from flows.show import terminal
    from flows.show.progress import progress

    if sending.away:
        remote.send(remote.order("maintain", call.request(name), ["--erase"] if erase else []), call, sending)
    with progress() as report:
        done = commands.maintain(name, call.config, store=call.store, erase=erase, report=report, run_id=sending.run_id)
    call.answer(done, lambda: terminal.upkeep(done))


@commands.command(epilog="Example: revector drop docs docs.vectors.1f0c2b3a9d4e", rich_help_panel=UPKEEP)
@with_options
def drop(
    name: NameRequired,
    generation: Annotated[str, typer.Argument(metavar="GENERATION", help="As `revector status` lists it, or how its last part begins.")],
    force: Annotated[bool, typer.Option("--force", help="Even if the spec declares it: the next apply builds it again.")] = False,
    *,
    call: Call,
) -> None:
    """Remove a generation that readers do not have, and its chunk table if nothing else needs that.

    Its publications stay in the history, and can no longer be promoted or rolled
    back to.
    """
    from flows import commands
    from flows.show import terminal
    from flows.show.progress import progress

    with progress() as report:
        done = commands.drop(name, generation, call.config, store=call.store, force=force, report=report)
    call.answer(done, lambda: terminal.upkeep(done))


@commands.command(epilog="Example: revector doctor && revector apply", rich_help_panel=UPKEEP)
@with_options
def doctor(name: Name = None, *, call: Call) -> NoReturn:
    """Check the store (conditional writes, by a race), the model, Ray and free space."""
    from flows.doctor import examine
    from flows.show import terminal

    checks = examine(name, call.config, call.store)
    healthy = all(check.ok for check in checks)
    call.answer({"ok": healthy, "checks": checks}, lambda: terminal.checks(checks))
    raise typer.Exit(0 if healthy else 1)
