"""`revector` commands in processes of their own that die, or stand still, at a named write: by a real signal, and no hook in the product.

A process is forked from one that has imported everything (the standard library's fork server), which takes a fifth of a second. Before
the command begins, everything that writes is wrapped: each write has a name, as the commit protocol calls it, is noted, and springs the
trap if that was set for it.
"""

import ctypes
import inspect
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from lance import LanceDataset
from lance.dataset import Tags
from lance.fragment import LanceFragment
from lance.optimize import Compaction

import storage.history.catalog
import storage.store.lance
from storage.store.objects import Objects

HEARTBEAT_SECONDS = 0.3
PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.support.warm"])
WRITES: list[tuple[Any, str]] = [
    (Objects, "put"),
    (Objects, "put_if_absent"),
    (Objects, "delete"),
    (storage.store.lance, "write_fragments"),
    (storage.history.catalog, "write_fragments"),
    (LanceFragment, "delete_rows"),
    (LanceDataset, "commit"),
    (LanceDataset, "create_index_uncommitted"),
    (LanceDataset, "commit_existing_index_segments"),
    (LanceDataset, "cleanup_old_versions"),
    (Compaction, "commit"),
    (Tags, "create"),
    (Tags, "delete"),
]
"""All ways in which the product changes a store."""
Act = Callable[[Sequence[Any]], None]


@dataclass(frozen=True, slots=True)
class Point:
    """A moment in a run."""

    name: str
    """Of a write: fence, intent, chunk commit, receipt, vector commit, catalog swap ..."""
    number: int = 1
    """Which of the writes of that name."""
    after: bool = False
    """Once it has landed."""

    def __str__(self) -> str:
        number = f" {self.number}" if self.number > 1 else ""
        return f"{'after' if self.after else 'before'} {self.name}{number}"


def die(_: Sequence[Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_with_all(_: Sequence[Any]) -> None:
    """The whole group, as a container that is killed."""
    os.killpg(os.getpid(), signal.SIGKILL)


def stop(_: Sequence[Any]) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def kill_worker(written: Sequence[Any]) -> None:
    """The actor whose receipt is being written: it is at its next shard by then."""
    worker = orjson.loads(written[-1])["worker"]
    os.kill(int(worker.rpartition(":")[2]), signal.SIGKILL)


def kill_ray(_: Sequence[Any]) -> None:
    """All of Ray: its server, its node, and the actors."""
    for pid in members(os.getsid(0)):
        if pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Trap:
    point: Point
    act: Act = die


@dataclass(frozen=True)
class Setting:
    """How a command runs."""

    trap: Trap | None = None
    elsewhere: bool = False
    """It looks as if it ran on another host, from where a process that stands still cannot be told from one that is gone."""
    ray: bool = False
    """Embed on Ray actors, however little there is to do."""
    spill: bool = False
    """Compare tables on disk, however small they are."""
    shard_tokens: int = 64
    """Of each shard that is embedded, and committed alone."""
    silence: float = 8.0
    """Seconds without an answer, after which a request to the object store is given up and made again."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    """The exit code; the number of a signal, negative."""
    out: str
    err: str
    writes: tuple[Point, ...]
    """Those that were begun, in order."""

    @property
    def result(self) -> Any:
        """What the command put on stdout with --json."""
        return orjson.loads(self.out)

    @property
    def line(self) -> str:
        """The last line on stderr: the error, if there was one."""
        return (self.err.splitlines() or [""])[-1]


class Command:
    """A command that is running."""

    def __init__(self, process: Any, notes: Path) -> None:
        self._process = process
        self._notes = notes

    def wait(self, seconds: float = 120.0) -> Ended:
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise TimeoutError(f"expected the command to end within {seconds:.0f} s, found it {self._state()}: {self._ended(0)}")
        return self._ended(self._process.exitcode)

    def wait_stopped(self, seconds: float = 60.0) -> None:
        """Until it stands still. Raises TimeoutError, also if it ended before."""
        deadline = time.monotonic() + seconds
        while self._state() != "T":
            if self._process.exitcode is not None or time.monotonic() > deadline:
                raise TimeoutError(f"expected the command to come to its trap, found {self._ended(self._process.exitcode or 0)}")
            time.sleep(0.005)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """It, and all that it has started."""
        for pid in [self._process.pid, *members(self._process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _state(self) -> str:
        try:
            return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(") ")[2][0]
        except (FileNotFoundError, ProcessLookupError):
            return ""

    def _ended(self, code: int) -> Ended:
        out, err, writes = ((self._notes / name).read_text(errors="replace") for name in ("out", "err", "writes"))
        seen = Counter[str]()
        return Ended(code, out, err, tuple(_counted(name, seen) for name in writes.splitlines()))


def _counted(name: str, seen: Counter[str]) -> Point:
    seen[name] += 1
    return Point(name, seen[name])


@contextmanager
def started(folder: Path, *arguments: str, setting: Setting | None = None) -> Iterator[Command]:
    """`revector` with `arguments` in `folder`. On leaving, what is left of it is killed."""
    with tempfile.TemporaryDirectory() as notes:
        for name in ("out", "err", "writes"):
            (Path(notes) / name).touch()
        process = FORKS.Process(target=_live, args=(folder, arguments, setting or Setting(), Path(notes)), daemon=False)
        process.start()
        command = Command(process, Path(notes))
        try:
            yield command
        finally:
            command.kill()
            process.join()


def run(folder: Path, *arguments: str, setting: Setting | None = None) -> Ended:
    """The same, to its end."""
    with started(folder, *arguments, setting=setting) as command:
        return command.wait()


def end_with_the_rest() -> None:
    """Leave nothing behind when a person stops the tests: the fork server ends with them, and this process, even a stopped one, with it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def members(session: int) -> list[int]:
    """The processes of a session."""
    return [int(process.name) for process in Path("/proc").glob("[0-9]*") if _session(process) == session]


def _session(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(") ")[2].split()[3])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _live(folder: Path, arguments: Sequence[str], setting: Setting, notes: Path) -> None:
    """What the process does."""
    end_with_the_rest()
    os.setsid()
    os.chdir(folder)
    os.environ.update(setting.environment)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(notes / name, os.O_WRONLY), number)
    _make_small(setting)
    _wrap(setting.trap, notes / "writes")
    from flows.cli.main import main

    sys.argv = ["revector", *arguments]
    main()


def _make_small(setting: Setting) -> None:
    """Many steps for few rows, and an index of them; little is left to the clock."""
    from datetime import timedelta

    from storage import who
    from storage.history import fence, heartbeat
    from storage.store import s3, spill
    from storage.tables import index
    from workers.ingest import corpus_pass
    from workers.runs import filling
    from workers.upkeep import maintaining

    heartbeat.HEARTBEAT_SECONDS = fence.HEARTBEAT_SECONDS = HEARTBEAT_SECONDS
    s3.SILENCE = setting.silence
    corpus_pass.STEP_ROWS = 20
    filling.COMMIT_SECONDS = 0.0
    filling.FIRST_SHARD_TOKENS = filling.LARGEST_SHARD_TOKENS = setting.shard_tokens
    index.INDEX_ROWS = 30
    maintaining.YOUNG = timedelta(0)
    if setting.spill:
        spill.MEMORY_BYTES = 1
    if setting.elsewhere:
        who._host = lambda: "another"
    if setting.ray:
        filling.ACTOR_TOKENS, filling.HERE_SECONDS = 1, 0.0
    else:
        filling.Filling._may_run_here = lambda _: True  # type: ignore[method-assign]  # else after a bad end it would be Ray


def _wrap(trap: Trap | None, notes: Path) -> None:
    seen = Counter[str]()
    lock = threading.Lock()
    out = os.open(notes, os.O_WRONLY | os.O_APPEND)

    def springs(name: str) -> bool:
        """Note the write; whether the trap is set for it."""
        with lock:
            seen[name] += 1
            os.write(out, f"{name}\n".encode())
            return trap is not None and (trap.point.name, trap.point.number) == (name, seen[name])

    def through(owner: Any, method: str) -> Callable[..., Any]:
        real = getattr(owner, method)

        def attempt(*args: Any, **options: Any) -> Any:
            struck = springs(name_of(owner, method, args))
            if struck and trap and not trap.point.after:
                trap.act(args)
            result = real(*args, **options)
            if struck and trap and trap.point.after:
                trap.act(args)
            return result

        return attempt

    for owner, method in WRITES:
        static = isinstance(inspect.getattr_static(owner, method), staticmethod)
        wrapped = through(owner, method)
        setattr(owner, method, staticmethod(wrapped) if static else wrapped)


def name_of(owner: Any, method: str, args: Sequence[Any]) -> str:
    """What the commit protocol calls a write."""
    match method:
        case "put" | "put_if_absent":
            return _object(args[1])
        case "delete" if owner is Tags:
            return "tag removal"
        case "delete":
            return f"removal of {_object(args[1])}"
        case "write_fragments":
            return f"staged {_table(args[1])} rows"
        case "commit" if owner is LanceDataset:
            return _commit(*args[:2])
        case "commit":
            return f"{_table(args[0].uri)} compaction"
        case "create":
            return "tag"
        case "delete_rows":
            return "deletion file"
        case "commit_existing_index_segments":
            return "index"
        case "create_index_uncommitted":
            return "index part"
        case _:
            return "clean-up"


def _object(key: str) -> str:
    """`_revector/<collection>/runs/<run>/intent.json` is the intent."""
    parts = key.removesuffix(".json").split("/")[1:]
    kinds = {"_doctor": "examination", "files": "file list", "shards": "receipt", "built": "built record", "live": "live.json"}
    part = parts[0] if len(parts) == 1 or parts[0] == "_doctor" else parts[3] if parts[1] == "runs" and len(parts) > 3 else parts[1]
    return kinds.get(part, part)


def _commit(uri: str, transaction: Any) -> str:
    table = _table(uri)
    if transaction.read_version == 0:
        return f"{table} table"
    return "catalog swap" if table == "catalog" else f"{table} commit"


def _table(uri: str) -> str:
    if "/_doctor/" in uri:
        return "examination"
    name = uri.rstrip("/").rpartition("/")[2]
    return "chunk" if ".chunks." in name else "vector" if ".vectors." in name else "catalog"
