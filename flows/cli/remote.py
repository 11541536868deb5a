"""The command line of runs that are somewhere else: sent to a cluster, attached to, cancelled, rendered as a manifest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from flows.cli.options import ELSEWHERE, Config, Json, NameRequired, StoreOption
from flows.show.output import put
from pipelines.errors import SpecError

if TYPE_CHECKING:
    from flows.elsewhere.submission import Order


commands = typer.Typer()
renders = typer.Typer(no_args_is_help=True, help="Manifests from the spec, for tools of your own.")
commands.add_typer(renders, name="render", rich_help_panel=ELSEWHERE)

Run = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or a beginning that no other has.")]
Where = Annotated[
    str | None,
    typer.Option("--cluster", metavar="URL", help="The Jobs API of the Ray cluster that it was sent to (default: as its record says)."),
]


@commands.command(
    epilog="Examples: revector attach 20260301T0300; revector attach 20260301T0300 --json > result.json", rich_help_panel=ELSEWHERE
)
def attach(run: Run, cluster: Where = None, config: Config = None, store: StoreOption = None, json: Json = False) -> NoReturn:
    """Follow a run that goes on, wherever it was started; ends as it ends, with its result and its exit code.

    The store is enough for that; of a run on a cluster that can be reached its log is shown, too.
    Ctrl-C ends the following, not the run."""
    from flows.elsewhere import attaching
    from pipelines.spec.parsing import load_spec

    try:
        found = attaching.find(load_spec(config, store), run, cluster, say)
        say(f"following run {found.run.run_id}; Ctrl-C leaves it alone, `revector cancel {found.run.run_id}` stops it")
        code = attaching.attach(found, json, say)
    except KeyboardInterrupt:
        say("no longer followed; the run goes on")
        raise typer.Exit(130) from None
    raise typer.Exit(code)


@commands.command(epilog="Example: revector cancel 20260301T0300", rich_help_panel=ELSEWHERE)
def cancel(run: Run, cluster: Where = None, config: Config = None, store: StoreOption = None, json: Json = False) -> None:
    """Stop a run, wherever it was started. What it has committed stays; the same command goes on from there.

    It is asked by way of the store, and ends its workers by itself.
    A job that does not listen, or has not begun, is stopped by its cluster."""
    from flows.elsewhere import attaching
    from pipelines.spec.parsing import load_spec

    found = attaching.find(load_spec(config, store), run, cluster, say)
    run_id, before = found.run.run_id, attaching.how(found)
    status = before or attaching.stop(found, say)
    had = "had died before" if before == "dead" else f"had ended before: {before}"
    now = "was cancelled" if status == "cancelled" else f"has ended meanwhile: {status}"
    put(json, {"run_id": run_id, "status": status}, lambda: typer.echo(f"run {run_id} {had if before else now}"))


@renders.command(epilog="Example: revector render rayjob docs --image registry.example/revector:1.2 | kubectl create -f -")
def rayjob(
    name: NameRequired,
    image: Annotated[str | None, typer.Option("--image", help="With a tag or digest (default: run.image of the spec).")] = None,
    namespace: Annotated[str, typer.Option("--namespace", help="Of Kubernetes.")] = "revector",
    secret: Annotated[
        str | None,
        typer.Option("--secret-name", help="A Secret whose keys become environment variables: credentials (default: workload identity)."),
    ] = None,
    config: Config = None,
    store: StoreOption = None,
) -> None:
    """A KubeRay RayJob that brings the collection up to date once, on a cluster of its own, as YAML on stdout.

    Each manifest is one run, with names of its own: kubectl create and kubectl apply both do.
    revector attach and revector cancel find it by the run id in its first line."""
    from flows.elsewhere import rayjob as manifests
    from pipelines.spec.parsing import load_spec

    typer.echo(manifests.render(load_spec(config, store), name, image, namespace, secret), nl=False)


def send(order: "Order", cluster: str | None, detach: bool, run_id: str | None, json: bool, profile: bool = False) -> NoReturn:
    """Run a command on a cluster instead of here, and end as it ends."""
    from flows.elsewhere import outcome, submission

    if cluster is None:
        raise SpecError("expected --cluster URL with --detach, found none: only a cluster runs what nobody waits for")
    if detach:
        id = submission.detach(order, cluster, run_id, say)
        put(json, {"run_id": id, "cluster": cluster}, lambda: typer.echo(_hint(id, cluster)))
        raise typer.Exit(0)
    done = submission.perform(order, cluster, run_id, say)
    if done.result is not None:
        outcome.show(order.command, done.result, json, profile)
    raise typer.Exit(done.code)


def order(
    command: Literal["apply", "maintain", "evaluate"],
    name: str | None,
    config: Path | None,
    store: str | None,
    arguments: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
) -> "Order":
    """A command for a cluster, with the spec as it is here. Raises SpecError."""
    from flows.elsewhere.submission import Order
    from pipelines.spec.parsing import load_spec

    spec = load_spec(config, store)
    return Order(command, spec, spec.collection(name)[0], tuple(arguments), files or {})


def say(text: str) -> None:
    """To a person, on stderr."""
    typer.echo(text, err=True)


def _hint(id: str, cluster: str) -> str:
    begins = f"run {id} begins on {cluster}"
    return f"{begins}\n`revector attach {id} --cluster {cluster}` follows it, `revector cancel {id} --cluster {cluster}` stops it"
