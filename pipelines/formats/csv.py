"""Reading CSV in batches. A row that cannot be read costs only itself."""

import codecs
import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipelines.content.documents import LETTERS_KEPT, DeadLetter, DocumentBatch, Piece, SourceFile, count_inputs
from pipelines.formats import rows
from pipelines.formats.limits import Budget, Unreadable, beyond
from pipelines.formats.rows import Layout

DELIMITERS = ";\t|,"
"""What a header with a single column may be divided by in truth."""
CHUNK_BYTES = 1 << 20
_UNDECODED = re.compile("[\udc80-\udcff]")
_MARK = "\U0010fffe"
"""Stands for a byte that is none of the encoding. No text has it: it is a noncharacter, and looked for only where it was put."""


class CsvStream(io.RawIOBase):
    """A CSV file as UTF-8 throughout, in blocks none of which ends within a character, or between CR and LF.

    Arrow gives up a file for one byte of an invalid row that is not UTF-8, and drops an LF that begins a block, also within quotes.
    """

    def __init__(self, stream: io.BufferedReader, encoding: str) -> None:
        self.marked = False
        """Whether a byte was replaced by `_MARK` so far."""
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
        self._ready = bytearray()
        self._ended = False

    def readable(self) -> bool:
        return True

    def peek(self) -> bytes:
        """The first bytes, left unread."""
        self._fill(1)
        return bytes(self._ready)

    def read(self, size: int = -1) -> bytes:
        """The next block, of at most `size` bytes."""
        self._fill(size + 1)
        block = bytes(self._ready[:size])
        if len(self._ready) > size:
            block = block[: _border(self._ready, size)]
        del self._ready[: len(block)]
        return block

    def _fill(self, size: int) -> None:
        """Have `size` bytes ready, if there are so many."""
        while not self._ended and len(self._ready) < size:
            chunk = self._stream.read(CHUNK_BYTES)
            self._ended = not chunk
            text = self._decoder.decode(chunk, self._ended)
            try:
                self._ready += text.encode()
            except UnicodeEncodeError:
                self.marked = True
                self._ready += _UNDECODED.sub(_MARK, text).encode()


def _border(data: bytearray, at: int) -> int:
    """The last place up to `at` where `data` may be cut; `at` itself, if there is no other."""
    place = at
    while place and (data[place] & 0xC0 == 0x80 or data[place - 1 : place] == b"\r"):
        place -= 1
    return place or at


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


def read_csv(stream: CsvStream, piece: Piece, layout: Layout, block_bytes: int, delimiter: str) -> Iterator[DocumentBatch]:
    """The documents of a CSV file with a header. Records are counted from 1 after it, blank lines not counted.

    Raises Unreadable at a record of more than `block_bytes`.
    """
    columns = _columns(csv_header(stream, delimiter), layout)
    invalid = _InvalidRows()
    first = 1
    budget = Budget(layout.limits, piece.file.size)
    for batch in _csv_batches(stream, columns, invalid, block_bytes, delimiter):
        yield from rows.row_batches(piece.file, batch, layout, first, budget, invalid.place)
        first += len(batch)
        letters = invalid.pass_by(piece.file, first)
        budget.spend(0, count_inputs(letters))
        if letters:
            yield rows.only_letters(piece.file, layout, letters)
    if letters := invalid.pass_by(piece.file, None):
        yield rows.only_letters(piece.file, layout, letters)


def csv_header(stream: CsvStream, delimiter: str) -> list[str]:
    """The names in the first record, left unread."""
    text = stream.peek().decode("utf-8-sig", errors="replace")
    try:
        return next(filter(None, csv.reader(io.StringIO(text), delimiter=delimiter)), [])
    except csv.Error:
        raise Unreadable("expected a CSV header, found none that can be parsed") from None


def _columns(header: list[str], layout: Layout) -> list[str]:
    try:
        return layout.check(header)
    except Unreadable as error:
        other = next((mark for mark in DELIMITERS if len(header) == 1 and mark in header[0]), None)
        raise Unreadable(f"{error}; is source.delimiter {other!r}?" if other else str(error)) from None


def _csv_batches(
    stream: CsvStream, columns: list[str], invalid: _InvalidRows, block_bytes: int, delimiter: str
) -> Iterator[pa.RecordBatch]:
    """Columns of bytes. What was marked is again no UTF-8, which is the row's problem."""
    try:
        for batch in pyarrow.csv.open_csv(
            stream,
            # Rows have numbers only without threads.
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=block_bytes),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=invalid.skip),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=columns, column_types=dict.fromkeys(columns, pa.binary())),
        ):
            if not stream.marked:
                yield batch
                continue
            unmarked = [pc.replace_substring(column, _MARK.encode(), b"\xff") for column in batch.columns]
            yield pa.RecordBatch.from_arrays(unmarked, schema=batch.schema)
    except pa.ArrowInvalid as error:
        if "straddling" not in str(error):
            raise
        record = "bytes of a record (or a quote is never closed, and swallows the rest of the file)"
        raise Unreadable(beyond("document_bytes", block_bytes, record)) from None
