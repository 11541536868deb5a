"""Conditions on what is searched: a field, an operator and a value, never a text that is run.

Lance takes no expressions over nested fields, so SQL is written here: of names that the table has, and of literals of their types.
A row that has no value in a field, or one that is not a number, meets no condition on it, `!=` included: as in SQL.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, get_args

import pyarrow as pa

from pipelines.errors import SpecError
from pipelines.spec.keys import nearest

Operator = Literal["=", "!=", "<", "<=", ">", ">="]
OPERATORS: tuple[Operator, ...] = get_args(Operator)
MOST = 100
"""Conditions of one search: the planner descends into each, and has a stack like anybody."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What rows must meet: `field operator value`."""

    field: str
    """Of the metadata, or `doc_id`."""
    value: str | int | float | bool | date | datetime
    """Of the field's type, or a text that can be read as one."""
    operator: Operator = "="


def filter_of(conditions: Sequence[Condition], metadata: pa.StructType | None) -> str | None:
    """The SQL of all `conditions` together on a table with that metadata. Raises SpecError for a field or a value that does not fit."""
    if len(conditions) > MOST:
        raise SpecError(f"expected at most {MOST} conditions, found {len(conditions)}")
    kinds = {field.name: field.type for field in metadata or []} | {"doc_id": pa.string()}
    return " AND ".join(_comparison(condition, kinds) for condition in conditions) or None


def _comparison(condition: Condition, kinds: dict[str, pa.DataType]) -> str:
    if condition.operator not in OPERATORS:
        raise SpecError(f"expected an operator of {' '.join(OPERATORS)}, found {condition.operator!r}")
    if condition.field not in kinds:
        known = ", ".join(name if name.isprintable() else repr(name) for name in kinds)
        raise SpecError(f"expected a field of {known}, found {repr(condition.field)[:100]}{nearest(condition.field, kinds)}")
    column = "doc_id" if condition.field == "doc_id" else f"metadata.`{condition.field.replace('`', '``')}`"
    return _typed(column, condition, kinds[condition.field])


def _typed(column: str, condition: Condition, kind: pa.DataType) -> str:
    operator, value = condition.operator, _value(condition, kind)
    if pa.types.is_string(kind):
        return f"{column} {operator} {_text(value.as_py())}"
    if pa.types.is_boolean(kind):
        return f"{column} {operator} {str(value.as_py()).lower()}"
    if pa.types.is_floating(kind):
        # Lance holds NaN to be equal to itself and above all else.
        return f"({column} {operator} CAST('{value.as_py()!r}' AS DOUBLE) AND NOT isnan({column}))"
    # Whole numbers, and counts of days or microseconds: a literal of a time would be taken for one of the column's own zone.
    whole, name = (pa.int32(), "INT") if pa.types.is_date(kind) else (pa.int64(), "BIGINT")
    counted = column if pa.types.is_integer(kind) else f"CAST({column} AS {name})"
    return f"{counted} {operator} CAST('{value.cast(whole).as_py()}' AS {name})"


def _value(condition: Condition, kind: pa.DataType) -> pa.Scalar:
    try:
        value = pa.scalar(condition.value).cast(kind)
    except (pa.ArrowException, UnicodeError, TypeError):
        value = None
    if value is None or not value.is_valid or value.as_py() != value.as_py():  # the last: not a number
        raise SpecError(f"expected {kind} for {condition.field}, found {repr(condition.value)[:100]}")
    return value


def _text(value: str) -> str:
    """A SQL string: only the quote has a meaning in it."""
    return "'" + value.replace("'", "''") + "'"
