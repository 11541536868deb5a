"""The conditions of a search as people type them: `FIELD OPERATOR VALUE`, several joined by `or`."""

import csv
import re

from pipelines.errors import SpecError
from storage.reading.filters import AnyOf, Condition

_SHAPE = re.compile(r"(?si)(.+?)(!=|<=|>=|=|<|>|\s(?:contains|in)(?=\s))(.*)")
_OR = re.compile(r'(?si)(\s+or\s+)(?=(?:[^"]*"[^"]*")*[^"]*$)')
"""Outside of double quotes."""
_AND = re.compile(r"(?si)\sand\s+[\w.]+\s*(=|!=|<|>|\s(contains|in)\s)")


def parse_condition(text: str) -> Condition | AnyOf:
    """`text` as one condition, or as some of which one must be met. Raises SpecError.

    A value may stand in double quotes. What follows an `or` and is no condition belongs to the value before it.
    """
    first, *rest = _OR.split(text)
    parts = [first]
    for joint, part in zip(rest[::2], rest[1::2], strict=True):
        if _SHAPE.fullmatch(part):
            parts.append(part)
        else:
            parts[-1] += joint + part
    conditions = tuple(map(_condition, parts))
    return conditions[0] if len(conditions) == 1 else AnyOf(conditions)


def _condition(text: str) -> Condition:
    match = _SHAPE.fullmatch(text)
    if not match:
        raise SpecError(f"expected --where field=value, or another of != < <= > >= in contains, found {text!r}")
    field, operator, value = (part.strip() for part in match.groups())
    operator = operator.lower()
    if '"' not in value and _AND.search(value):
        raise SpecError(f"expected one condition, found {text!r}: give each a --where of its own, all must be met; a value may be quoted")
    if operator == "in":
        listed = value.removeprefix("(").removesuffix(")") if value.startswith("(") else value
        return Condition(field, tuple(item.strip() for item in next(csv.reader([listed], skipinitialspace=True), [])), "in")
    quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return Condition(field, value[1:-1] if quoted else value, operator)  # type: ignore[arg-type]
