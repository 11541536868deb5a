"""A command as a child process: started, followed, and stopped whichever way the flow ends.

The flow never starts Ray: Ray takes over SIGTERM, with which Prefect cancels. Where the work happens is the child's business.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any

from prefect import get_run_logger

from flows.show.lines import READ, STOP_AT_EOF, Lines, Record
from pipelines.redaction import redact
from workers.observing.telling import Report

GRACE_SECONDS = 8.0
"""For the child to end its actors and write its record; Prefect itself kills the flow 30 s after it asked."""

Note = Callable[[Record], None]


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    """Its exit code; the number of a signal, negative."""
    result: dict[str, Any] | None
    """None of one that ended with an error."""
    line: str
    """The last on stderr that was for a person: the error, if there was one."""


def follow(command: Sequence[str], report: Report, note: Note = lambda _: None) -> Done:
    """Run a command with `--json` to its end; `report` its progress, log everything else, and `note` its events as well."""
    log, last = get_run_logger(), ""

    def take(record: Record) -> None:
        log.info(_as_text(record))
        note(record)

    def write(line: str) -> None:
        nonlocal last
        last = redact(line.strip())
        log.info(last)

    lines = Lines(report, take, write)
    with TemporaryFile("w+", encoding="utf-8", errors="replace") as out, _process(command, out) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines(line)
        error, code = last.removeprefix("revector: "), process.wait()
        out.seek(0)
        for line in out:
            lines(line)
        return Done(code, lines.result, error)


def _as_text(record: Record) -> str:
    fields = " ".join(f"{name}={value}" for name, value in record.items() if name not in {"at", "level", "event"})
    return redact(f"{record['event']} {fields}".strip())


@contextmanager
def _process(command: Sequence[str], out: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """The child, in a session of its own; stopped, if it still runs, whichever way this is left.

    The child's stdin is a pipe that nobody writes to: a flow that is killed cannot stop it, but the pipe closes.
    """
    environment = os.environ | READ | {STOP_AT_EOF: "1"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """SIGTERM to the child, on which it ends its Ray. After the grace, or if interrupted again: SIGKILL to what is left of its group."""
    try:
        process.terminate()
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
