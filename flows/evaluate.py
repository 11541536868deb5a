"""The flow that holds what readers have against all gates, and measures its quality and drift."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.flow_run.child import Done, follow
from flows.flow_run.flow_job import HOOKS, FlowJob, attend, failed
from flows.flow_run.parameters import CollectionName, ConfigFile, StoreUri
from flows.show import artifacts
from flows.show.words import version
from workers.observing.telling import silent

PUBLISHED = "published"


@flow(name="revector-evaluate", flow_run_name="evaluate {collection}", retries=0, log_prints=False, **HOOKS)
def evaluate(collection: CollectionName, config: ConfigFile = "revector.toml", store: StoreUri | None = None) -> dict[str, Any]:
    """Judge what readers have in full: `revector evaluate` as a Prefect flow. Gives what `evaluate --json` does.

    The state is Evaluated, or failed: GateFailed. Takes no slot: it changes nothing, and may run beside others.
    """
    with attend(collection, config, store) as job:
        state: Any = _outcome(judge(job, PUBLISHED))
        result: dict[str, Any] = state
        return result


def judge(job: FlowJob, generation: str, part: str = "") -> Done:
    """Evaluate a generation and show what that gave. `part`: of the run id, where it is one of several."""
    done = follow(job.run("evaluate", generation, part=part), silent)
    if done.result is not None:
        artifacts.show_table(job.key("gates"), artifacts.gate_table(done.result["gates"]), headline(done.result))
    return done


def headline(result: dict[str, Any]) -> str:
    """What the gates said, in one sentence."""
    judged = f"{result['collection']}: {version(result['version'], result['generation'])}"
    if result["passed"]:
        return f"{judged} passed {len(result['gates'])} checks"
    return f"{judged} failed {artifacts.failures(result['gates'])}"


def _outcome(done: Done) -> State[dict[str, Any]]:
    if done.result is None:
        return failed(done)
    said = headline(done.result)
    return Completed(name="Evaluated", message=said, data=done.result) if done.code == 0 else Failed(name="GateFailed", message=said)
