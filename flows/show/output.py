"""The one place where a command's result goes to stdout: an object of JSON, or what a person reads."""

import os
import sys
from collections.abc import Callable
from typing import Any

import orjson

from flows.show.lines import RESULT_LINE


def put(json: bool, value: Any, show: Callable[[], None]) -> None:
    if not json:
        show()
        return
    sys.stdout.flush()
    if os.environ.get(RESULT_LINE) == "line":
        sys.stdout.buffer.write(b"\n" + _line({"kind": "result", "result": value}))  # begins a line, whatever was written before it
    else:
        sys.stdout.buffer.write(_line(value))
    sys.stdout.flush()


def _line(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY, default=str)
