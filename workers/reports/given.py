"""What the files say that options of reports name: CSV with a header, or JSON lines. Errors name keys, lines and ids, and repeat no text:
they are kept in the records of runs."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence

import orjson

from pipelines.errors import SpecError


def given_rows(key: str, content: bytes, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The values under `columns` of each row of a file that the spec names under `key`, as texts. Raises SpecError that names the line."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{key}: expected text in UTF-8, found {error.reason} at byte {error.start}") from None
    records = _json_lines(key, text) if text.lstrip().startswith("{") else _csv(key, text, columns)
    rows = [tuple(_value(key, line, record, column) for column in columns) for line, record in records]
    if not rows:
        raise SpecError(f"{key}: expected lines with {', '.join(columns)}, found none")
    return rows


def given_labels(key: str, content: bytes) -> dict[str, str]:
    """The label of each id of a file. Raises SpecError, also for an id that has two."""
    labels: dict[str, str] = {}
    for name, label in given_rows(key, content, ("id", "label")):
        if labels.setdefault(name, label) != label:
            raise SpecError(f"{key}: expected one label for each id, found two for {name!r:.80}")
    return labels


def number(key: str, text: str) -> float:
    """Raises SpecError for what is none, or has no end."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SpecError(f"{key}: expected numbers, found something else")
    return value


def _csv(key: str, text: str, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, object]]]:
    reader = csv.DictReader(io.StringIO(text))
    try:
        header = list(reader.fieldnames or ())
        if missing := [column for column in columns if column not in header]:
            raise SpecError(f"{key}: expected a CSV header or JSON lines with {', '.join(columns)}, found none with {', '.join(missing)}")
        yield from ((reader.line_num, row) for row in reader)
    except csv.Error as error:
        raise SpecError(f"{key}: expected CSV, found {error} in line {reader.line_num}") from None


def _json_lines(key: str, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            record = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise SpecError(f"{key}: expected a JSON object in line {line}, found {error.msg}") from None
        if not isinstance(record, dict):
            raise SpecError(f"{key}: expected a JSON object in line {line}, found {type(record).__name__}")
        yield line, record


def _value(key: str, line: int, record: Mapping[str, object], column: str) -> str:
    value = record.get(column)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        found = "none" if value is None or isinstance(value, str) else type(value).__name__
        raise SpecError(f"{key}: expected a text or a number under {column!r} in line {line}, found {found}")
    return str(value)
