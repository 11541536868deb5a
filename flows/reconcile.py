"""Ends what was orphaned: flow runs whose process is gone, runs whose flow run has ended, and slots that nobody holds."""

import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Completed, Crashed

from flows.flow_run.flow_job import attend_flow_run, cancel_run, requested
from flows.flow_run.presence import BEAT_SECONDS, run_id, sign
from flows.flow_run.slots import LOOK_SECONDS, TAG, free_orphaned, going_on
from flows.request import Request
from pipelines.errors import SpecError
from storage.history.ledger import Run, runs
from storage.history.watch import Watch

STILL_SECONDS = 4 * BEAT_SECONDS
"""Without a sign of life, after which a flow run that cannot be seen from here counts as gone."""
UNBORN = timedelta(minutes=10)
"""For a flow run to show its first sign."""
NEWEST = 5
"""Runs of a collection that may go on."""
_OF_A_FLOW = re.compile(r"(?P<id>\d{8}T\d+-[0-9a-f]{8}-\d+)(-\d+)?")
"""Run ids that a flow gave; the last number counts attempts on a cluster."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    crashed: list[str] = field(default_factory=list)
    """Flow runs that Prefect believed to be running."""
    cancelled: list[str] = field(default_factory=list)
    """Runs that went on without their flow run."""
    freed: list[str] = field(default_factory=list)
    """Collections whose slot nobody held."""
    unread: list[str] = field(default_factory=list)
    """Specs that this machine could not read: their collections were left alone."""

    @property
    def summary(self) -> str:
        """In one sentence."""
        parts = [
            ("flow runs ended whose process was gone", self.crashed),
            ("runs cancelled that went on without a flow run", self.cancelled),
            ("slots freed", self.freed),
            ("specs not read", self.unread),
        ]
        return ", ".join(f"{len(names)} {what}" for what, names in parts if names) or "nothing was orphaned"


@flow(name="revector-reconcile", flow_run_name="reconcile", retries=0, log_prints=False)
def reconcile() -> dict[str, Any]:
    """End what was orphaned, of all collections with a deployment on this server. Gives what `revector reconcile --json` does.

    The state is Reconciled or Nothing.
    """
    with attend_flow_run([TAG]), get_client(sync_client=True) as client:
        done = tidy(client)
    name = "Nothing" if done == Reconciled() else "Reconciled"
    state: Any = Completed(name=name, message=done.summary, data=asdict(done))
    result: dict[str, Any] = state
    return result


def tidy(client: SyncPrefectClient) -> Reconciled:
    """End what was orphaned. What looks as if it went on is left alone; what a lost machine ran is known after STILL_SECONDS."""
    done = Reconciled()
    at_work = going_on(client)
    for flow_run in _gone(client, at_work):
        _end(client, flow_run)
        done.crashed.append(f"{flow_run.name} ({flow_run.id})")
    for request in sorted(_requests(client, at_work), key=str):
        try:
            orphans = _orphans(client, request)
        except SpecError as error:
            done.unread.append(f"{request.collection}: {error}")
            continue
        done.cancelled.extend(run for run in orphans if cancel_run(run, request))
        if _free(client, request.collection):
            done.freed.append(request.collection)
    return done


def _gone(client: SyncPrefectClient, at_work: list[FlowRun]) -> Iterator[FlowRun]:
    """Those whose process is seen dead, or that give no sign of life."""
    unseen = {}
    for flow_run in at_work:
        shown = sign(flow_run)
        gone = shown.process.dead() if shown else None
        if gone:
            yield flow_run
        elif gone is None and (shown or _long_ago(flow_run)):
            unseen[flow_run.id] = shown.beat if shown else None
    if unseen:
        time.sleep(STILL_SECONDS)  # two readings, instead of clocks that may differ
        for flow_run in going_on(client):
            shown = sign(flow_run)
            if flow_run.id in unseen and unseen[flow_run.id] == (shown.beat if shown else None):
                yield flow_run


def _long_ago(flow_run: FlowRun) -> bool:
    return flow_run.start_time is not None and datetime.now(UTC) - flow_run.start_time > UNBORN


def _end(client: SyncPrefectClient, flow_run: FlowRun) -> None:
    """Tell Prefect that a flow run's process is gone: as Cancelled where that was asked for."""
    shown, asked = sign(flow_run), flow_run.state is not None and flow_run.state.is_cancelling()
    where = f"process {shown.process.pid} on {shown.process.host.split()[0]}" if shown else "its process"
    message = f"{where} is gone; what it committed is kept, and the next run goes on from there"
    state: State[Any] = Cancelled(message=message) if asked else Crashed(message=message)
    client.set_flow_run_state(flow_run.id, state)


def _requests(client: SyncPrefectClient, at_work: list[FlowRun]) -> set[Request]:
    deployments = client.read_deployments(deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG])))
    all_parameters = [deployment.parameters for deployment in deployments] + [flow_run.parameters for flow_run in at_work]
    return {request for parameters in all_parameters if (request := requested(parameters))}


def _orphans(client: SyncPrefectClient, request: Request) -> list[str]:
    """Runs that a flow run started, and that go on although it has ended, or is no more."""
    newest = {run.run_id: run for run in runs(request.stored)[-NEWEST:]}
    parents = {run_id(flow_run) for flow_run in going_on(client, request.collection)}  # after the runs: those that began had one
    named = {name: match["id"] for name in newest if (match := _OF_A_FLOW.fullmatch(name))}
    return [name for name, parent in named.items() if parent not in parents and _alive(newest[name])]


def _alive(run: Run) -> bool:
    return Watch(run).look().state == "going on"


def _free(client: SyncPrefectClient, collection: str) -> bool:
    """Give back the collection's slot if nobody holds it, at two looks."""
    if not free_orphaned(client, collection):
        return False
    time.sleep(LOOK_SECONDS)
    free_orphaned(client, collection, before=True)
    return True
