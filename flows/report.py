"""The flow that makes the reports of what readers have."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.flow_run.child import Done, follow
from flows.flow_run.events import announce_alarm
from flows.flow_run.flow_job import HOOKS, attend, failed
from flows.flow_run.parameters import CollectionName, ConfigFile, StoreUri
from flows.show import artifacts
from flows.show.words import version


@flow(name="revector-report", flow_run_name="report {collection}", retries=0, log_prints=False, **HOOKS)
def report(collection: CollectionName, config: ConfigFile = "revector.toml", store: StoreUri | None = None) -> dict[str, Any]:
    """Report on what readers have: `revector report` as a Prefect flow. Gives what `report --json` does.

    The state is Reported, or failed: BeyondLimit. Then an event says so, too. Takes no slot: it changes nothing that readers have, and may
    run beside others. The artifact `revector-<collection>-reports` has the limits.
    """
    with attend(collection, config, store) as job:
        progress = artifacts.ProgressArtifact(job.key("report-progress"))
        done = follow(job.run("report"), progress)
        if done.result is not None:
            progress.show(100.0, _headline(done.result))
            artifacts.show_table(job.key("reports"), artifacts.gate_table(_gates(done.result)), _headline(done.result))
            if done.code:
                beyond = [kept["kind"] for kept in done.result["reports"] if artifacts.failures(kept["gates"])]
                announce_alarm(job, done.result["version"], beyond)
        state: Any = _outcome(done)
        result: dict[str, Any] = state
        return result


def _gates(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [gate for kept in result["reports"] for gate in kept["gates"]]


def _headline(result: dict[str, Any]) -> str:
    """What the reports said, in one sentence."""
    said = f"{result['collection']}: {version(result['version'], result['generation'])}"
    beyond = artifacts.failures(_gates(result))
    return f"{said} is beyond a limit: {beyond}" if beyond else f"{said} has {len(result['reports'])} reports"


def _outcome(done: Done) -> State[dict[str, Any]]:
    if done.result is None:
        return failed(done)
    said = _headline(done.result)
    return Completed(name="Reported", message=said, data=done.result) if done.code == 0 else Failed(name="BeyondLimit", message=said)
