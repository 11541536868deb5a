"""The record of runs, and the token that makes one of them the committer.

_revector/<collection>/fence/<token>.json      who may commit: the highest token
_revector/<collection>/runs/<run_id>/          intent.json, shards/<n>.json, heartbeat.json, cancel.json, result.json
_revector/<collection>/live.json               which generations the newest run keeps current
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from storage.collection import Collection

BROKEN_OFF = ("failed", "cancelled")
"""Of a run that ended before its work did: its `status`."""


@dataclass(frozen=True)
class Run:
    """The ledger of one run."""

    collection: Collection
    run_id: str

    def key(self, name: str) -> str:
        return self.collection.key(f"runs/{self.run_id}/{name}")

    def write(self, name: str, record: dict[str, Any]) -> None:
        self.collection.objects.put(self.key(name), orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY))

    def read(self, name: str) -> dict[str, Any] | None:
        record: dict[str, Any] | None = self.collection.objects.get_json(self.key(name))
        return record

    def exists(self, name: str) -> bool:
        return bool(self.collection.objects.exists(self.key(name)))

    def receipt(self, shard: int, record: dict[str, Any]) -> bool:
        """Keep a shard's receipt; the first wins. False if there is another already."""
        return self.collection.objects.put_if_absent(
            self.key(f"shards/{shard:06d}.json"), orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY)
        )

    def forget(self) -> None:
        """Take the run off the record. Its result goes last, so that a removal which was cut off is gone on with."""
        objects, folder = self.collection.objects, self.collection.key(f"runs/{self.run_id}")
        for key in objects.walk(folder):
            if key != self.key("result.json"):
                objects.delete(key)
        objects.remove(folder)


def newest_run(collection: Collection) -> Run | None:
    """The run that took the fence last: two that began within one second cannot be told apart by their ids."""
    taken = collection.objects.names(collection.key("fence"))
    record = collection.objects.get_json(collection.key(f"fence/{taken[-1]}")) if taken else None
    return Run(collection, record["run_id"]) if record else None


def newest_first(collection: Collection) -> Iterator[Run]:
    """All runs: those whose token is on record in the order of these, before them the others in that of their ids."""
    place, fenced = collection.key("fence"), set[str]()
    for name in reversed(collection.objects.names(place)):
        if record := collection.objects.get_json(f"{place}/{name}"):
            fenced.add(record["run_id"])
            yield Run(collection, record["run_id"])
    yield from (run for run in reversed(runs(collection)) if run.run_id not in fenced)


def runs(collection: Collection) -> list[Run]:
    """The runs that are on record, oldest first: their ids begin with their time."""
    return [Run(collection, name) for name in collection.objects.names(collection.key("runs"))]
