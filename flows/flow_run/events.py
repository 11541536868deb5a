"""Events: what starts a flow, and what a publication tells others.

| event | about | starts |
|---|---|---|
| `revector.files.arrived` | `revector.collection.<name>` | the collection's sync |
| `revector.model.registered`, with `model` in its payload | `revector.collection.<name>` | the collection's upgrade |
| `revector.version.published`, with its lineage in its payload | `revector.collection.<name>` | whatever others hang on it |
| `revector.report.alarm`, with the reports that are beyond their limits | `revector.collection.<name>` | whatever others hang on it |

Prefect's open-source server has no webhooks; it has `POST /api/events`, which takes a list of events:

    [{"event": "revector.files.arrived", "id": "<uuid>", "occurred": "2026-03-02T03:00:00Z",
      "resource": {"prefect.resource.id": "revector.collection.docs"}, "payload": {}}]
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.events import DeploymentEventTrigger, Event, Resource, emit_event

if TYPE_CHECKING:
    from flows.flow_run.flow_job import FlowJob
    from storage.history.catalog import Publication


FILES_ARRIVED = "revector.files.arrived"
MODEL_REGISTERED = "revector.model.registered"
VERSION_PUBLISHED = "revector.version.published"
REPORT_ALARM = "revector.report.alarm"
GATHER = timedelta(seconds=10)
"""A run starts so long after the first of several announcements, and looks at the corpus after the last: they start one run."""


def about(collection: str) -> dict[str, str]:
    """The resource that events of a collection are about."""
    return {"prefect.resource.id": f"revector.collection.{collection}", "prefect.resource.name": collection}


def announce(client: SyncPrefectClient, collection: str, model: dict[str, Any] | None = None) -> Event:
    """Tell the server that files arrived for a collection; with `model`, that a model was registered. Gives the event."""
    payload = {"model": model} if model else {}
    event = Event(event=MODEL_REGISTERED if model else FILES_ARRIVED, resource=Resource(about(collection)), payload=payload)
    client.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()
    return event


def announce_publication(job: "FlowJob", before: "Publication | None", after: "Publication") -> None:
    """Tell others what readers have now, and what it was made from."""
    payload = {
        "collection": job.collection,
        "store": job.request.spec.store,
        "run_id": after.run_id,
        "flow_run_id": str(job.flow_run.id),
        "before": _lineage(before) if before else None,
        "after": _lineage(after),
    }
    related = [
        {"prefect.resource.id": f"revector.generation.{after.generation}", "prefect.resource.role": "generation"},
        {"prefect.resource.id": f"revector.chunks.{after.chunk_table}", "prefect.resource.role": "source"},
        {"prefect.resource.id": f"revector.run.{after.run_id}", "prefect.resource.role": "run"},
    ]
    resource = about(job.collection) | {
        "revector.generation": after.generation,
        "revector.version": str(after.version),
        "revector.space": after.space,
    }
    emit_event(VERSION_PUBLISHED, resource, related=related, payload=payload)


def announce_alarm(job: "FlowJob", version: int, kinds: list[str]) -> None:
    """Tell others which reports of a version found something beyond its limit."""
    payload = {"collection": job.collection, "store": job.request.spec.store, "version": version, "reports": kinds}
    emit_event(REPORT_ALARM, about(job.collection), payload=payload)


def _lineage(row: "Publication") -> dict[str, Any]:
    names = ("epoch", "action", "generation", "version", "chunk_table", "chunk_version", "space", "chunks", "dead_letters")
    return {name: getattr(row, name) for name in names}


def files_trigger(collection: str, enabled: bool) -> DeploymentEventTrigger:
    """Starts a deployment when files arrive."""
    return _trigger(f"{collection}: files arrived", FILES_ARRIVED, collection, enabled, None)


def model_trigger(collection: str, enabled: bool) -> DeploymentEventTrigger:
    """Starts a deployment with the model that was registered."""
    template = {"__prefect_kind": "jinja", "template": "{{ event.payload['model'] | tojson }}"}
    model = {"model": {"__prefect_kind": "json", "value": template}}
    return _trigger(f"{collection}: model registered", MODEL_REGISTERED, collection, enabled, model)


def _trigger(name: str, expect: str, collection: str, enabled: bool, parameters: dict[str, Any] | None) -> DeploymentEventTrigger:
    """Fires at the first event of a while, and starts the run at its end."""
    return DeploymentEventTrigger(
        name=f"revector {name}",
        enabled=enabled,
        expect={expect},
        match={"prefect.resource.id": f"revector.collection.{collection}"},
        within=GATHER if parameters is None else timedelta(0),
        schedule_after=GATHER if parameters is None else timedelta(0),
        parameters=parameters,
    )
