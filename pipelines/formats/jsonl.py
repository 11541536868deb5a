"""JSON lines, in batches of records; a part of a file begins at a byte."""

import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.csv

from pipelines.content.documents import DeadLetter, DocumentBatch, Piece, gathered
from pipelines.formats import rows
from pipelines.formats.casts import JSON_TYPES, fits_int64
from pipelines.formats.limits import Budget, beyond
from pipelines.formats.rows import BATCH_BYTES, BATCH_ROWS, Layout

HEAD_LINES = 1000
HEAD_BYTES = BATCH_BYTES
"""How much of a JSON lines file tells its keys and their types."""

_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * 19
"""By its digits, what may be a whole number of more than 64 bits: orjson makes a float of it."""

UTF8_BOM = b"\xef\xbb\xbf"


def read_jsonl(open_file: Callable[[], BinaryIO], piece: Piece, layout: Layout) -> Iterator[DocumentBatch]:
    """The documents of the lines that begin in a piece. Lines are counted from 1; in the middle of a file by their byte."""
    budget = Budget(layout.limits, piece.file.size)
    with open_file() as stream:
        for number, (places, records, dead) in enumerate(_json_batches(stream, piece, layout.limits.document_bytes)):
            if number == 0:
                _check_keys(records, open_file, layout)
            columns = rows.from_json(records, layout)
            batch = rows.assemble(piece.file, columns, layout, places.__getitem__)
            yield DocumentBatch(piece.file, batch.documents, [*gathered(dead), *batch.dead])
            budget.spend(0, len(records) + len(dead))


def _check_keys(records: list[dict[str, Any]], open_file: Callable[[], BinaryIO], layout: Layout) -> None:
    """A key may be left out where it is null. One that neither these records nor the head of the file has is missing."""
    if all(any(name in record for record in records) for name in layout.columns):
        return
    with open_file() as stream:
        head = json_head(stream, layout.limits.document_bytes)
    keys = dict.fromkeys(key for record in [*head, *records] for key in record)
    if keys:
        layout.check(keys)


def _json_batches(stream: BinaryIO, piece: Piece, most: int) -> Iterator[tuple[list[str], list[dict[str, Any]], list[DeadLetter]]]:
    """Lines as objects, each with its place, and letters for those that are none."""
    unit = "byte" if piece.start else "line"
    places: list[str] = []
    records: list[dict[str, Any]] = []
    dead: list[DeadLetter] = []
    size = 0
    for number, line in numbered_lines(stream, piece.start, piece.stop, most):
        record = _parsed(line, most)
        if isinstance(record, dict):
            places.append(f"{unit} {number}")
            records.append(record)
        elif record is not None:
            dead.append(DeadLetter("document", piece.file.path, f"{unit} {number}", record))
        size += len(line)
        if len(records) + len(dead) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield places, records, dead
            places, records, dead, size = [], [], [], 0
    if records or dead:
        yield places, records, dead


def _parsed(line: bytes, most: int) -> dict[str, Any] | str | None:
    """The object on a line, None if it is blank, or what is wrong with it."""
    if len(line) > most:
        return beyond("document_bytes", most, "bytes on a line")
    try:
        record = orjson.loads(line)
        if _LONG_NUMBER in line.translate(_DIGITS):
            record = json.loads(line)
    except orjson.JSONDecodeError:
        return "expected a JSON object in UTF-8, found something else" if line.strip() else None
    except RecursionError:  # json's own, which comes before orjson's
        return "expected JSON that is nested less deep"
    return record if isinstance(record, dict) else f"expected a JSON object, found {type(record).__name__}"


def numbered_lines(stream: BinaryIO, start: int, stop: int | None, most: int) -> Iterator[tuple[int, bytes]]:
    """The lines that begin in bytes [start, stop), with their number from 1 if `start` is 0, else with their offset.

    Lines longer than `most` bytes come cut, one byte longer than that.
    """
    offset, number = start, 0
    if start:
        # A line begins at `start` if the byte before it ends one.
        stream.seek(start - 1)
        offset += _skip_line(stream, None if stop is None else stop - start + 1) - 1
    while stop is None or offset < stop:
        line = stream.readline(most + 1)
        if not line:
            return
        number += 1
        yield (offset if start else number), line if offset else line.removeprefix(UTF8_BOM)
        offset += len(line)
        if len(line) > most and not line.endswith(b"\n"):
            offset += _skip_line(stream, None if stop is None else stop - offset)


def _skip_line(stream: BinaryIO, most: int | None) -> int:
    """Read to the end of the line, or about `most` bytes: a long line spans many pieces, each of which must read its own part only.

    How many bytes that were.
    """
    skipped = 0
    while (most is None or skipped < most) and (part := stream.readline(BATCH_BYTES)):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def json_head(stream: BinaryIO, most: int) -> list[dict[str, Any]]:
    """The objects among the first lines, of at most `most` bytes each."""
    records = []
    size = 0
    for (_, line), _ in zip(numbered_lines(stream, 0, None, most), range(HEAD_LINES), strict=False):
        record = _parsed(line, most)
        if isinstance(record, dict):
            records.append(record)
        size += len(line)
        if size > HEAD_BYTES:
            break
    return records


def json_types(stream: BinaryIO, most: int) -> dict[str, pa.DataType]:
    """The keys in the head of a JSON lines file, with the narrowest of bool, int64, float64 and string that holds their values."""
    kinds: dict[str, set[type]] = {}
    for record in json_head(stream, most):
        for key, value in record.items():
            kinds.setdefault(key, set()).add(type(value) if type(value) is not int or fits_int64(value) else str)
    return {key: _json_type(python - {type(None)}) for key, python in kinds.items()}


def _json_type(kinds: set[type]) -> pa.DataType:
    if not kinds:
        return pa.string()
    fitting = (type_ for type_, python in JSON_TYPES.items() if kinds <= python)
    return next(fitting, pa.string())
