"""What a run logs: events with fields, under the logger "revector". Silent unless someone listens; never a text of a document.

As JSON lines for a parent process or a log collector, or as plain lines for a person.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson

from pipelines.redaction import printable, redact

LOGGER = logging.getLogger("revector")
LOGGER.addHandler(logging.NullHandler())  # without it, warnings that nobody listens to land on stderr
_bound: ContextVar[dict[str, Any]] = ContextVar("revector_log_fields", default={})  # noqa: B039 - never changed in place


def log(event: str, /, **fields: Any) -> None:
    """Note that something happened. `fields`: numbers, names and ids."""
    _log(logging.INFO, event, fields)


def warn(event: str, /, **fields: Any) -> None:
    """Note that something went wrong that the run gets over."""
    _log(logging.WARNING, event, fields)


def _log(level: int, event: str, fields: dict[str, Any]) -> None:
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, event, extra={"fields": {**_bound.get(), **fields}})


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Within it, events of this thread have `fields` as well."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


@contextmanager
def shown(*, json: bool) -> Iterator[None]:
    """Within it, all events are written on stderr: JSON objects of the `kind` "log", or plain lines."""
    handler, level = _Lines(json), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        LOGGER.removeHandler(handler)


class _Lines(logging.Handler):
    """A line an event, on what is stderr at that moment: a live progress display puts itself there."""

    def __init__(self, json: bool) -> None:
        super().__init__()
        self._describe = _json_line if json else _plain_line

    def emit(self, record: logging.LogRecord) -> None:
        fields = {name: _redacted(value) for name, value in getattr(record, "fields", {}).items()}
        at = datetime.fromtimestamp(record.created, UTC)
        sys.stderr.write(self._describe(at, record.levelname.lower(), record.getMessage(), fields) + "\n")
        sys.stderr.flush()


def _redacted(value: Any) -> Any:
    return redact(value) if isinstance(value, str) else value


def _json_line(at: datetime, level: str, event: str, fields: dict[str, Any]) -> str:
    record = {"kind": "log", "at": at.isoformat(timespec="milliseconds"), "level": level, "event": event, **fields}
    return orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY, default=str).decode()


def _plain_line(at: datetime, level: str, event: str, fields: dict[str, Any]) -> str:
    """`15:02:11 docs shard done  shard=3 contents=100`."""
    about = {name: value for name, value in fields.items() if name not in {"run_id", "collection"}}
    mark = "" if level == "info" else f" {level}:"
    told = " ".join(f"{name}={_short(value)}" for name, value in about.items())
    return printable(f"{at:%H:%M:%S} {fields.get('collection', 'revector')}{mark} {event}  {told}".rstrip())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
