"""The command line of what starts by itself: deployments, the process that serves them, announcements, the reconciler."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import BY_ITSELF, Call, Config, Json, Name, NameRequired, Place, with_options
from flows.show.output import put
from pipelines.spec.declared import Spec
from pipelines.spec.parsing import load_spec

if TYPE_CHECKING:
    from flows.deployment.deployments import Deployed, Wanted


commands = typer.Typer()

ConfigAt = Annotated[
    str | None, typer.Option("--config-at", metavar="PATH", help="Where flows find the spec: its path in their image. (default: as here)")
]


@commands.command(
    epilog="Examples: revector deploy; revector deploy docs --json; revector deploy --print > prefect.yaml", rich_help_panel=BY_ITSELF
)
@with_options
def deploy(
    name: Name = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove deployments of this spec whose collection it no longer has.")] = False,
    show: Annotated[
        bool, typer.Option("--print", help="Write prefect.yaml to stdout, for `prefect deploy --all`, and deploy nothing.")
    ] = False,
    config_at: ConfigAt = None,
    *,
    call: Call,
) -> None:
    """Write or update the deployments of each collection on the Prefect server: one for each flow.

    When they start is said by [bold]schedule = "0 3 * * *"[/bold] in the spec, or { sync =
    "0 3 * * *", maintain = ..., timezone = "Europe/Berlin", paused = true };
    where, by [bold]run = { pool = "revector" }[/bold]: a work pool of processes that is made
    if it is not there, and that [bold]prefect worker start --pool revector[/bold] serves.

    Announced files start sync, a registered model starts upgrade
    ([bold]revector announce[/bold]). A second time changes nothing. The Prefect server is the
    one at PREFECT_API_URL.
    """
    from flows.deployment import deployments
    from flows.deployment.server import server

    spec, all_wanted = _wanted(name, config_at, call)
    if show:
        typer.echo(deployments.prefect_yaml(all_wanted), nl=False)
        return
    with server() as client:
        deployed = deployments.deploy(client, all_wanted)
        if prune:
            deployed += deployments.prune(client, spec, all_wanted[0].parameters["config"])
        call.answer({"server": str(client.api_url), "deployments": deployed}, lambda: _show(deployed))


@commands.command(epilog="Example: revector serve   (in one terminal; `prefect server start` in another)", rich_help_panel=BY_ITSELF)
@with_options
def serve(
    name: Name = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Flow runs at the same time.")] = None,
    *,
    place: Place,
) -> None:
    """Deploy, and run what is due in this process, without a work pool, until Ctrl-C: for one machine.

    Needs a Prefect server: PREFECT_API_URL says where, [bold]prefect server start[/bold]
    starts one.
    """
    from flows.deployment import deployments
    from flows.deployment.server import server

    _, all_wanted = _wanted(name, None, place)
    with server() as client:
        deployments.prepare(client, all_wanted)
    deployments.serve(all_wanted, limit)


@commands.command(
    epilog="Examples: revector announce docs; revector announce docs --model BAAI/bge-small-en-v1.5", rich_help_panel=BY_ITSELF
)
def announce(
    name: NameRequired,
    model: Annotated[str | None, typer.Option("--model", help="Rather: that this model was registered.")] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Say that files arrived for a collection: starts its sync, of several within ten seconds one.

    Any program can say so itself to the Prefect server: POST a list of what
    [bold]--json[/bold] shows to $PREFECT_API_URL/events, each with an id of its own and the
    present time as `occurred`.
    """
    from flows.deployment.server import server
    from flows.flow_run import events

    load_spec(config).collection(name)
    with server() as client:
        event = events.announce(client, name, {"name": model} if model else None)
    put(json, event.model_dump(mode="json"), lambda: typer.echo(f"announced {event.event} of {name}"))


@commands.command(epilog="Example: revector reconcile --json | jq .crashed", rich_help_panel=BY_ITSELF)
def reconcile(json: Json = False) -> None:
    """End what was orphaned: flow runs whose process is gone, runs whose flow run has ended, slots that nobody holds.

    Looks after every collection with a deployment on the Prefect server; a
    deployment does the same every few minutes.
    """
    from flows import reconcile as reconciling
    from flows.deployment.server import server

    with server() as client:
        done = reconciling.tidy(client)
    put(json, asdict(done), lambda: typer.echo("\n".join([done.summary, *done.crashed, *done.cancelled, *done.freed, *done.unread])))


def _wanted(name: str | None, config_at: str | None, place: Place) -> "tuple[Spec, list[Wanted]]":
    from flows.deployment import deployments

    spec = place.request().spec
    if name:
        spec.collection(name)
    return spec, deployments.wanted(spec, config_at or deployments.config_path(place.config), place.store and spec.store, name)


def _show(deployed: "list[Deployed]") -> None:
    from rich.table import Table

    from flows.show.paper import paper

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("deployment", "", "schedule", "next", "work pool"):
        table.add_column(column, overflow="fold")
    for one in deployed:
        status = f"{one.status}: {', '.join(one.changed)}" if one.changed else one.status
        when = f"{one.schedule} {one.timezone}" if one.schedule else "-"
        table.add_row(one.name, status, when, "paused" if one.paused else (one.next or "-").replace("T", " "), one.pool or "-")
    paper(width=max(paper().width, _WIDTH), soft_wrap=False).print(table)


_WIDTH = 110
"""Columns that the table needs."""
