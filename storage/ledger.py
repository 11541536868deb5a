"""The record of runs, and the token that makes one of them the committer.

_revector/<collection>/fence/<token>.json      who may commit: the highest token
_revector/<collection>/runs/<run_id>/          intent.json, shards/<n>.json, heartbeat.json, cancel.json, result.json
_revector/<collection>/live.json               which generations the newest run keeps current
"""

import getpass
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from pipelines.errors import Conflict
from storage.objects import Objects

HEARTBEAT_SECONDS = 5.0
LOOK_SECONDS = 1.0
"""Between two looks whether the run was cancelled."""
CANCEL = "cancel.json"
BROKEN_OFF = ("failed", "cancelled")
"""Of a run that ended before its work did: its `status`."""
WHERE = "REVECTOR_WHERE"
"""Set by whoever submits a run to a cluster: a JSON object of `kind`, `cluster` and `submission`."""


def folder(collection: str) -> str:
    return f"_revector/{collection}"


def new_run_id() -> str:
    """Sorts by time, unique without a coordinator."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"


def whoami() -> str:
    """The person or service account, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a passwd entry
        return str(os.getuid())


def whereabouts() -> dict[str, Any]:
    """Where this process runs, for the record: as whoever submitted it says, else host and process id."""
    told = os.environ.get(WHERE)
    here = {"host": socket.gethostname(), "pid": os.getpid()}
    return {"kind": "process", **here, **(orjson.loads(told) if told else {})}


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a token."""

    run_id: str
    host: str
    """Host name and process-id namespace: within one, `pid` and `started` tell whether the process lives."""
    pid: int
    started: str
    """The kernel's start time of the process: a reused pid has another."""

    @classmethod
    def this_process(cls, run_id: str) -> "Holder":
        return cls(run_id, _host(), os.getpid(), _start_time(os.getpid()) or "")

    def dead(self) -> bool | None:
        """Whether the process is gone; None if it runs where this one cannot look."""
        return _start_time(self.pid) != self.started if self.host == _host() else None


def _host() -> str:
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {namespace}".strip()


def _start_time(pid: int) -> str | None:
    """None if there is no such process. Where the kernel does not tell, existence is all there is."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # the latter: it ended while we read
        if Path("/proc/self/stat").exists():
            return None
        return "" if _exists(pid) else None
    return None if fields[0] == "Z" else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass(frozen=True)
class Fence:
    """A fencing token: whoever took a later one is the committer now."""

    objects: Objects
    collection: str
    token: int
    run_id: str

    def check(self) -> None:
        """Raises Conflict if another run has taken over. To be called before every commit."""
        successor = self.objects.get_json(_fence_key(self.collection, self.token + 1))
        if successor is not None:
            raise Conflict(f"run {self.run_id} of {self.collection} was overtaken by run {successor['run_id']}: nothing more is written")


def take_fence(objects: Objects, collection: str, run_id: str) -> Fence:
    """Become the committer of `collection`. Raises Conflict while another run is alive.

    A run whose process died is overtaken at once where that can be seen, else when its heartbeat stood still.
    """
    taken = objects.names(f"{folder(collection)}/fence")
    last = int(taken[-1].removesuffix(".json")) if taken else 0
    if last:
        _refuse_if_alive(objects, collection, last)
    fence = Fence(objects, collection, last + 1, run_id)
    holder = Holder.this_process(run_id)
    record = {"run_id": run_id, "host": holder.host, "pid": holder.pid, "started": holder.started, "at": now()}
    if not objects.put_if_absent(_fence_key(collection, fence.token), orjson.dumps(record)):
        raise Conflict(f"another run of {collection} has just begun: wait for it, then run again")
    return fence


def _fence_key(collection: str, token: int) -> str:
    return f"{folder(collection)}/fence/{token:012d}.json"


def _refuse_if_alive(objects: Objects, collection: str, token: int) -> None:
    record = objects.get_json(_fence_key(collection, token)) or {}
    holder = Holder(record["run_id"], record["host"], record["pid"], record["started"])
    run = Run(objects, collection, holder.run_id)
    if objects.exists(run.key("result.json")) or holder.dead():
        return
    if holder.dead() is None and _stands_still(objects, run):
        return
    raise Conflict(
        f"run {holder.run_id} of {collection} is in progress (process {holder.pid} on {holder.host.split()[0]}): "
        "wait for it, or stop it, then run again"
    )


def _stands_still(objects: Objects, run: "Run") -> bool:
    """Compares two readings instead of clocks: those of two machines may differ."""
    before = objects.get(run.key("heartbeat.json"))
    time.sleep(3 * HEARTBEAT_SECONDS)
    return objects.get(run.key("heartbeat.json")) == before and not objects.exists(run.key("result.json"))


def now() -> str:
    """UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Run:
    """The ledger of one run."""

    objects: Objects
    collection: str
    run_id: str

    def key(self, name: str) -> str:
        return f"{folder(self.collection)}/runs/{self.run_id}/{name}"

    def write(self, name: str, record: dict[str, Any]) -> None:
        self.objects.put(self.key(name), orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY))

    def read(self, name: str) -> dict[str, Any] | None:
        record: dict[str, Any] | None = self.objects.get_json(self.key(name))
        return record

    def exists(self, name: str) -> bool:
        return bool(self.objects.exists(self.key(name)))

    def receipt(self, shard: int, record: dict[str, Any]) -> bool:
        """Keep a shard's receipt; the first wins. False if there is another already."""
        return self.objects.put_if_absent(self.key(f"shards/{shard:06d}.json"), orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY))


def newest_run(objects: Objects, collection: str) -> Run | None:
    """The run that took the fence last: two that began within one second cannot be told apart by their ids."""
    taken = objects.names(f"{folder(collection)}/fence")
    record = objects.get_json(f"{folder(collection)}/fence/{taken[-1]}") if taken else None
    return Run(objects, collection, record["run_id"]) if record else None


def runs(objects: Objects, collection: str) -> list[Run]:
    """All runs of a collection, oldest first."""
    return [Run(objects, collection, name) for name in objects.names(f"{folder(collection)}/runs")]


@dataclass(frozen=True, slots=True)
class Declaration:
    """What the newest run was told."""

    declared: str
    """The generation of the spec's model."""
    live: tuple[str, ...]
    """The generations that it keeps current."""


def declare(objects: Objects, collection: str, declaration: Declaration) -> None:
    """Replace what `declaration` gives."""
    objects.put(_live_key(collection), orjson.dumps(declaration))


def declaration(objects: Objects, collection: str) -> Declaration | None:
    """What the newest run was told; None before the first."""
    record = objects.get_json(_live_key(collection))
    return Declaration(record["declared"], tuple(record["live"])) if record else None


def _live_key(collection: str) -> str:
    return f"{folder(collection)}/live.json"


def cancel(run: Run, by: str) -> None:
    """Ask a run to stop, wherever its process is: it looks every LOOK_SECONDS."""
    run.write(CANCEL, {"by": by, "at": now()})


def _stop_signal() -> signal.Signals:
    """The command line handles SIGTERM, Python itself SIGINT unless a shell started it in the background."""
    handled = (each for each in (signal.SIGTERM, signal.SIGINT) if callable(signal.getsignal(each)))
    return next(handled, signal.SIGTERM)


class Heartbeat:
    """Shows, while it is entered, that a run's process lives and how far it is: `heartbeat.json`, rewritten every few seconds.

    When it finds that the run was cancelled, it interrupts the main thread, as Ctrl-C and SIGTERM do.
    """

    def __init__(self, run: Run, progress: Callable[[], Any] = lambda: None) -> None:
        """`progress`: what to keep of the present moment, as JSON or a dataclass."""
        self._run = run
        self._progress = progress
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)
        self.cancelled = False
        """Whether somebody asked the run to stop."""

    def __enter__(self) -> "Heartbeat":
        self._beat(0)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        began, beats = time.monotonic(), 0
        while not self._stop.wait(LOOK_SECONDS):
            with suppress(OSError):  # a store that is away for a moment: the next look tells, and the fence guards the commits
                if time.monotonic() - began >= (beats + 1) * HEARTBEAT_SECONDS:
                    beats += 1
                    self._beat(beats)
                if not self.cancelled and self._run.exists(CANCEL):
                    self.cancelled = True
                    signal.pthread_kill(threading.main_thread().ident or 0, _stop_signal())

    def _beat(self, beat: int) -> None:
        self._run.write("heartbeat.json", {"beat": beat, "progress": self._progress()})
