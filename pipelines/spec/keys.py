"""Tables of a spec: their keys are checked, immutable once read, and what is misspelt is told with the nearest known word."""

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict


class SpecTable(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_min_length=1)


def shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
