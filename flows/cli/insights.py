"""The command line of reports: what the vectors of a version say, for people and for other tools."""

from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from flows.cli import remote
from flows.cli.options import REPORTS, Call, NameRequired, Sending, with_options

if TYPE_CHECKING:
    from workers.reports.run_reports import Wish

commands = typer.Typer()


@commands.command(
    epilog="Examples: revector report docs; revector report docs map clusters; revector report docs drift --since 16 --json",
    rich_help_panel=REPORTS,
)
@with_options
def report(
    name: NameRequired,
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND...",
            help="map, clusters, outliers, duplicates, neighbours, balance, bias, tasks, drift, labels; else those of the spec, or map.",
        ),
    ] = None,
    generation: Annotated[
        str, typer.Option("--generation", metavar="GENERATION", help="As `revector status` lists it, or how its last part begins.")
    ] = "published",
    version: Annotated[
        int | None, typer.Option("--version", metavar="VERSION", help="A version that `revector history` lists, instead of the newest.")
    ] = None,
    since: Annotated[
        int | None, typer.Option("--since", metavar="VERSION", help="The version to compare with, instead of the one before.")
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Make a new map and new clusters; those that are still there keep place, number and name.")
    ] = False,
    *,
    call: Call,
    sending: Sending,
) -> NoReturn:
    """What the vectors of a version say: what is in there, what is odd or there twice, what changed. Exits 3 beyond a limit.

    A report is kept beside the version that it is of, and is never made twice.
    After an update only what is new is looked at. [bold]reports = ["map", "drift"][/bold] in the
    spec makes them after each publication.
    """
    from flows import commands
    from flows.show import figures
    from flows.show.progress import progress
    from workers.reports.run_reports import Wish

    wish = Wish(generation, version, since, refit)
    if sending.away:
        remote.send(remote.order("report", call.request(name), [*(kinds or []), *_options(wish)]), call, sending)
    with progress() as tell:
        made = commands.report(name, kinds or (), call.config, store=call.store, wish=wish, tell=tell, run_id=sending.run_id)
    call.answer(made, lambda: figures.reported(made))
    raise typer.Exit(made.exit_code)


def _options(wish: "Wish") -> list[str]:
    """Of a wish, as the command line takes it."""
    chosen = {"--generation": wish.generation, "--version": wish.version, "--since": wish.since}
    return [*(f"{option}={value}" for option, value in chosen.items() if value is not None), *(["--refit"] if wish.refit else [])]
