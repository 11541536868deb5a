"""The fencing token that makes one run of a collection the committer."""

import time
from dataclasses import dataclass

import orjson

from pipelines.errors import Conflict
from storage.collection import Collection
from storage.history.heartbeat import HEARTBEAT_SECONDS
from storage.history.ledger import Run
from storage.who import Holder, now


@dataclass(frozen=True)
class Fence:
    """A fencing token: whoever took a later one is the committer now."""

    collection: Collection
    token: int
    run_id: str

    def check(self) -> None:
        """Raises Conflict if another run has taken over. To be called before every commit."""
        successor = self.collection.objects.get_json(_fence_key(self.collection, self.token + 1))
        if successor is not None:
            raise Conflict(f"run {self.run_id} of {self.collection} was overtaken by run {successor['run_id']}: nothing more is written")


def take_fence(collection: Collection, run_id: str) -> Fence:
    """Become the committer of `collection`. Raises Conflict while another run is alive.

    A run whose process died is overtaken at once where that can be seen, else when its heartbeat stood still.
    """
    last = max(tokens(collection), default=0)
    if last:
        _refuse_if_alive(collection, last)
    fence = Fence(collection, last + 1, run_id)
    holder = Holder.this_process(run_id)
    record = {"run_id": run_id, "host": holder.host, "pid": holder.pid, "started": holder.started, "at": now()}
    if not collection.objects.put_if_absent(_fence_key(collection, fence.token), orjson.dumps(record)):
        raise Conflict(f"another run of {collection} has just begun: wait for it, then run again")
    if max(tokens(collection)) != fence.token:
        # Paused since it looked for the last one: its own was taken by another meanwhile, and tidied away.
        collection.objects.delete(_fence_key(collection, fence.token))
        raise Conflict(f"other runs of {collection} have begun meanwhile: wait for the last one, then run again")
    return fence


def tokens(collection: Collection) -> list[int]:
    """The fencing tokens that are on record, oldest first."""
    return [int(name.removesuffix(".json")) for name in collection.objects.names(collection.key("fence"))]


def run_of(collection: Collection, token: int) -> Run | None:
    """The run that took `token`; None if that is not on record."""
    record = collection.objects.get_json(_fence_key(collection, token))
    return Run(collection, record["run_id"]) if record else None


def forget(collection: Collection, token: int) -> None:
    """Take a token off the record. For one that nobody asks for any more: see `retention.idle_tokens`."""
    collection.objects.delete(_fence_key(collection, token))


def _fence_key(collection: Collection, token: int) -> str:
    return collection.key(f"fence/{token:012d}.json")


def _refuse_if_alive(collection: Collection, token: int) -> None:
    record = collection.objects.get_json(_fence_key(collection, token)) or {}
    holder = Holder(record["run_id"], record["host"], record["pid"], record["started"])
    run = Run(collection, holder.run_id)
    if run.exists("result.json") or holder.dead():
        return
    if holder.dead() is None and _stands_still(run):
        return
    raise Conflict(
        f"run {holder.run_id} of {collection} is in progress (process {holder.pid} on {holder.host.split()[0]}): "
        "wait for it, or stop it, then run again"
    )


def _stands_still(run: Run) -> bool:
    """Compares two readings instead of clocks: those of two machines may differ."""
    before = run.read("heartbeat.json")
    time.sleep(3 * HEARTBEAT_SECONDS)
    return run.read("heartbeat.json") == before and not run.exists("result.json")
