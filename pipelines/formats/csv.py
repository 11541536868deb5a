"""Reading CSV in batches. A row that cannot be read costs only itself."""

import csv
import io
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.csv

from pipelines.content.documents import LETTERS_KEPT, DeadLetter, DocumentBatch, Piece, SourceFile, count_inputs
from pipelines.formats import rows
from pipelines.formats.limits import Budget, Unreadable, beyond
from pipelines.formats.rows import Layout


@dataclass(slots=True)
class _InvalidRows:
    """The records of a CSV file that do not have as many fields as its header. Only those around the batch in hand are remembered."""

    numbers: deque[int] = field(default_factory=deque)
    """Ascending; counted from 1 after the header. Of those that may lie before rows yet to come."""
    passed: int = 0
    """How many lie before the batch in hand."""
    reasons: deque[str] = field(default_factory=deque)
    """Of those in `numbers` that are among the first LETTERS_KEPT of the file."""
    skipped: int = 0

    def skip(self, row: pyarrow.csv.InvalidRow) -> str:
        """Arrow's handler. Called from its reading thread, ahead of the batches."""
        if self.skipped < LETTERS_KEPT:
            self.reasons.append(f"expected {row.expected_columns} fields, found {row.actual_columns}")
        self.skipped += 1
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
        record = "bytes of a record (or a quote is never closed, and swallows the rest of the file)"
        raise Unreadable(beyond("document_bytes", block_bytes, record)) from None
