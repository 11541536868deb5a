"""Deployments as code: what the spec schedules, and the same on a Prefect server."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import prefect
import yaml
from cronsim import CronSim
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger, EventTrigger
from prefect.events.actions import RunDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from flows.evaluate import evaluate
from flows.flow_run.events import files_trigger, model_trigger
from flows.flow_run.slots import TAG, ensure_limit
from flows.maintain import maintain
from flows.reconcile import reconcile
from flows.report import report
from flows.sync import sync
from flows.upgrade import upgrade
from pipelines.spec.declared import CollectionSpec, Spec
from pipelines.spec.parsing import spec_file

RECONCILE = "*/5 * * * *"
"""When what was orphaned is ended."""
FLOWS: dict[str, Flow[..., Any]] = {
    "sync": sync,
    "upgrade": upgrade,
    "maintain": maintain,
    "evaluate": evaluate,
    "report": report,
    "reconcile": reconcile,
}
JOB: dict[str, Any] = {"env": {"PYTHONSAFEPATH": "1"}}
"""Prefect's workers run hooks as a script beside a `storage.py` of theirs, which must not take the place of our package."""
Trigger = Callable[[str, bool], DeploymentEventTrigger]
TRIGGERS: dict[str, Trigger] = {"sync": files_trigger, "upgrade": model_trigger}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A deployment as the spec would have it."""

    flow: str
    """A key of FLOWS."""
    name: str
    pool: str
    cron: str | None
    timezone: str
    active: bool
    """Whether it starts by itself, on its schedule and on events."""
    parameters: dict[str, Any]
    tags: tuple[str, ...]
    triggers: tuple[DeploymentEventTrigger, ...] = ()

    @property
    def full_name(self) -> str:
        return f"{FLOWS[self.flow].name}/{self.name}"

    @property
    def entrypoint(self) -> str:
        """Dotted: one of a path would leave its folder on `sys.path`."""
        return f"flows.{self.flow}.{self.flow}"

    @property
    def next(self) -> datetime | None:
        """When it starts by itself."""
        return next(CronSim(self.cron, datetime.now(ZoneInfo(self.timezone)))) if self.cron and self.active else None

    def deployment(self, pooled: bool = True) -> RunnerDeployment:
        """As Prefect's client takes it. `pooled`: for a work pool, not for the process that serves it."""
        made = FLOWS[self.flow].to_deployment(
            self.name,
            schedules=[Cron(self.cron, timezone=self.timezone, active=self.active)] if self.cron else [],
            parameters=self.parameters,
            triggers=list(self.triggers),
            tags=list(self.tags),
            work_pool_name=self.pool if pooled else None,
            job_variables=JOB if pooled else None,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        assert isinstance(made, RunnerDeployment)  # no coroutine: there is no event loop here
        return made


@dataclass(frozen=True, slots=True)
class Deployed:
    """What became of a deployment."""

    name: str
    status: str
    """created, updated, unchanged or removed."""
    changed: list[str] = field(default_factory=list)
    """What was not as the spec has it."""
    pool: str | None = None
    schedule: str | None = None
    timezone: str | None = None
    paused: bool = False
    next: str | None = None
    """When it starts by itself, ISO 8601."""


def wanted(spec: Spec, config: str, store: str | None = None, only: str | None = None) -> list[Wanted]:
    """The deployments of a spec, or of one collection of it. `config`: its file, as the flows will find it; `store`: instead of its own."""
    place = {"config": config, **({"store": store} if store else {})}
    chosen = {only: spec.collections[only]} if only else spec.collections
    made = [one for name, declared in chosen.items() for one in _of_collection(name, declared, place)]
    pool = next(iter(chosen.values())).run.pool
    return [*made, Wanted("reconcile", "all", pool, RECONCILE, "UTC", True, {}, (TAG,))]


def _of_collection(name: str, declared: CollectionSpec, place: Mapping[str, Any]) -> Iterator[Wanted]:
    when = declared.schedule
    for flow in ("sync", "upgrade", "maintain", "evaluate", "report"):
        yield Wanted(
            flow=flow,
            name=name,
            pool=declared.run.pool,
            cron=getattr(when, flow),
            timezone=when.timezone,
            active=not when.paused,
            parameters={"collection": name, **place},
            tags=(TAG, f"collection:{name}"),
            triggers=(TRIGGERS[flow](name, not when.paused),) if flow in TRIGGERS else (),
        )


def deploy(client: SyncPrefectClient, all_wanted: Sequence[Wanted]) -> list[Deployed]:
    """Write or update deployments, with their pools and the collections' limits. What is as the spec has it is left alone."""
    for pool in {one.pool for one in all_wanted}:
        _ensure_pool(client, pool)
    prepare(client, all_wanted)
    return [_deploy(client, one) for one in all_wanted]


def prepare(client: SyncPrefectClient, all_wanted: Sequence[Wanted]) -> None:
    """Create the limits of the collections."""
    for collection in {str(one.parameters["collection"]) for one in all_wanted if one.parameters}:
        ensure_limit(client, collection)


def serve(all_wanted: Sequence[Wanted], limit: int | None = None) -> None:
    """Deploy without a work pool, and run what is due in processes of this one, until it is interrupted. `limit`: at the same time."""
    prefect.serve(*(one.deployment(pooled=False) for one in all_wanted), limit=limit)


def _deploy(client: SyncPrefectClient, one: Wanted) -> Deployed:
    made = one.deployment()
    try:
        present = client.read_deployment_by_name(one.full_name)
    except ObjectNotFound:
        made.apply()
        return _deployed(one, "created")
    before, after = _present(client, present), _desired(one, made)
    changed = [key for key in after if before[key] != after[key]]
    if changed:
        made.apply()
    return _deployed(one, "updated" if changed else "unchanged", changed)


def _deployed(one: Wanted, status: str, changed: Sequence[str] = ()) -> Deployed:
    when = one.next.isoformat(timespec="minutes") if one.next else None
    return Deployed(one.full_name, status, list(changed), one.pool, one.cron, one.timezone, not one.active, when)


def _desired(one: Wanted, made: RunnerDeployment) -> dict[str, Any]:
    """What is held against the server's."""
    return {
        "schedule": [(one.cron, one.timezone, one.active)] if one.cron else [],
        "paused": False,
        "pool": one.pool,
        "job": JOB,
        "entrypoint": one.entrypoint,
        "parameters": one.parameters,
        "schema": made._parameter_openapi_schema.model_dump(exclude_unset=True),
        "enforced": True,
        "tags": sorted(one.tags),
        "description": made.description,
        "events": [_trigger(trigger, trigger.enabled, trigger.schedule_after, trigger.parameters) for trigger in one.triggers],
    }


def _present(client: SyncPrefectClient, deployment: DeploymentResponse) -> dict[str, Any]:
    """The same of what the server has."""
    return {
        "schedule": [_schedule(one.schedule, one.active) for one in deployment.schedules],
        "paused": deployment.paused,
        "pool": deployment.work_pool_name,
        "job": deployment.job_variables,
        "entrypoint": deployment.entrypoint,
        "parameters": deployment.parameters,
        "schema": deployment.parameter_openapi_schema,
        "enforced": deployment.enforce_parameter_schema,
        "tags": sorted(deployment.tags),
        "description": deployment.description,
        "events": [_automation(one) for one in client.read_resource_related_automations(f"prefect.deployment.{deployment.id}")],
    }


def _schedule(schedule: Any, active: bool) -> Any:
    """As `_desired` has it; one that a person made, of another kind, as it is."""
    return (schedule.cron, schedule.timezone, active) if isinstance(schedule, CronSchedule) else schedule


def _automation(made: Any) -> Any:
    """As `_desired` has it; one that a person made, of another kind, as it is."""
    action = made.actions[0] if made.actions else None
    if not isinstance(made.trigger, EventTrigger) or not isinstance(action, RunDeployment):
        return made
    return _trigger(made.trigger, made.enabled, action.schedule_after, action.parameters)


def _trigger(trigger: Any, enabled: bool, after: timedelta, parameters: Mapping[str, Any] | None) -> tuple[Any, ...]:
    return sorted(trigger.expect), _match(trigger), trigger.within, enabled, after, parameters


def _match(trigger: Any) -> dict[str, Any]:
    """The resources that a trigger takes, as JSON."""
    match = trigger.match
    return dict(match) if isinstance(match, dict) else dict(match.model_dump(mode="json"))


def _ensure_pool(client: SyncPrefectClient, name: str) -> None:
    """A work pool of processes; one that is there, of whatever type, stays as it is."""
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


def prune(client: SyncPrefectClient, spec: Spec, config: str) -> list[Deployed]:
    """Remove deployments of ours, of the same spec file, whose collection it no longer has."""
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    removed = []
    for deployment in client.read_deployments(deployment_filter=ours):
        if deployment.parameters.get("config") == config and deployment.name not in spec.collections:
            client.delete_resource_owned_automations(f"prefect.deployment.{deployment.id}")
            client.delete_deployment(deployment.id)
            removed.append(
                Deployed(f"{client.read_flow(deployment.flow_id).name}/{deployment.name}", "removed", pool=deployment.work_pool_name)
            )
    return removed


def prefect_yaml(all_wanted: Sequence[Wanted]) -> str:
    """The same deployments as a file for `prefect deploy --all`."""
    head = "# Written by `revector deploy --print`; `prefect deploy --all` deploys it. Work pools must be there.\n"
    content = {"name": "revector", "pull": [], "deployments": [_entry(one) for one in all_wanted]}
    return head + str(yaml.safe_dump(content, sort_keys=False, width=120))


def _entry(one: Wanted) -> dict[str, Any]:
    return {
        "name": one.name,
        "entrypoint": one.entrypoint,
        "work_pool": {"name": one.pool, "job_variables": JOB},
        "schedules": [{"cron": one.cron, "timezone": one.timezone, "active": one.active}] if one.cron else [],
        "parameters": one.parameters,
        "enforce_parameter_schema": True,
        "tags": list(one.tags),
        "triggers": [_event(trigger) for trigger in one.triggers],
    }


def _event(trigger: DeploymentEventTrigger) -> dict[str, Any]:
    return {
        "type": "event",
        "name": trigger.name,
        "enabled": trigger.enabled,
        "expect": sorted(trigger.expect),
        "match": _match(trigger),
        "within": trigger.within.total_seconds(),
        "schedule_after": trigger.schedule_after.total_seconds(),
        **({"parameters": trigger.parameters} if trigger.parameters else {}),
    }


def config_path(config: Path | None) -> str:
    """The spec's file, as flows on this machine find it."""
    return str(spec_file(config).resolve())
