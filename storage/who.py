"""Who and where: run ids, the time, the person, and the process that holds a token."""

import getpass
import os
import re
import secrets
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from pipelines.errors import SpecError

WHERE = "REVECTOR_WHERE"
"""Set by whoever submits a run to a cluster: a JSON object of `kind`, `cluster` and `submission`."""


def new_run_id() -> str:
    """An id that sorts by time (UTC, microseconds), and is unique without a coordinator."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"


def check_run_id(run_id: str) -> str:
    """`run_id` if it can name a folder and nothing else. Raises SpecError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", run_id):
        raise SpecError(f"expected the id of a run, of letters, digits, '_' and '-', at most 100, found {run_id!r}")
    return run_id


def whoami() -> str:
    """The person or service account, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a passwd entry
        return str(os.getuid())


def whereabouts() -> dict[str, Any]:
    """Where this process runs, for the record: as whoever submitted it says, else host and process id."""
    submission = os.environ.get(WHERE)
    here = {"host": socket.gethostname(), "pid": os.getpid()}
    return {"kind": "process", **here, **(orjson.loads(submission) if submission else {})}


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


def now() -> str:
    """This moment in UTC, as ISO 8601 to the millisecond: records sort by it as texts."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
