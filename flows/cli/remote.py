"""The command line of runs that are somewhere else: sent to a cluster, attached to, cancelled, rendered as a manifest."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from flows.cli.options import ELSEWHERE, Call, NameRequired, Place, Sending, with_options
from flows.request import Request
from pipelines.errors import SpecError
from pipelines.redaction import printable

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
@with_options
def attach(run: Run, cluster: Where = None, *, call: Call) -> NoReturn:
    """Follow a run that goes on, wherever it was started; ends as it ends, with its result and its exit code.

    The store is enough for that; of a run on a cluster that can be reached its
    log is shown, too. Ctrl-C ends the following, not the run.
    """
    from flows.elsewhere import attaching

    try:
        known = attaching.find(call.request(), run, cluster, say)
        say(f"following run {known.run.run_id}; Ctrl-C leaves it alone, `revector cancel {known.run.run_id}` stops it")
        code = attaching.attach(known, call.json, say)
    except KeyboardInterrupt:
        say("no longer followed; the run goes on")
        raise typer.Exit(130) from None
    raise typer.Exit(code)


@commands.command(epilog="Example: revector cancel 20260301T0300", rich_help_panel=ELSEWHERE)
@with_options
def cancel(run: Run, cluster: Where = None, *, call: Call) -> None:
    """Stop a run, wherever it was started. What it has committed stays; the same command goes on from there.

    It is asked by way of the store, and ends its workers by itself.
    A job that does not listen, or has not begun, is stopped by its cluster."""
    from flows.elsewhere import attaching

    known = attaching.find(call.request(), run, cluster, say)
    run_id, before = known.run.run_id, attaching.how(known)
    status = before or attaching.stop(known, say)
    had = "had died before" if before == "dead" else f"had ended before: {before}"
    now = "was cancelled" if status == "cancelled" else f"has ended meanwhile: {status}"
    call.answer({"run_id": run_id, "status": status}, lambda: typer.echo(f"run {run_id} {had if before else now}"))


@renders.command(epilog="Example: revector render rayjob docs --image registry.example/revector:1.2 | kubectl create -f -")
@with_options
def rayjob(
    name: NameRequired,
    image: Annotated[str | None, typer.Option("--image", help="With a tag or digest (default: run.image of the spec).")] = None,
    namespace: Annotated[str, typer.Option("--namespace", help="Of Kubernetes.")] = "revector",
    secret: Annotated[
        str | None,
        typer.Option("--secret-name", help="A Secret whose keys become environment variables: credentials (default: workload identity)."),
    ] = None,
    *,
    place: Place,
) -> None:
    """A KubeRay RayJob that brings the collection up to date once, on a cluster of its own, as YAML on stdout.

    Each manifest is one run, with names of its own: kubectl create and kubectl
    apply both do. revector attach and revector cancel find it by the run id in
    its first line.
    """
    from flows.elsewhere import rayjob as manifests

    typer.echo(manifests.render(place.request().spec, name, image, namespace, secret), nl=False)


def send(order: "Order", call: Call, sending: Sending, profile: bool = False) -> NoReturn:
    """Run a command on a cluster instead of here, and end as it ends."""
    from flows.elsewhere import outcome, submission

    cluster = sending.cluster
    if cluster is None:
        raise SpecError("expected --cluster URL with --detach, found none: only a cluster runs what nobody waits for")
    if sending.detach:
        id = submission.detach(order, cluster, sending.run_id, say)
        call.answer({"run_id": id, "cluster": cluster}, lambda: typer.echo(_hint(id, cluster)))
        raise typer.Exit(0)
    done = submission.perform(order, cluster, sending.run_id, say)
    if done.result is not None:
        outcome.show(order.command, done.result, call.json, profile)
    raise typer.Exit(done.code)


def order(
    command: Literal["apply", "maintain", "evaluate", "report"],
    request: Request,
    arguments: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
) -> "Order":
    """A command for a cluster, with the spec as it is here. Raises SpecError."""
    from flows.elsewhere.submission import Order

    collection, _ = request.spec.collection(request.name)
    return Order(command, request.spec, collection, tuple(arguments), files or {})


def say(text: str) -> None:
    """To a person, on stderr."""
    typer.echo(printable(text), err=True)


def _hint(id: str, cluster: str) -> str:
    begins = f"run {id} begins on {cluster}"
    return f"{begins}\n`revector attach {id} --cluster {cluster}` follows it, `revector cancel {id} --cluster {cluster}` stops it"
