"""One run of a collection at a time: a global concurrency limit of Prefect's, shared by all flows that commit.

A courtesy to those who wait: what guards the commits is the fence in the store. Prefect's own `concurrency()` renews a lease, too, but
does not do here. A server keeps leases in memory unless it is told otherwise, and one that was started anew counts the slot for ever,
which nobody can give back then; with leases in files, a server that is away for as long as a lease takes the slot of a run that goes on.
So whoever waits, and the reconciler, look whether somebody holds a slot that is counted.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
from prefect.client.schemas.objects import ConcurrencyLeaseHolder, FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from flows.flow_run.presence import LEASE_SECONDS, Presence, sign

SLOT_SECONDS = 3600.0
"""To wait for a run in progress."""
LOOK_SECONDS = 2.0
"""Between two looks whether the slot is free."""
TAG = "revector"
RECENT = 50
"""Flow runs that ended last, of which one may have left its slot taken."""


class SlotTaken(Exception):
    """Another flow run has the slot, and keeps it."""


class Superseded(Exception):
    """Another flow run waits already, and will do the same."""


def limit_name(collection: str) -> str:
    return f"revector-{collection}"


def ensure_limit(client: SyncPrefectClient, collection: str) -> bool:
    """Create the collection's limit. False if it is there: one that a person set stays as it is."""
    try:
        client.read_global_concurrency_limit_by_name(limit_name(collection))
        return False
    except ObjectNotFound:
        with suppress(ObjectAlreadyExists):
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=limit_name(collection), limit=1))
        return True


@contextmanager
def slot(collection: str, flow_run: FlowRun, presence: Presence) -> Iterator[None]:
    """Hold the collection's slot. Raises Superseded if an equal flow run waits for it already, SlotTaken after SLOT_SECONDS."""
    with get_client(sync_client=True) as client:
        ensure_limit(client, collection)
        lease = _take(client, collection, flow_run) or _wait(client, collection, flow_run, presence)
        presence.lease = lease
        presence.show({"lease": str(lease), "waiting": False})
        try:
            yield
        finally:
            presence.lease = None
            with suppress(httpx.HTTPError):  # the lease ends by itself; one that the server forgot, `free_orphaned` ends
                client.release_concurrency_slots_with_lease(lease)


def _take(client: SyncPrefectClient, collection: str, flow_run: FlowRun) -> UUID | None:
    """The lease of the slot; None if it is taken."""
    holder = ConcurrencyLeaseHolder(type="flow_run", id=flow_run.id)
    try:
        reply = client.increment_concurrency_slots_with_lease([limit_name(collection)], 1, "concurrency", LEASE_SECONDS, holder)
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.LOCKED:
            return None
        raise
    return UUID(reply.json()["lease_id"])


def _wait(client: SyncPrefectClient, collection: str, flow_run: FlowRun, presence: Presence) -> UUID:
    presence.show({"waiting": True})
    if _waits_already(client, collection, flow_run):
        presence.show({"waiting": False})
        raise Superseded(f"another run of this flow waits for {collection} already, and will find what this one would have")
    get_run_logger().info("another run has the slot of %s: waiting for it", collection)
    deadline, orphaned = time.monotonic() + SLOT_SECONDS, False
    while time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        with suppress(httpx.TransportError):  # a server that is away for a while
            orphaned = free_orphaned(client, collection, orphaned)
            if lease := _take(client, collection, flow_run):
                return lease
    raise SlotTaken(f"expected the slot of {collection} within {SLOT_SECONDS:.0f} s, found another run in progress: wait for it")


def _waits_already(client: SyncPrefectClient, collection: str, flow_run: FlowRun) -> bool:
    """Whether an equal flow run that began earlier waits: it will look at the corpus after this moment."""
    for other in going_on(client, collection):
        equal = other.flow_id == flow_run.flow_id and other.parameters == flow_run.parameters
        if equal and is_waiting(other) and _order(other) < _order(flow_run):
            return True
    return False


def is_waiting(flow_run: FlowRun) -> bool:
    """For a slot."""
    shown = sign(flow_run)
    return shown is not None and shown.waiting


def _order(flow_run: FlowRun) -> tuple[str, str]:
    return str(flow_run.start_time), str(flow_run.id)


def going_on(client: SyncPrefectClient, collection: str | None = None) -> list[FlowRun]:
    """Flow runs of ours that Prefect believes to be at work, of all collections or of one."""
    return client.read_flow_runs(flow_run_filter=_ours(collection, StateType.RUNNING, StateType.CANCELLING))


def _ended(client: SyncPrefectClient, collection: str) -> list[FlowRun]:
    final = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
    return client.read_flow_runs(flow_run_filter=_ours(collection, *final), sort=FlowRunSort.END_TIME_DESC, limit=RECENT)


def _ours(collection: str | None, *states: StateType) -> FlowRunFilter:
    tags = [TAG, *([f"collection:{collection}"] if collection else [])]
    return FlowRunFilter(
        tags=FlowRunFilterTags(all_=tags),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))),
    )


def free_orphaned(client: SyncPrefectClient, collection: str, before: bool = False) -> bool:
    """Give back the slot of flow runs that have ended. Gives whether nobody seems to hold a slot that is taken.

    Where that was so `before`, too, the count is what a server that was started anew has forgotten the lease of: it is set to none.
    """
    try:
        taken = client.read_global_concurrency_limit_by_name(limit_name(collection)).active_slots
    except ObjectNotFound:
        return False
    if not taken:
        return False
    for flow_run in _ended(client, collection):
        if (shown := sign(flow_run)) and shown.lease:
            client.release_concurrency_slots_with_lease(shown.lease)  # nothing happens if it was given back
    if not all(is_waiting(flow_run) for flow_run in going_on(client, collection)):
        return False
    if before:
        client.update_global_concurrency_limit(limit_name(collection), GlobalConcurrencyLimitUpdate(active_slots=0))
    return not before
