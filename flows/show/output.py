"""The one place where a command's result goes to stdout: an object of JSON, or what a person reads."""

import sys
from collections.abc import Callable
from typing import Any

import orjson


def put(json: bool, value: Any, show: Callable[[], None]) -> None:
    if json:
        sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY, default=str))
        sys.stdout.flush()
    else:
        show()
