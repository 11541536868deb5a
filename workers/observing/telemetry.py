"""What a run tells the outside: marts in the store, and metrics of its driver for Prometheus, as files or to a Pushgateway.

Metrics say how the newest run of a collection stands or ended. What must outlive a run that fails, when the last one went well, is kept
apart: in a file of its own, and a Pushgateway keeps what is not pushed anew.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from cronsim import CronSim

from pipelines.errors import Conflict
from pipelines.logs import bound, log, warn
from pipelines.spec.running import MartsSpec, ScheduleSpec
from storage.collection import Collection
from storage.history.catalog import Publication
from storage.marts.handing import leave
from storage.marts.standing_rows import Looked
from workers.observing.account import Account
from workers.observing.metrics import Measures, of_account, of_outcome, of_publication, of_result

METRICS = "REVECTOR_METRICS"
"""A folder, or the http(s):// address of a Pushgateway."""
EXPORT_SECONDS = 5.0
STOPPED = ("built", "gate failed", "beyond its limit")
"""Outcomes that leave readers without what the run was for."""
PUSH_SECONDS = 2.0
"""That a Pushgateway may take: a run that is cancelled waits for it twice."""

T = TypeVar("T")
Sink = Callable[[str, Measures], None]
"""Takes what is to be exported, under a name: "" or "success"."""


class Observer:
    """Watches one run, exports what it sees, and leaves the marts of its collection. That this fails never ends a run."""

    def __init__(self, command: str, collection: Collection, schedule: ScheduleSpec, marts: MartsSpec) -> None:
        self._collection = collection
        self._marts = marts
        self._left: bool | None = None
        self._looked: Looked | None = None
        self._labels = {"collection": collection.name, "command": command}
        self._schedule = schedule
        self._sink = _sink(self._labels)
        self._began = time.time()
        self._account: Account | None = None
        self._moment: Any = None
        self._progressed = self._began
        self._published: Publication | None = None
        self._result: Any = None
        self._outcome = "running"
        self._error: BaseException | None = None
        self._warned = False

    @contextmanager
    def follow(self, account: Account) -> Iterator[None]:
        """Export every few seconds, while within it, how the run of `account` stands."""
        self._account = account
        stop = threading.Event()
        thread = threading.Thread(target=self._repeat, args=(stop,), name="metrics", daemon=True)
        if self._sink:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if self._sink:
                thread.join()

    def published(self, publication: Publication | None) -> None:
        """Export `publication` as what readers have by now."""
        self._published = publication

    def saw(self, looked: Looked) -> None:
        """Note what the run saw of the source."""
        self._looked = looked

    def ended(self, result: T, outcome: str) -> T:
        """Note that the run came to its end with `outcome`, which may be that a gate failed. Gives back its `result`."""
        self._result, self._outcome = result, outcome
        return result

    def close(self, error: BaseException | None) -> None:
        """The run is over: export how it ended. A run that could not begin because of another leaves the stage to that."""
        if error is not None:
            self._outcome, self._error = "cancelled" if isinstance(error, KeyboardInterrupt) else "failed", error
        log("run ended", status=self._outcome, seconds=time.time() - self._began, **({"error": type(error).__name__} if error else {}))
        if not self._account and isinstance(error, Conflict):
            return
        if error is None or self._account:  # what ended before it began has left nothing on record
            self._left = leave(self._collection, self._looked, self._marts)
        if self._sink:
            self._export()
            if error is None and self._outcome not in STOPPED:
                self._write("success", self._success())

    def _repeat(self, stop: threading.Event) -> None:
        while True:
            self._export()
            if stop.wait(EXPORT_SECONDS):
                return

    def _export(self) -> None:
        self._write("", [*self._now()])

    def _now(self) -> Iterator[Any]:
        now = time.time()
        yield from of_outcome(self._began, now, self._outcome, self._error)
        if self._left is not None:
            yield "revector_marts_left", {}, self._left
        if self._account:
            if self._account.moment != self._moment:
                self._moment, self._progressed = self._account.moment, now
            yield from of_account(self._account, self._progressed, self._outcome == "running")
        if self._published:
            yield from of_publication(self._published)
        if self._result:
            yield from of_result(self._result)

    def _success(self) -> Measures:
        return [("revector_last_success_timestamp_seconds", {}, time.time()), ("revector_next_update_timestamp_seconds", {}, self._due())]

    def _due(self) -> float:
        """When the schedule comes to it next; infinite without one."""
        schedule = self._schedule
        command = self._labels["command"]
        expression = schedule.sync if command == "apply" else getattr(schedule, command, None)
        if not expression or schedule.paused:
            return float("inf")
        return next(CronSim(expression, datetime.now(ZoneInfo(schedule.timezone)))).timestamp()

    def _write(self, name: str, measures: Measures) -> None:
        if self._sink is None:
            return
        try:
            self._sink(name, measures)
        except (OSError, HTTPException, ValueError) as error:
            if not self._warned:
                warn("metrics not written", error=type(error).__name__, where=os.environ.get(METRICS, ""))
            self._warned = True


@contextmanager
def observe(
    command: str, collection: Collection, schedule: ScheduleSpec | None = None, marts: MartsSpec | None = None
) -> Iterator[Observer]:
    """An Observer of all that is done within, which sees how it ends, also before a run has begun."""
    observer = Observer(command, collection, schedule or ScheduleSpec(), marts or MartsSpec())
    with bound(collection=collection.name):
        try:
            yield observer
        except BaseException as error:
            observer.close(error)
            raise
        observer.close(None)


def _sink(labels: dict[str, str]) -> Sink | None:
    """Where REVECTOR_METRICS says; None without it."""
    where = os.environ.get(METRICS)
    if not where:
        return None
    return _pushgateway(where, labels) if where.startswith(("http://", "https://")) else _textfiles(Path(where), labels)


def _textfiles(folder: Path, labels: dict[str, str]) -> Sink:
    from prometheus_client import write_to_textfile

    def write(name: str, measures: Measures) -> None:
        parts = ["revector_" + labels["collection"], labels["command"], *([name] if name else []), "prom"]
        write_to_textfile(str(folder / ".".join(parts)), _registry(measures, labels))

    return write


def _pushgateway(address: str, labels: dict[str, str]) -> Sink:
    from prometheus_client import pushadd_to_gateway

    def push(_: str, measures: Measures) -> None:
        pushadd_to_gateway(address, "revector", _registry(measures, labels), grouping_key=labels, timeout=PUSH_SECONDS)

    return push


def _registry(measures: Measures, labels: dict[str, str]) -> Any:
    from prometheus_client import CollectorRegistry

    from workers.observing.metrics import families

    registry = CollectorRegistry()
    registry.register(families(measures, labels))
    return registry
