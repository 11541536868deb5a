"""The command line of every day: declare a collection, plan, apply, search, and see what is there."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from flows.cli import remote
from flows.cli.options import AllowRemoval, Call, Json, Name, NameRequired, Sending, with_options
from flows.show.output import put

commands = typer.Typer()


@commands.command(epilog="Example: revector init && $EDITOR revector.toml")
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = Path("revector.toml"), json: Json = False
) -> None:
    """Write a commented revector.toml."""
    from flows import commands

    path = commands.init(file)
    put(json, {"file": str(path)}, lambda: typer.echo(f"Wrote {path}. Next: edit it, then `revector plan`."))


@commands.command(epilog="Examples: revector plan docs --out tonight.json; revector plan docs --json | jq .embed.contents")
@with_options
def plan(
    name: Name = None,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the plan for `apply --plan`.")] = None,
    allow_removal: AllowRemoval = False,
    *,
    call: Call,
) -> NoReturn:
    """Show what an update would do and cost. Touches nothing; exits 2 if there is something to do."""
    from flows import commands
    from flows.show import terminal
    from flows.show.progress import progress

    with progress() as report:
        made = commands.plan(name, call.config, store=call.store, allow_removal=allow_removal, report=report)
    if out:
        commands.save_plan(made, out)
    call.answer(made, lambda: terminal.plan(made))
    raise typer.Exit(2 if made.pending else 0)


@commands.command(epilog="Examples: revector apply docs; revector apply docs --plan tonight.json; revector apply --json > result.json")
@with_options
def apply(
    name: Name = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="A plan of `plan --out`; refused when stale.")] = None,
    allow_removal: AllowRemoval = False,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time went.")] = False,
    *,
    call: Call,
    sending: Sending,
) -> NoReturn:
    """Bring a collection up to date and publish it. Run it again after any interruption: it goes on where it was."""
    from flows import commands
    from flows.show import terminal
    from flows.show.progress import progress

    saved = commands.load_plan(plan) if plan else None
    if sending.away:
        confirmed = ["--allow-removal"] if allow_removal else []
        plans = {"plan.json": plan.read_bytes()} if plan else {}
        order = remote.order("apply", call.request(name), [*(f"--plan={file}" for file in plans), *confirmed], plans)
        remote.send(order, call, sending, profile)
    with progress() as report:
        result = commands.apply(
            name, call.config, store=call.store, saved=saved, allow_removal=allow_removal, report=report, run_id=sending.run_id
        )
    call.answer(result, lambda: terminal.result(result, profile))
    raise typer.Exit(result.exit_code)


@commands.command(epilog="Example: revector status --json | jq '.collections[].backlog'")
@with_options
def status(name: Name = None, *, call: Call) -> None:
    """Generations, versions, coverage, backlog, dead letters and the last run."""
    from flows import commands
    from flows.show import terminal

    shown = commands.status(name, call.config, store=call.store)
    call.answer(shown, lambda: terminal.status(shown))


@commands.command(epilog="Example: revector search docs 'how do I undo a release' -k 5 --where lang=en --where 'year>=2020'")
@with_options
def search(
    name: NameRequired,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for, in words.")],
    k: Annotated[int, typer.Option("-k", min=1, max=10_000, help="How many results.")] = 10,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="FIELD=VALUE", help="What results must have; also != < <= > >= in contains, and or."),
    ] = None,
    bridge: Annotated[bool, typer.Option("--bridge", help="Encode the query with the spec's model, whichever is published.")] = False,
    *,
    call: Call,
) -> None:
    """The chunks of the published version that are nearest in meaning; score = cosine similarity."""
    from flows import commands
    from flows.cli.conditions import parse_condition
    from flows.show import terminal

    conditions = [parse_condition(text) for text in where or []]
    results = commands.search(name, query, call.config, store=call.store, k=k, where=conditions, bridge=bridge)
    call.answer({"collection": name, "query": query, "results": results}, lambda: terminal.results(results))


@commands.command(epilog="Example: revector history docs --json | jq '.runs[-1].embed'")
@with_options
def history(name: Name = None, *, call: Call) -> None:
    """Published versions, runs, and what each cost."""
    from flows import commands
    from flows.show import terminal

    shown = commands.history(name, call.config, store=call.store)
    call.answer(shown, lambda: terminal.history(shown))


@commands.command(epilog="Example: revector diff docs 4 7   (versions as `revector history docs` lists them)")
@with_options
def diff(
    name: NameRequired,
    a: Annotated[int, typer.Argument(metavar="A", help="The earlier version.")],
    b: Annotated[int, typer.Argument(metavar="B", help="The later version.")],
    *,
    call: Call,
) -> None:
    """What changed between two published versions."""
    from flows import commands
    from flows.show import terminal

    shown = commands.diff(name, a, b, call.config, store=call.store)
    call.answer(shown, lambda: terminal.diff(shown))
