"""A command as a child process: started, followed, and stopped whichever way the flow ends.

The flow never starts Ray: Ray takes over SIGTERM, with which Prefect cancels. Where the work happens is the child's business.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any

import orjson
from prefect import get_run_logger

from flows.show.lines import STOP_AT_EOF, as_log_text, as_progress, json_record
from flows.show.progress import JSON_LINES
from pipelines.redaction import redact
from workers.observing.report import Progress

GRACE_SECONDS = 8.0
"""For the child to end its actors and write its record; Prefect itself kills the flow 30 s after it asked."""
ENDED = (0, 3, 4)
"""Exit codes that may come with a result: done, a gate failed, partial."""

Show = Callable[[Progress], None]
Note = Callable[[dict[str, Any]], None]
"""Takes what a log line says: `event` and its fields."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    """Its exit code; the number of a signal, negative."""
    result: dict[str, Any] | None
    """What it put on stdout."""
    line: str
    """The last line on stderr that was neither progress nor log: the error, if there was one."""


def follow(command: Sequence[str], show: Show, note: Note = lambda _: None) -> Done:
    """Run a command with `--json` to its end; `show` its progress, log everything else, and `note` its events as well."""
    with TemporaryFile() as out, _process(command, out) as process:
        assert process.stderr is not None
        line = _read(process.stderr, show, note)
        code = process.wait()
        out.seek(0)
        told = out.read() if code in ENDED else b""
        return Done(code, orjson.loads(told) if told.strip() else None, line)


@contextmanager
def _process(command: Sequence[str], out: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    """The child, in a session of its own; stopped, if it still runs, whichever way this is left.

    The child's stdin is a pipe that nobody writes to: a flow that is killed cannot stop it, but the pipe closes.
    """
    environment = os.environ | {JSON_LINES: "json", STOP_AT_EOF: "1"}
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


def _read(lines: Iterable[str], show: Show, note: Note) -> str:
    """Tell what the child tells, until it closes its stderr. Gives the last line that was for a person."""
    log = get_run_logger()
    last = ""
    for line in lines:
        told = json_record(line)
        if moment := as_progress(told):
            show(moment)
        elif told:
            log.info(as_log_text(told))
            note(told)
        elif text := redact(line.strip()):
            last = text
            log.info(text)
    return last.removeprefix("revector: ")
