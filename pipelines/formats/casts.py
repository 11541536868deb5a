"""Values of columns as the types that documents keep: whole columns at once, value by value only where one does not fit."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.spec.declared import MetadataType

BAD_VALUE = (ValueError, TypeError, OverflowError, LookupError, pa.ArrowNotImplementedError)
"""What Arrow and orjson raise on values that do not fit, are not UTF-8, are nested too deep, or have a time zone that nobody knows.

ArrowInvalid is a ValueError.
"""

JSON_TYPES: Mapping[pa.DataType, frozenset[type]] = {
    pa.bool_(): frozenset({bool}),
    pa.int64(): frozenset({int}),
    pa.float64(): frozenset({int, float}),
    pa.string(): frozenset({str}),
}
"""The Python types whose values a column takes as they are."""


def cast_column(column: pa.Array, type_: pa.DataType, label: str, problems: dict[int, str]) -> pa.Array:
    """`column` as `type_`, strings checked to be UTF-8. A value that does not fit becomes null and its row a problem."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        return _cast(column, type_)
    except BAD_VALUE:
        return _cast_each((column.slice(row, 1) for row in range(len(column))), type_, label, problems)


def _cast_each(values: Iterable[pa.Array], type_: pa.DataType, label: str, problems: dict[int, str]) -> pa.Array:
    results = []
    for row, value in enumerate(values):
        try:
            results.append(_cast(value, type_))
        except BAD_VALUE:
            problems.setdefault(row, f"{label}: expected {_words(type_)}, found a value that is not")
            results.append(pa.nulls(1, type_))
    return pa.concat_arrays(results)


def _words(type_: pa.DataType) -> str:
    if pa.types.is_string(type_):
        return "UTF-8 text"
    return f"{type_} of the years 1 to 9999" if pa.types.is_temporal(type_) else str(type_)


def _cast(column: pa.Array, type_: pa.DataType) -> pa.Array:
    if pa.types.is_nested(column.type):
        column = pa.array([None if value is None else json_text(value) for value in column.to_pylist()], pa.string())
    _check_kinds(column.type, type_)
    if _kind(column.type) == "text" and _kind(type_) != "text":
        column = column.cast(pa.string())
        column = pc.if_else(pc.equal(column, ""), None, column)  # CSV has no other null
        if pa.types.is_timestamp(type_):
            column = _points_in_time(column, type_)
    result = column.cast(options=pc.CastOptions(target_type=type_, allow_time_truncate=True))
    # Readers take the bytes of a file for UTF-8 unseen.
    result.validate(full=True)
    if pa.types.is_temporal(type_):
        pc.min_max(result).as_py()  # raises where one is of no year that Python has: readers could not convert it
    return result


def _check_kinds(type_: pa.DataType, target: pa.DataType) -> None:
    """Raises TypeError where Arrow has a cast, but the value would not be the same: a number is no point in time, and no truth."""
    if _kind(type_) not in (_kind(target), "text", "null") and _kind(target) != "text":
        raise TypeError(f"expected {target}, found {type_}")


def _kind(type_: pa.DataType) -> str:
    kinds = pa.types
    if kinds.is_boolean(type_):
        return "bool"
    if kinds.is_integer(type_) or kinds.is_floating(type_) or kinds.is_decimal(type_):
        return "number"
    return "null" if kinds.is_null(type_) else "time" if kinds.is_temporal(type_) else "text"


def _points_in_time(column: pa.Array, type_: pa.DataType) -> pa.Array:
    """Strings with a zone, or all without one: where the column is in UTC, so are they."""
    try:
        return column.cast(type_)
    except pa.ArrowInvalid:
        if type_.tz != "UTC":
            raise
        return column.cast(pa.timestamp("us")).cast(type_)


def json_text(value: object) -> str:
    """A value that Arrow has no column type for here, as JSON.

    Raises TypeError where it is nested deeper than 254 or has bytes that are not UTF-8.
    """
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError as error:
        if "64-bit" not in str(error):
            raise
        return json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":"))


def _plain(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def fits_int64(value: int) -> bool:
    """Whether a column of whole numbers takes it."""
    return -(1 << 63) <= value < 1 << 63


def json_column(values: Sequence[Any], type_: pa.DataType, label: str, allowed: frozenset[type], problems: dict[int, str]) -> pa.Array:
    """Whole where all values have the type's own Python type, else value by value."""
    if set(map(type, values)) - {type(None)} <= JSON_TYPES.get(type_, frozenset()):
        try:
            return pa.array(values, type_)
        except (OverflowError, pa.ArrowInvalid):  # more than 64 bits, or than a float has digits for
            pass
    accepted = allowed | {str, type(None)}
    for row, value in enumerate(values):
        if type(value) not in accepted:
            problems.setdefault(row, f"{label}: expected a string or a number, found {type(value).__name__}")
    usable = [value if type(value) in accepted else None for value in values]
    if not pa.types.is_string(type_) and set(map(type, usable)) <= {str, type(None)}:
        return cast_column(pa.array(usable, pa.string()), type_, label, problems)
    if pa.types.is_string(type_):
        return pa.array([_json_string(row, value, label, problems) for row, value in enumerate(usable)], type_)
    return _cast_each(map(_scalar, usable), type_, label, problems)


def _json_string(row: int, value: object, label: str, problems: dict[int, str]) -> str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        return json_text(value)
    except TypeError:
        problems.setdefault(row, f"{label}: expected JSON that is nested at most 254 deep, found more")
        return None


def _scalar(value: object) -> pa.Array:
    """One JSON value as an array that can be cast; what Arrow has no plain type for, as JSON text."""
    plain = value is None or isinstance(value, str | float) or (isinstance(value, int) and fits_int64(value))
    return pa.array([value if plain else json_text(value)])


def metadata_field(name: str, type_: pa.DataType) -> pa.Field:
    """The field that keeps a source column: a wide type of its kind, or a string."""
    kinds = pa.types
    if kinds.is_dictionary(type_):
        return metadata_field(name, type_.value_type)
    if kinds.is_integer(type_):
        return pa.field(name, pa.int64())
    if kinds.is_floating(type_):
        return pa.field(name, pa.float64())
    if kinds.is_timestamp(type_):
        return pa.field(name, pa.timestamp("us", type_.tz and (type_.tz if _is_zone(type_.tz) else "UTC")))
    if kinds.is_date(type_):
        return pa.field(name, pa.date32())
    return pa.field(name, pa.bool_() if kinds.is_boolean(type_) else pa.string())


def _is_zone(name: str) -> bool:
    """Whether values of that time zone can be shown. In any other they are the same points in time as in UTC."""
    try:
        pa.scalar(0, pa.timestamp("us", name)).as_py()
    except (LookupError, ValueError):
        return False
    return True


DECLARED: Mapping[MetadataType, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
}
"""The columns of the types that a spec may declare."""


def metadata_struct(declared: Mapping[str, MetadataType], types: Mapping[str, pa.DataType]) -> pa.StructType:
    """The metadata type of columns as a spec declares them; those of `auto` have `types`, or else are strings."""
    return pa.struct(
        pa.field(name, DECLARED[kind]) if kind in DECLARED else metadata_field(name, types.get(name, pa.string()))
        for name, kind in declared.items()
    )
