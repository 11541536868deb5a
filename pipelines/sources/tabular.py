"""Reading Parquet, JSON lines and CSV in batches."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipelines.documents import DeadLetter, DocumentBatch, Piece, SourceFile
from pipelines.sources import rows
from pipelines.sources.rows import BATCH_BYTES, BATCH_ROWS, MAX_DOCUMENT_BYTES, Layout

HEAD_LINES = 1000
"""How much of a JSON lines file tells its keys and their types."""

UTF8_BOM = b"\xef\xbb\xbf"


def row_batches(
    file: SourceFile, table: pa.RecordBatch, layout: Layout, first: int, place: Callable[[int], str] = "row {}".format
) -> Iterator[DocumentBatch]:
    """The documents of some rows of a typed file, of which the first is its row number `first`; `place` names a row number."""
    for start, part in rows.slices(table):
        columns = rows.from_arrow(part, layout)
        yield rows.assemble(file, columns, layout, _shifted(place, first + start))


def _shifted(place: Callable[[int], str], by: int) -> Callable[[int], str]:
    return lambda row: place(row + by)


def read_parquet(stream: Any, piece: Piece, layout: Layout) -> Iterator[DocumentBatch]:
    """The documents of a piece's row groups. Rows are counted from 1."""
    parquet = pq.ParquetFile(stream)
    columns = layout.check(parquet.schema_arrow.names)
    footer = parquet.metadata
    first = 1 + sum(footer.row_group(group).num_rows for group in range(piece.start))
    for group in range(piece.start, footer.num_row_groups if piece.stop is None else piece.stop):
        size = footer.row_group(group)
        step = rows.rows_in_batch(size.num_rows, size.total_byte_size)
        for batch in parquet.iter_batches(step, row_groups=[group], columns=columns):
            yield from row_batches(piece.file, batch, layout, first)
            first += len(batch)


def parquet_types(stream: Any) -> dict[str, pa.DataType]:
    """The columns of a Parquet file."""
    schema = pq.read_schema(stream)
    return dict(zip(schema.names, schema.types, strict=True))


def read_jsonl(open_file: Callable[[], BinaryIO], piece: Piece, layout: Layout) -> Iterator[DocumentBatch]:
    """The documents of the lines that begin in a piece. Lines are counted from 1; in the middle of a file by their byte."""
    with open_file() as stream:
        for number, (places, records, dead) in enumerate(_json_batches(stream, piece)):
            if number == 0:
                _check_keys(records, open_file, layout)
            columns = rows.from_json(records, layout)
            batch = rows.assemble(piece.file, columns, layout, places.__getitem__)
            yield DocumentBatch(piece.file, batch.documents, dead + batch.dead)


def _check_keys(records: list[dict[str, Any]], open_file: Callable[[], BinaryIO], layout: Layout) -> None:
    """A key may be left out where it is null. One that neither these records nor the head of the file has is missing."""
    if all(any(name in record for record in records) for name in layout.columns):
        return
    with open_file() as stream:
        head = json_head(stream)
    keys = dict.fromkeys(key for record in [*head, *records] for key in record)
    if keys:
        layout.check(keys)


def _json_batches(stream: BinaryIO, piece: Piece) -> Iterator[tuple[list[str], list[dict[str, Any]], list[DeadLetter]]]:
    """Lines as objects, each with its place, and letters for those that are none."""
    unit = "byte" if piece.start else "line"
    places: list[str] = []
    records: list[dict[str, Any]] = []
    dead: list[DeadLetter] = []
    size = 0
    for number, line in numbered_lines(stream, piece.start, piece.stop):
        record = _parsed(line)
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


def _parsed(line: bytes) -> dict[str, Any] | str | None:
    """The object on a line, None if it is blank, or what is wrong with it."""
    if len(line) > MAX_DOCUMENT_BYTES:
        return f"expected at most {MAX_DOCUMENT_BYTES} bytes on a line, found more"
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return "expected a JSON object in UTF-8, found something else" if line.strip() else None
    return record if isinstance(record, dict) else f"expected a JSON object, found {type(record).__name__}"


def numbered_lines(stream: BinaryIO, start: int, stop: int | None) -> Iterator[tuple[int, bytes]]:
    """The lines that begin in bytes [start, stop), with their number from 1 if `start` is 0, else with their offset.

    Lines longer than `MAX_DOCUMENT_BYTES` come cut, one byte longer than that.
    """
    offset, number = start, 0
    if start:
        # A line begins at `start` if the byte before it ends one.
        stream.seek(start - 1)
        offset += _skip_line(stream) - 1
    while stop is None or offset < stop:
        line = stream.readline(MAX_DOCUMENT_BYTES + 1)
        if not line:
            return
        number += 1
        yield (offset if start else number), line if offset else line.removeprefix(UTF8_BOM)
        offset += len(line)
        if len(line) > MAX_DOCUMENT_BYTES and not line.endswith(b"\n"):
            offset += _skip_line(stream)


def _skip_line(stream: BinaryIO) -> int:
    """Read to the end of the line; how many bytes that were."""
    skipped = 0
    while part := stream.readline(MAX_DOCUMENT_BYTES):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def json_head(stream: BinaryIO) -> list[dict[str, Any]]:
    """The objects among the first `HEAD_LINES` lines."""
    lines = (line for (_, line), _ in zip(numbered_lines(stream, 0, None), range(HEAD_LINES), strict=False))
    return [record for record in map(_parsed, lines) if isinstance(record, dict)]


def json_types(stream: BinaryIO) -> dict[str, pa.DataType]:
    """The keys in the head of a JSON lines file, with the narrowest of bool, int64, float64 and string that holds their values."""
    kinds: dict[str, set[type]] = {}
    for record in json_head(stream):
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
    """The records of a CSV file that do not have as many fields as its header."""

    numbers: list[int] = field(default_factory=list)
    """Ascending; counted from 1 after the header."""
    reasons: list[str] = field(default_factory=list)
    told: int = 0
    """How many were handed out as dead letters."""

    def skip(self, row: pyarrow.csv.InvalidRow) -> str:
        """Arrow's handler. Called from its reading thread, ahead of the batches."""
        self.numbers.append(row.number - 1)
        self.reasons.append(f"expected {row.expected_columns} fields, found {row.actual_columns}")
        return "skip"

    def place(self, valid: int) -> str:
        """The place of the `valid`-th record, counted from 1, among those that Arrow kept."""
        number = valid
        for invalid in self.numbers:
            if invalid > number:
                break
            number += 1
        return f"row {number}"

    def new_letters(self, file: SourceFile) -> list[DeadLetter]:
        """Letters for the rows that were skipped since the last call."""
        start, self.told = self.told, len(self.reasons)
        return [DeadLetter("document", file.path, f"row {self.numbers[n]}", self.reasons[n]) for n in range(start, self.told)]


def read_csv(stream: io.BufferedReader, piece: Piece, layout: Layout) -> Iterator[DocumentBatch]:
    """The documents of a CSV file with a header. Records are counted from 1 after it, blank lines not counted."""
    columns = layout.check(csv_header(stream))
    invalid = _InvalidRows()
    first = 1
    for batch in _csv_batches(stream, columns, invalid):
        yield from row_batches(piece.file, batch, layout, first, invalid.place)
        first += len(batch)
        if letters := invalid.new_letters(piece.file):
            yield rows.only_letters(piece.file, layout, letters)
    if letters := invalid.new_letters(piece.file):
        yield rows.only_letters(piece.file, layout, letters)


def csv_header(stream: io.BufferedReader) -> list[str]:
    """The names in the first record, left unread."""
    text = stream.peek(1).decode("utf-8-sig", errors="replace")
    try:
        return next(filter(None, csv.reader(io.StringIO(text))), [])
    except csv.Error:
        raise rows.Unreadable("expected a CSV header, found none that can be parsed") from None


def _csv_batches(stream: io.BufferedReader, columns: list[str], invalid: _InvalidRows) -> Iterator[pa.RecordBatch]:
    """Bytes, not strings: Arrow would give up the whole file for one bad character."""
    yield from pyarrow.csv.open_csv(
        stream,
        # Rows have numbers only without threads.
        read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=BATCH_BYTES),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=invalid.skip),
        convert_options=pyarrow.csv.ConvertOptions(include_columns=columns, column_types=dict.fromkeys(columns, pa.binary())),
    )
