"""What a command and the program that started it agree on: JSON lines of progress and log, and an end when the parent is gone."""

import logging
import re
import sys
from datetime import datetime
from typing import Any

import orjson

from pipelines.logs import LOGGER
from pipelines.redaction import redact
from workers.observing.report import Progress, Report

STOP_AT_EOF = "REVECTOR_STOP_AT_EOF"
"""Set to `1` by a parent that holds stdin as a pipe: when the parent dies, however it dies, the pipe closes and the run stops."""


def json_record(line: str) -> dict[str, Any]:
    """What a JSON line of a `kind` says; nothing of any other line."""
    try:
        told = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) and "kind" in told else {}


def as_progress(told: dict[str, Any]) -> Progress | None:
    """Progress as this version knows it; what runs on a cluster may be another."""
    try:
        return Progress(**{name: value for name, value in told.items() if name != "kind"}) if told.get("kind") == "progress" else None
    except TypeError:
        return None


def as_log_text(told: dict[str, Any]) -> str:
    fields = " ".join(f"{name}={value}" for name, value in told.items() if name not in {"kind", "at", "level", "event"})
    return redact(f"{told.get('event', '')} {fields}".strip())


class Lines:
    """Reads a job's log: progress, log records, its result, and text for a person are mixed there."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.result: dict[str, Any] | None = None
        """The last object that says nothing of its kind."""

    def __call__(self, line: str) -> None:
        told = _object(line)
        if told is None:
            if line.strip() and not _OF_RAY.match(line):
                _write(line)
        elif "kind" not in told:
            self.result = told
        elif told.pop("kind") == "progress":
            self._report(Progress(**told))
        else:
            _log(told)


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = orjson.loads(line) if line.startswith("{") else None
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


_OF_RAY = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+\s+INFO .+ -- |Running entrypoint for job ")
"""How Ray says that it does what it was asked to."""


def _log(told: dict[str, Any]) -> None:
    """Log what was logged there, as if it had been here."""
    at, event, level = datetime.fromisoformat(told.pop("at")), told.pop("event"), told.pop("level").upper()
    number = logging.getLevelNamesMapping()[level]
    common = {"name": LOGGER.name, "levelno": number, "levelname": level, "msg": event, "created": at.timestamp()}
    if LOGGER.isEnabledFor(number):
        LOGGER.handle(logging.makeLogRecord({**common, "fields": told}))


def _write(line: str) -> None:
    sys.stderr.write(redact(line) + "\n")
    sys.stderr.flush()
