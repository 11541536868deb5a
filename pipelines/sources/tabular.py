"""Reading JSON lines and CSV in batches."""

import csv
import io
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.csv

from pipelines.documents import LETTERS_KEPT, DeadLetter, DocumentBatch, Piece, SourceFile, count_inputs, gathered
from pipelines.sources import rows
from pipelines.sources.limits import Budget, Unreadable, beyond
from pipelines.sources.rows import BATCH_BYTES, BATCH_ROWS, Layout

HEAD_LINES = 1000
HEAD_BYTES = BATCH_BYTES
"""How much of a JSON lines file tells its keys and their types."""

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
    except orjson.JSONDecodeError:
        return "expected a JSON object in UTF-8, found something else" if line.strip() else None
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
            kinds.setdefault(key, set()).add(type(value))
    return {key: _json_type(found - {type(None)}) for key, found in kinds.items()}


def _json_type(kinds: set[type]) -> pa.DataType:
    if not kinds:
        return pa.string()
    fitting = (type_ for type_, python in rows.JSON_TYPES.items() if kinds <= python)
    return next(fitting, pa.string())


@dataclass(slots=True)
class _InvalidRows:
    """The records of a CSV file that do not have as many fields as its header. Only those around the batch in hand are remembered."""

    numbers: deque[int] = field(default_factory=deque)
    """Ascending; counted from 1 after the header. Of those that may lie before rows yet to come."""
    passed: int = 0
    """How many lie before the batch in hand."""
    reasons: deque[str] = field(default_factory=deque)
    """Of those in `numbers` that are among the first LETTERS_KEPT of the file."""
    found: int = 0

    def skip(self, row: pyarrow.csv.InvalidRow) -> str:
        """Arrow's handler. Called from its reading thread, ahead of the batches."""
        if self.found < LETTERS_KEPT:
            self.reasons.append(f"expected {row.expected_columns} fields, found {row.actual_columns}")
        self.found += 1
        self.numbers.append(row.number - 1)
        return "skip"

    def place(self, valid: int) -> str:
        """The place of the `valid`-th record, counted from 1, among those that Arrow kept."""
        number = valid + self.passed
        for invalid in self.numbers:
            if invalid > number:
                break
            number += 1
        return f"row {number}"

    def pass_by(self, file: SourceFile, valid: int | None) -> list[DeadLetter]:
        """Letters for the rows that were skipped before the `valid`-th record of those that Arrow kept; None: for all."""
        letters: list[DeadLetter] = []
        more = 0
        while self.numbers and (valid is None or self.numbers[0] <= valid + self.passed):
            number = self.numbers.popleft()
            self.passed += 1
            if self.reasons:
                letters.append(DeadLetter("document", file.path, f"row {number}", self.reasons.popleft()))
            else:
                more += 1
        others = DeadLetter("document", file.path, "", "another number of fields than the header has", more)
        return [*letters, others] if more else letters


def read_csv(stream: io.BufferedReader, piece: Piece, layout: Layout, block_bytes: int) -> Iterator[DocumentBatch]:
    """The documents of a CSV file with a header. Records are counted from 1 after it, blank lines not counted.

    Raises Unreadable at a record of more than `block_bytes`.
    """
    columns = layout.check(csv_header(stream))
    invalid = _InvalidRows()
    first = 1
    budget = Budget(layout.limits, piece.file.size)
    for batch in _csv_batches(stream, columns, invalid, block_bytes):
        yield from rows.row_batches(piece.file, batch, layout, first, budget, invalid.place)
        first += len(batch)
        letters = invalid.pass_by(piece.file, first)
        budget.spend(0, count_inputs(letters))
        if letters:
            yield rows.only_letters(piece.file, layout, letters)
    if letters := invalid.pass_by(piece.file, None):
        yield rows.only_letters(piece.file, layout, letters)


def csv_header(stream: io.BufferedReader) -> list[str]:
    """The names in the first record, left unread."""
    text = stream.peek(1).decode("utf-8-sig", errors="replace")
    try:
        return next(filter(None, csv.reader(io.StringIO(text))), [])
    except csv.Error:
        raise Unreadable("expected a CSV header, found none that can be parsed") from None


def _csv_batches(stream: io.BufferedReader, columns: list[str], invalid: _InvalidRows, block_bytes: int) -> Iterator[pa.RecordBatch]:
    """Bytes, not strings: Arrow would give up the whole file for one bad character."""
    try:
        yield from pyarrow.csv.open_csv(
            stream,
            # Rows have numbers only without threads.
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=block_bytes),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=invalid.skip),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=columns, column_types=dict.fromkeys(columns, pa.binary())),
        )
    except pa.ArrowInvalid as error:
        if "straddling" not in str(error):
            raise
        what = "bytes of a record (or a quote is never closed, and swallows the rest of the file)"
        raise Unreadable(beyond("document_bytes", block_bytes, what)) from None
