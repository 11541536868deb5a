"""The flow that brings a collection up to date. Thin: the work, and the right to commit, are the driver's."""

from collections.abc import Callable
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.flow_run.child import Done, follow
from flows.flow_run.events import announce_alarm, announce_publication
from flows.flow_run.flow_job import HOOKS, FlowJob, attend, failed, turn
from flows.flow_run.parameters import CollectionName, ConfigFile, StoreUri
from flows.show import artifacts
from flows.show.words import version

if TYPE_CHECKING:
    from storage.history.catalog import Publication


@flow(name="revector-sync", flow_run_name="sync {collection}", retries=0, log_prints=False, **HOOKS)
def sync(collection: CollectionName, config: ConfigFile = "revector.toml", store: StoreUri | None = None) -> dict[str, Any]:
    """Bring a collection up to date and publish it: `revector apply` as a Prefect flow. Gives what `apply --json` does.

    The state is Published, Partial (published, with dead letters), Pinned (a rollback keeps readers where they are), Nothing or
    Superseded (another run waits already), all of them completed; or failed: GateFailed (built, not published) or Conflict (another run
    has the collection). Artifacts:
    `revector-<collection>-progress`, `-plan`, `-result` and `-report`, in lower case and with dashes. Raises SpecError, and
    RevectorError with the driver's one line. However the flow ends, the driver does not go on; what it committed is kept, and the next
    run goes on from there.
    """
    with attend(collection, config, store) as job, turn(job) as refused:
        state: Any = refused or outcome(bring_up(job))  # Prefect gives its data to the caller, or raises
        result: dict[str, Any] = state
        return result


def bring_up(job: FlowJob) -> Done:
    """Run the driver and show what it did."""
    progress = artifacts.ProgressArtifact(job.key("progress"))
    done = follow(job.run("apply"), progress, artifacts.PlanTable(job.key("plan")))
    if (result := done.result) is not None:
        headline = artifacts.headline(result)
        progress.show(100.0, headline)
        artifacts.show_table(job.key("result"), artifacts.result_table(result), headline)
        had, have = readers(job, lambda row: row.run_id == result["run_id"])
        artifacts.show_report(job.key("report"), artifacts.report(result, had, have), headline)
        tell(job, had, have)
        if beyond := [kind for kind, became in result["reports"].items() if became == "beyond its limit"]:
            announce_alarm(job, have.version if have else 0, beyond)
    return done


def tell(job: FlowJob, had: "Publication | None", have: "Publication | None") -> None:
    """Tell others of a publication, if there was one."""
    if have and have != had:
        artifacts.show_link(job.key("store"), job.request.spec.store, version(have.version, have.generation))
        announce_publication(job, had, have)


def readers(job: FlowJob, ours: Callable[["Publication"], bool]) -> "tuple[Publication | None, Publication | None]":
    """What readers had before the publications that are `ours`, and what they have."""
    from storage.history.catalog import publications

    history = publications(job.request.stored)
    earlier = list(takewhile(lambda row: not ours(row), history))
    return earlier[-1] if earlier else None, history[-1] if history else None


def outcome(done: Done) -> State[dict[str, Any]]:
    """What Prefect shows. Raises RevectorError for what a person has to look at."""
    if done.result is None:
        return failed(done)
    headline = artifacts.headline(done.result)
    if done.code == 3:
        return Failed(name="GateFailed", message=headline)
    name = "pinned" if done.result.get("pin") else done.result["status"]
    return Completed(name=name.capitalize(), message=headline, data=done.result)
