"""What a flow run shows of itself while it goes on: labels, by which hooks and the reconciler find its run, its process and its slot."""

import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun

from storage.who import Holder

BEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0
"""Of a slot, without a sign of life; the least that Prefect takes."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What the labels of a flow run say."""

    process: Holder
    """The flow's own; its `run_id` is that of the run in the ledger."""
    beat: int
    lease: UUID | None
    """Of the slot that it holds, or held last."""
    waiting: bool
    """Whether it waits for a slot."""
    left: bool
    """Whether it ended by itself: nothing of it goes on, and it holds nothing."""


def run_id(flow_run: FlowRun) -> str:
    """The id in the ledger of the run that a flow run starts: of nothing but the flow run."""
    began = (flow_run.start_time or datetime.now(UTC)).astimezone(UTC)
    return f"{began:%Y%m%dT%H%M%S%f}-{flow_run.id.hex[:8]}-{flow_run.run_count}"


def sign(flow_run: FlowRun) -> Sign | None:
    """None of a flow run that has not begun."""
    labels = {name.removeprefix("revector."): value for name, value in (flow_run.labels or {}).items()}
    if "beat" not in labels:
        return None
    process = Holder(str(labels["run"]), str(labels["host"]), int(labels["pid"]), str(labels["started"]))
    lease = labels.get("lease")
    return Sign(process, int(labels["beat"]), UUID(str(lease)) if lease else None, bool(labels.get("waiting")), bool(labels.get("left")))


class Presence:
    """While it is entered, the labels of a flow run are current, and its lease is renewed."""

    def __init__(self, flow_run: FlowRun) -> None:
        self._flow_run = flow_run.id
        process = Holder.this_process(run_id(flow_run))
        self._labels: dict[str, Any] = {"run": process.run_id, "host": process.host, "pid": process.pid, "started": process.started}
        self._beats = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="presence", daemon=True)
        self._closing = ExitStack()
        self._client = self._closing.enter_context(get_client(sync_client=True))
        self.lease: UUID | None = None
        """Of the slot that is held."""

    def __enter__(self) -> "Presence":
        self.show()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with self._closing:
            self.show({"left": True})

    def show(self, labels: Mapping[str, Any] | None = None) -> None:
        """Add `labels`. A server that is away for a moment gets them with the next beat."""
        with self._lock:
            self._labels.update(labels or {})
            shown = {f"revector.{name}": value for name, value in (self._labels | {"beat": self._beats}).items()}
            with suppress(httpx.HTTPError):
                self._client.update_flow_run_labels(self._flow_run, shown)

    def _watch(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            self._beats += 1
            self.show()
            if lease := self.lease:
                with suppress(httpx.HTTPError):  # the server is away for a moment, or has forgotten it
                    self._client.renew_concurrency_lease(lease, LEASE_SECONDS)
