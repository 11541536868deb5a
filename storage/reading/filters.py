"""Conditions on what is searched: a field, an operator and a value, never a text that is run.

Lance takes no expressions over nested fields, so SQL is written here: of names that the table has, and of literals of their types.
A row that has no value in a field, or one that is not a number, meets no condition on it, `!=` included: as in SQL.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, get_args

import orjson
import pyarrow as pa

from pipelines.errors import SpecError
from pipelines.spec.keys import nearest

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "contains"]
OPERATORS: tuple[Operator, ...] = get_args(Operator)
MOST = 100
"""Values of one search: the planner descends into each, and has a stack like anybody."""
MOST_CHARACTERS = 10_000
"""Of a value that a text is looked through for."""
_ELEMENT = r'("([^"\\]|\\.)*"|[^"\[\]{},]+)'
"""Of a list in JSON, as documents keep lists: a string, or a number, `true`, `false` or `null`."""
_LIST = rf"^\[({_ELEMENT}(,{_ELEMENT})*)?\]$"

Value = str | int | float | bool | date | datetime


@dataclass(frozen=True, slots=True)
class Condition:
    """What rows must meet: `field operator value`."""

    field: str
    """Of the metadata, or `doc_id`."""
    value: Value | Sequence[Value]
    """Of the field's type, or a text that can be read as one; several with `in`."""
    operator: Operator = "="
    """`contains`: an element of a list; of any other text, a part of it."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    """What rows must meet: at least one of some conditions."""

    conditions: tuple[Condition, ...]


Where = Sequence[Condition | AnyOf]
"""All of them must be met."""


def filter_of(where: Where, metadata: pa.StructType | None) -> str | None:
    """The SQL of `where` on a table with that metadata. Raises SpecError for a field, a value or an operator that does not fit."""
    groups = [one.conditions if isinstance(one, AnyOf) else (one,) for one in where]
    count = sum(len(_values(condition)) for group in groups for condition in group)
    if count > MOST:
        raise SpecError(f"expected at most {MOST} conditions and values of `in`, found {count}")
    kinds = {field.name: field.type for field in metadata or []} | {"doc_id": pa.string()}
    return " AND ".join(_any(_comparison(condition, kinds) for condition in group) for group in groups) or None


def _any(alternatives: Iterable[str]) -> str:
    sql = " OR ".join(alternatives)
    if not sql:
        raise SpecError("expected a condition or a value, found none: nothing could meet that")
    return f"({sql})"


def _values(condition: Condition) -> Sequence[Value]:
    several = condition.operator == "in" and isinstance(condition.value, list | tuple)
    return condition.value if several else (condition.value,)  # type: ignore[return-value]


_ORDERS = ("<", "<=", ">", ">=")


def _is_number(value: Value) -> bool:
    try:
        return float(value) == float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _comparison(condition: Condition, kinds: dict[str, pa.DataType]) -> str:
    if condition.field not in kinds:
        known = ", ".join(map(_shown, kinds))
        raise SpecError(f"expected a field of {known}, found {repr(condition.field)[:100]}{nearest(condition.field, kinds)}")
    kind, operator = kinds[condition.field], condition.operator
    fitting = [one for one in OPERATORS if one != "contains" or pa.types.is_string(kind)]
    if operator not in fitting:
        what = f"{_shown(condition.field)}, which is {kind}"
        raise SpecError(f"expected an operator of {' '.join(fitting)} for {what}, found {repr(operator)[:100]}")
    column = "doc_id" if condition.field == "doc_id" else f"metadata.`{condition.field.replace('`', '``')}`"
    typed = [_value(condition.field, value, kind) for value in _values(condition)]
    if pa.types.is_string(kind) and operator in _ORDERS and any(map(_is_number, _values(condition))):
        raise SpecError(
            f"expected a text to compare with, as {_shown(condition.field)} is kept as text, where 9 comes after 10; found a number: "
            f'declare its type, metadata = {{ {condition.field} = "float" }}'
        )
    if operator == "contains":
        return _containing(condition, column, typed[0].as_py())
    return _any(_compared(column, "=" if operator == "in" else operator, value) for value in typed)


def _compared(column: str, operator: str, value: pa.Scalar) -> str:
    kind = value.type
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


def _containing(condition: Condition, column: str, value: str) -> str:
    """Whether a list in JSON has the element `value`; of a text that is none, whether `value` is a part of it."""
    if len(value) > MOST_CHARACTERS:
        raise SpecError(f"expected at most {MOST_CHARACTERS:,} characters for {_shown(condition.field)} contains, found {len(value):,}")
    a_list = f"regexp_like({column}, {_text(_LIST)})"
    element = rf"^\[({_ELEMENT},)*({'|'.join(map(re.escape, _spellings(value)))})[,\]]"
    return f"(({a_list} AND regexp_like({column}, {_text(element)})) OR (NOT {a_list} AND contains({column}, {_text(value)})))"


def _spellings(value: str) -> set[str]:
    """How JSON writes `value`: as a string and, if it reads as one, as a number, `true`, `false` or `null`."""
    spellings = {orjson.dumps(value).decode()}
    try:
        plain = orjson.loads(value)
    except orjson.JSONDecodeError:
        return spellings
    if plain is None or isinstance(plain, bool):
        spellings.add(value)
    elif isinstance(plain, int | float):
        same = {float(plain), int(plain)} if float(plain).is_integer() else {plain}
        spellings |= {orjson.dumps(number).decode() for number in same} if abs(plain) < 1 << 53 else {value}
    return spellings


def _value(field: str, value: Value, kind: pa.DataType) -> pa.Scalar:
    try:
        scalar = pa.scalar(value).cast(kind)
    except (pa.ArrowException, UnicodeError, TypeError):
        scalar = None
    if scalar is None or not scalar.is_valid or scalar.as_py() != scalar.as_py():  # the last: not a number
        raise SpecError(f"expected {kind} for {_shown(field)}, found {repr(value)[:100]}")
    return scalar


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _text(value: str) -> str:
    """A SQL string: only the quote has a meaning in it."""
    return "'" + value.replace("'", "''") + "'"
