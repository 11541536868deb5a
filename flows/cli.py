"""The command line. One object on stdout with --json, progress and logs on stderr; heavy libraries only when a command needs them."""

import os
import re
import signal
import sys
import threading
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from flows import cli_runs, cli_schedule
from flows.options import MODELS, UPKEEP, Cluster, Config, Detach, Json, Name, NameRequired, RunId, StoreOption, Why, put
from pipelines.errors import RevectorError, SpecError
from pipelines.logs import shown
from pipelines.redaction import redact

if TYPE_CHECKING:
    from storage.filters import Condition

STOP_AT_EOF = "REVECTOR_STOP_AT_EOF"
"""Set to `1` by a parent that holds stdin as a pipe: when the parent dies, however it dies, the pipe closes and the run stops."""

VERBOSE = ("-v", "--verbose")

app = typer.Typer(
    name="revector",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Keep the embeddings of large corpora current.

    Declare a collection in revector.toml; [bold]plan[/bold] shows what an update would do and cost, [bold]apply[/bold] does it and
    publishes the result atomically. Only what changed is embedded.

    Exit codes: 0 done, 1 error, 2 changes pending (plan), 3 a gate failed (built, not published), 4 partial (dead letters),
    5 conflict with another run, 64 bad spec or usage.""",
    epilog="First steps: [bold]revector demo[/bold], or [bold]revector init[/bold], edit revector.toml, [bold]revector plan[/bold], "
    "[bold]revector apply[/bold].",
)


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, a line an event.")] = False,
) -> None:
    # main() puts both first, wherever they stand on the command line; `debug` it reads itself, so that it also covers errors of usage.
    from flows.progress import JSON_LINES

    json = os.environ.get(JSON_LINES) == "json"
    if json or verbose:
        context.with_resource(shown(json=json))


@app.command(epilog="Example: revector init && $EDITOR revector.toml")
def init(file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("revector.toml"), json: Json = False) -> None:
    """Write a commented revector.toml."""
    from flows import commands

    path = commands.init(file)
    put(json, {"file": str(path)}, lambda: typer.echo(f"Wrote {path}. Next: edit it, then `revector plan`."))


@app.command(epilog="Examples: revector plan docs --out tonight.json; revector plan docs --json | jq .embed.contents")
def plan(
    name: Name = None,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the plan for `apply --plan`.")] = None,
    config: Config = None,
    store: StoreOption = None,
    json: Json = False,
) -> NoReturn:
    """Show what an update would do and cost. Touches nothing; exits 2 if there is something to do."""
    from flows import commands, render
    from flows.progress import progress

    with progress() as report:
        made = commands.plan(name, config, store=store, report=report)
    if out:
        commands.save_plan(made, out)
    put(json, made, lambda: render.plan(made))
    raise typer.Exit(2 if made.pending else 0)


@app.command(epilog="Examples: revector apply docs; revector apply docs --plan tonight.json; revector apply --json > result.json")
def apply(
    name: Name = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="A plan of `plan --out`; refused when stale.")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time went.")] = False,
    config: Config = None,
    store: StoreOption = None,
    json: Json = False,
    run_id: RunId = None,
    cluster: Cluster = None,
    detach: Detach = False,
) -> NoReturn:
    """Bring a collection up to date and publish it. Run it again after any interruption: it goes on where it was."""
    from flows import commands, render
    from flows.progress import progress

    saved = commands.load_plan(plan) if plan else None
    if cluster or detach:
        plans = {"plan.json": plan.read_bytes()} if plan else {}
        order = cli_runs.order("apply", name, config, store, [f"--plan={file}" for file in plans], plans)
        cli_runs.send(order, cluster, detach, run_id, json, profile)
    with progress() as report:
        result = commands.apply(name, config, store=store, saved=saved, report=report, run_id=run_id)
    put(json, result, lambda: render.result(result, profile))
    raise typer.Exit(result.exit_code)


@app.command(epilog="Example: revector status --json | jq '.collections[].backlog'")
def status(name: Name = None, config: Config = None, store: StoreOption = None, json: Json = False) -> None:
    """Generations, versions, coverage, backlog, dead letters and the last run."""
    from flows import commands, render

    found = commands.status(name, config, store=store)
    put(json, found, lambda: render.status(found))


@app.command(epilog="Example: revector search docs 'how do I undo a release' -k 5 --where lang=en --where 'year>=2020'")
def search(
    name: NameRequired,
    query: Annotated[str, typer.Argument(help="What to look for, in words.")],
    k: Annotated[int, typer.Option("-k", min=1, max=10_000, help="How many results.")] = 10,
    where: Annotated[
        list[str] | None, typer.Option("--where", metavar="FIELD=VALUE", help="What results must have; also != < <= > >=.")
    ] = None,
    bridge: Annotated[bool, typer.Option("--bridge", help="Encode the query with the spec's model, whichever is published.")] = False,
    config: Config = None,
    store: StoreOption = None,
    json: Json = False,
) -> None:
    """The chunks of the published version that are nearest in meaning; score = cosine similarity."""
    from flows import commands, render

    conditions = [_condition(text) for text in where or []]
    results = commands.search(name, query, config, store=store, k=k, where=conditions, bridge=bridge)
    put(json, {"collection": name, "query": query, "results": results}, lambda: render.results(results))


@app.command(epilog="Example: revector history docs --json | jq '.runs[-1].embed'")
def history(name: Name = None, config: Config = None, store: StoreOption = None, json: Json = False) -> None:
    """Published versions, runs, and what each cost."""
    from flows import commands, render

    found = commands.history(name, config, store=store)
    put(json, found, lambda: render.history(found))


@app.command(epilog="Example: revector diff docs 4 7   (versions as `revector history docs` lists them)")
def diff(
    name: NameRequired,
    a: Annotated[int, typer.Argument(metavar="A", help="The earlier version.")],
    b: Annotated[int, typer.Argument(metavar="B", help="The later version.")],
    config: Config = None,
    store: StoreOption = None,
    json: Json = False,
) -> None:
    """What changed between two published versions."""
    from flows import commands, render

    found = commands.diff(name, a, b, config, store=store)
    put(json, found, lambda: render.diff(found))


@app.command(
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
    from flows import commands, render_quality

    if cluster or detach:
        cli_runs.send(cli_runs.order("evaluate", name, config, store, [generation]), cluster, detach, run_id, json)
    made = commands.evaluate(name, generation, config, store=store, run_id=run_id)
    put(json, {**asdict(made), "passed": made.passed}, lambda: render_quality.evaluation(made))
    raise typer.Exit(0 if made.passed else 3)


@app.command(
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
    from flows import commands, render_quality

    made = commands.compare(name, a, b, config, store=store)
    put(json, made, lambda: render_quality.comparison(made))


@app.command(epilog="Example: revector bridge docs && revector search docs 'how do I undo a release' --bridge", rich_help_panel=MODELS)
def bridge(name: NameRequired, config: Config = None, store: StoreOption = None, json: Json = False) -> NoReturn:
    """Let queries of the spec's model search what is published, while its own vectors are still being made.

    Learns a map from the new model's space into the published one from a few thousand stored contents, and keeps the best of three
    kinds if the searches it makes are near enough to the published model's own (gates.min_bridge_recall); exits 3 if none is. May run
    beside apply. [bold]revector search --bridge[/bold] and open_published(...).bridge(space) use it."""
    from flows import commands, render_bridge
    from flows.progress import progress

    with progress() as report:
        made = commands.bridge(name, config, store=store, report=report)
    put(json, made, lambda: render_bridge.bridge(made))
    raise typer.Exit(made.exit_code)


@app.command(epilog="Example: revector promote docs docs.vectors.1f0c2b3a9d4e --why 'better on German'", rich_help_panel=MODELS)
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
    from flows import commands, render

    moved = commands.promote(name, generation, config, store=store, why=why, force=force)
    put(json, moved, lambda: render.moved(moved))


@app.command(epilog="Example: revector rollback docs --why 'bad import of 2026-03-02'", rich_help_panel=MODELS)
def rollback(name: Name = None, why: Why = "", config: Config = None, store: StoreOption = None, json: Json = False) -> None:
    """Publish again what was published before: one move of a pointer, nothing is rewritten."""
    from flows import commands, render

    moved = commands.rollback(name, config, store=store, why=why)
    put(json, moved, lambda: render.moved(moved))


@app.command(epilog="Examples: revector maintain docs; revector maintain docs --erase --json | jq .freed.bytes", rich_help_panel=UPKEEP)
def maintain(
    name: Name = None,
    erase: Annotated[
        bool, typer.Option("--erase", help="Leave no byte of a document that is no longer in the corpus. No rollback after this.")
    ] = False,
    config: Config = None,
    store: StoreOption = None,
    json: Json = False,
    run_id: RunId = None,
    cluster: Cluster = None,
    detach: Detach = False,
) -> None:
    """Compact tables, keep indexes whole, and remove what nothing needs any more. Readers get the same rows.

    What goes is set by [bold]retention = { publications = 10, days = 30 }[/bold] in the spec.
    A publication stays while it is current, among the newest, or was current within so many days.
    Others can no longer be rolled back to, and content that only they hold costs a forward pass when it comes back.
    Files of the last hour stay until the next time.

    [bold]--erase[/bold] leaves the newest state of each generation in use, without a byte of deleted documents, and checks that.
    [bold]Earlier versions can then no longer be rolled back to[/bold], and readers that hold one open lose it.
    Generations that neither the spec declares nor readers have are dropped.
    Run apply before it: what is deleted is what apply no longer found."""
    from flows import commands, render
    from flows.progress import progress

    if cluster or detach:
        cli_runs.send(cli_runs.order("maintain", name, config, store, ["--erase"] if erase else []), cluster, detach, run_id, json)
    with progress() as report:
        done = commands.maintain(name, config, store=store, erase=erase, report=report, run_id=run_id)
    put(json, done, lambda: render.upkeep(done))


@app.command(epilog="Example: revector drop docs docs.vectors.1f0c2b3a9d4e", rich_help_panel=UPKEEP)
def drop(
    name: NameRequired,
    generation: Annotated[str, typer.Argument(metavar="GENERATION", help="As `revector status` lists it, or the part after the last dot.")],
    force: Annotated[bool, typer.Option("--force", help="Even if the spec declares it: the next apply builds it again.")] = False,
    config: Config = None,
    store: StoreOption = None,
    json: Json = False,
) -> None:
    """Remove a generation that readers do not have, and its chunk table if nothing else needs that.

    Its publications stay in the history, and can no longer be promoted or rolled back to."""
    from flows import commands, render
    from flows.progress import progress

    with progress() as report:
        done = commands.drop(name, generation, config, store=store, force=force, report=report)
    put(json, done, lambda: render.upkeep(done))


@app.command(epilog="Example: revector doctor && revector apply", rich_help_panel=UPKEEP)
def doctor(name: Name = None, config: Config = None, store: StoreOption = None, json: Json = False) -> NoReturn:
    """Check the store (conditional writes, by a race), the model, Ray and free space."""
    from flows import render
    from flows.doctor import examine

    checks = examine(name, config, store)
    healthy = all(check.ok for check in checks)
    put(json, {"ok": healthy, "checks": checks}, lambda: render.checks(checks))
    raise typer.Exit(0 if healthy else 1)


@app.command(epilog="Example: revector demo --keep ./demo")
def demo(
    keep: Annotated[Path | None, typer.Option("--keep", help="A new folder for the demo's files, to look at afterwards.")] = None,
    json: Json = False,
) -> None:
    """The whole story on real text: 8,000 WordNet glosses, in about a minute."""
    from rich.console import Console

    from flows.demo import tell

    story = tell(keep, Console(stderr=json))
    put(json, story, lambda: None)


app.add_typer(cli_runs.commands)
app.add_typer(cli_schedule.commands)


def _condition(text: str) -> "Condition":
    from storage.filters import Condition

    found = re.fullmatch(r"(?s)(.+?)(!=|<=|>=|=|<|>)(.*)", text)
    if not found:
        raise SpecError(f"expected --where field=value, or another of != < <= > >=, found {text!r}")
    field, operator, value = found.groups()
    return Condition(field, value, operator)  # type: ignore[arg-type]


def main() -> NoReturn:
    """The entry point: every way out has an exit code, every error is one line."""
    told = sys.argv[1:]
    arguments = sorted((argument for argument in told if argument != "--debug"), key=lambda argument: argument not in VERBOSE)
    debug = "--debug" in told
    os.environ.setdefault("LANCE_LOG", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    signal.signal(signal.SIGTERM, _terminate)
    if os.environ.get(STOP_AT_EOF) == "1":
        threading.Thread(target=_stop_at_eof, name="parent", daemon=True).start()
    sys.exit(_run(arguments, debug))


def _terminate(*_: object) -> NoReturn:
    """A scheduler's stop unwinds like Ctrl-C: actors are ended, the record is written."""
    raise KeyboardInterrupt


def _stop_at_eof() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _run(arguments: list[str], debug: bool) -> int:
    try:
        code = int(app(arguments or ["--help"], standalone_mode=False) or 0)
        return _fail("stopped; the same command goes on from here", code, debug) if code == 130 else code  # Typer's, of KeyboardInterrupt
    except typer.Exit as end:
        return int(end.exit_code)
    except TyperException as error:
        return _fail(f"{error.format_message()} (`revector --help` lists commands, `revector COMMAND --help` options)", 64, debug)
    except RevectorError as error:
        return _fail(str(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("stopped; the same command goes on from here", 130, debug)
    except Exception as error:  # noqa: BLE001  the outermost edge
        from storage.s3 import store_failure

        # The message of a foreign error may quote a document; that of the system names a file or an address.
        told = f"{type(error).__name__}: {error}" if isinstance(error, OSError) else type(error).__name__
        return _fail(str(store_failure(error) or f"{told} (--debug shows where)"), 1, debug)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        sys.stderr.write(redact(traceback.format_exc()))
    sys.stderr.write(f"revector: {redact(' '.join(message.split()))}\n")
    return code


if __name__ == "__main__":
    main()
