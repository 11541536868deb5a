"""A flow run for one collection: what it was told, how it calls a command, and how that is stopped from outside."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import get_run_context
from prefect.flows import Flow
from prefect.logging import get_logger
from prefect.states import Completed, Failed

from flows.flow_run.child import Done
from flows.flow_run.presence import Presence, run_id, sign
from flows.flow_run.slots import TAG, SlotTaken, Superseded, slot
from flows.request import Request
from pipelines.errors import RevectorError
from pipelines.redaction import redact
from pipelines.spec.declared import CollectionSpec
from pipelines.spec.parsing import DEFAULT_CONFIG

REVECTOR = (sys.executable, "-P", "-m", "flows.cli")
"""The command line of this very environment; -P: not of a folder named like one of ours in the working directory."""
CANCEL_SECONDS = 60.0
"""For `revector cancel` to see a run end."""


def requested(parameters: Mapping[str, Any]) -> Request | None:
    """What the parameters of a flow run or a deployment ask for; None of a flow that is for no collection."""
    if "collection" not in parameters:
        return None
    return Request(str(parameters["collection"]), str(parameters.get("config", DEFAULT_CONFIG)), parameters.get("store"))


@dataclass(frozen=True, slots=True)
class FlowJob:
    """A flow run at work."""

    request: Request
    flow_run: FlowRun
    presence: Presence

    @property
    def collection(self) -> str:
        return self.request.collection

    @property
    def declared(self) -> CollectionSpec:
        return self.request.declared

    @property
    def run_id(self) -> str:
        """Of the run in the ledger."""
        return run_id(self.flow_run)

    def by(self, config: str) -> "FlowJob":
        """The same by another spec file."""
        return replace(self, request=replace(self.request, config=config))

    def key(self, what: str) -> str:
        """Of an artifact: Prefect takes lower case, digits and dashes."""
        return f"revector-{self.collection.lower().replace('_', '-')}-{what}"

    def command(self, name: str, *arguments: str) -> list[str]:
        """A command line for this collection."""
        return [*REVECTOR, name, self.collection, *arguments, "--json", *_options(self.request)]

    def run(self, name: str, *arguments: str, part: str = "") -> list[str]:
        """The same for one that works: where the spec says that work goes, under the flow run's run id. `part`: of one of several."""
        cluster = self.declared.run.cluster
        where = [f"--cluster={cluster}"] if cluster else []
        return self.command(name, *arguments, f"--run-id={self.run_id}{part and '-'}{part}", *where)


def _options(request: Request) -> list[str]:
    return [f"--config={request.config}", *([f"--store={request.store}"] if request.store else [])]


@contextmanager
def attend(collection: str, config: str, store: str | None) -> Iterator[FlowJob]:
    """The present flow run, which shows that it lives while this is entered. Raises SpecError."""
    request = Request(collection, config, store)
    request.spec.collection(collection)
    with attend_flow_run([TAG, f"collection:{collection}"]) as (flow_run, presence):
        yield FlowJob(request, flow_run, presence)


@contextmanager
def attend_flow_run(tags: list[str]) -> Iterator[tuple[FlowRun, Presence]]:
    """The present flow run, tagged: one that a person started has no deployment's tags."""
    context: Any = get_run_context()
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(context.flow_run.id)
        if not set(tags) <= set(flow_run.tags):
            client.update_flow_run(flow_run.id, tags=sorted({*flow_run.tags, *tags}))
    with Presence(flow_run) as presence:
        yield flow_run, presence


@contextmanager
def turn(job: FlowJob) -> Iterator[State[Any] | None]:
    """Hold the collection's slot: one run at a time. Gives the state to end with if that is not to be had."""
    try:
        with slot(job.collection, job.flow_run, job.presence):
            yield None
    except Superseded as error:
        yield Completed(name="Superseded", message=str(error), data={"collection": job.collection, "status": "superseded"})
    except SlotTaken as error:
        yield Failed(name="Conflict", message=str(error))


_REFUSED = {3: "GateFailed", 5: "Conflict"}


def failed(done: Done) -> State[Any]:
    """The state of a command that gave no result. Raises RevectorError for what a person has to look at."""
    if done.code in _REFUSED:
        return Failed(name=_REFUSED[done.code], message=done.line)
    raise RevectorError(
        done.line if done.code > 0 and done.line else f"expected the command to end by itself, found exit code {done.code}: run again"
    )


def stop_run(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook, for a flow run that was cancelled or that crashed: its run must not go on, and its slot must not stay taken."""
    with get_client(sync_client=True) as client:
        current = client.read_flow_run(flow_run.id)  # what the hook is given may be from before it began
        shown = sign(current)
        if shown is None or shown.left:
            return
        if request := requested(current.parameters):
            cancel_run(run_id(current), request)
        if shown.lease:
            client.release_concurrency_slots_with_lease(shown.lease)


def cancel_run(run: str, request: Request) -> bool:
    """Ask a run to stop, wherever it is, and wait until it has: `revector cancel`. False if it could not be found, or does not stop."""
    command = [*REVECTOR, "cancel", run, "--json", *_options(request)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CANCEL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode:
        get_logger("revector").info(redact(done.stderr.strip()))
    return done.returncode == 0


HOOKS: dict[str, Any] = {"on_cancellation": [stop_run], "on_crashed": [stop_run]}
"""Of every flow that starts a run."""
