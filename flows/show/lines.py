"""What a command and the program that started it agree on: JSON lines of progress, of its log and of its result, and an end when the
parent is gone.

Whoever starts a command and reads its lines sets JSON_LINES, and RESULT_LINE where the result has to be told from whatever else is written
beside it: by a library on stdout, or in the log of a job, where both streams are one.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import orjson

from workers.observing.telling import Progress, Report

JSON_LINES = "REVECTOR_PROGRESS"
"""Set to `json`: each moment of a run, and each event, is a line on stderr, of the `kind` progress or log. Others are for a person."""
RESULT_LINE = "REVECTOR_RESULT"
"""Set to `line`: with --json, stdout gets `{"kind": "result", "result": ...}` instead of the result alone."""
STOP_AT_EOF = "REVECTOR_STOP_AT_EOF"
"""Set to `1` by a parent that holds stdin as a pipe: when the parent dies, however it dies, the pipe closes and the run stops."""
READ = {JSON_LINES: "json", RESULT_LINE: "line"}
"""For the environment of a command whose lines are read by `Lines`."""

Record = dict[str, Any]
"""An event: `at` (ISO 8601), `level`, `event`, and its fields."""


class Lines:
    """Reads a command, line by line. What is not of the command is text, JSON or not."""

    def __init__(self, report: Report, log: Callable[[Record], None], text: Callable[[str], None]) -> None:
        self._report = report
        self._log = log
        self._text = text
        self.result: dict[str, Any] | None = None

    def __call__(self, line: str) -> None:
        match _parsed(line):
            case {"kind": "progress", "stage": str()} as moment:
                self._report(as_progress(moment))
            case {"kind": "log", "at": str(), "level": str(), "event": str()} as record:
                self._log({name: value for name, value in record.items() if name != "kind"})
            case {"kind": "result", "result": dict(result)}:
                self.result = result
            case _ if line.strip():
                self._text(line)


def _parsed(line: str) -> Any:
    try:
        return orjson.loads(line) if line.startswith("{") else None
    except orjson.JSONDecodeError:
        return None


def as_progress(record: Mapping[str, Any]) -> Progress:
    """What this version knows of it: the command may be a newer one, on a cluster or in the ledger."""
    return Progress(**{name: record[name] for name in _PROGRESS if name in record})


_PROGRESS = [field.name for field in fields(Progress)]
