"""Reading Parquet: pieces of row groups, and batches that stay small however far a dictionary unfolds."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.content.documents import DocumentBatch, Piece, SourceFile
from pipelines.formats import rows
from pipelines.formats.limits import Budget, Unreadable, beyond
from pipelines.formats.rows import BATCH_BYTES, BATCH_ROWS, Layout

BUFFER_BYTES = 1 << 20
"""Of a column chunk that are read at a time; without it, Arrow reads chunks whole."""
UNFOLDED_BYTES = 64 << 20
"""That the rows of a batch may have if each of them had all values of a dictionary."""
LEAST_SHARE = 16
"""A piece has at least this part of the bytes it is meant to have, as they are stored: what is stored is what a footer cannot make up."""
HEADER_BYTES = 32


def read_parquet(stream: Any, piece: Piece, layout: Layout) -> Iterator[DocumentBatch]:
    """The documents of a piece's row groups. Rows are counted from 1."""
    footer = pq.read_metadata(stream)
    columns = layout.check(footer.schema.to_arrow_schema().names)
    leaves = [(number, footer.schema.column(number)) for number in range(footer.num_columns)]
    wanted = [(number, leaf) for number, leaf in leaves if leaf.path in columns or leaf.path.partition(".")[0] in columns]
    nested = [leaf.path for _, leaf in wanted if leaf.path not in columns and leaf.physical_type == "BYTE_ARRAY"]
    # A single row of lists can unfold without bound: their values stay in dictionaries until the row was measured.
    parquet = pq.ParquetFile(stream, metadata=footer, read_dictionary=nested, buffer_size=BUFFER_BYTES, coerce_int96_timestamp_unit="us")
    flat = [number for number, leaf in wanted if leaf.path not in nested and leaf.physical_type.endswith("BYTE_ARRAY")]
    first = 1 + sum(footer.row_group(group).num_rows for group in range(piece.start))
    budget = Budget(layout.limits, _stored(piece, footer), rows=first - 1)
    for group in range(*_groups(piece, footer)):
        step = _rows_at_once(stream, footer.row_group(group), flat, layout.limits.document_bytes)
        for batch in _joined(parquet.iter_batches(step, row_groups=[group], columns=columns)):
            yield from rows.row_batches(piece.file, batch, layout, first, budget)
            first += len(batch)


def parquet_types(stream: Any) -> Iterator[dict[str, pa.DataType]]:
    """The columns of a Parquet file, once."""
    schema = pq.read_schema(stream)
    yield dict(zip(schema.names, schema.types, strict=True))


def row_count(stream: Any) -> Iterator[int]:
    """The rows that a Parquet file says to have, once."""
    yield pq.read_metadata(stream).num_rows


def row_group_pieces(stream: Any, file: SourceFile, target_bytes: int) -> Iterator[tuple[Piece, int]]:
    """Cut a Parquet file into runs of row groups of about `target_bytes`, decoded."""
    footer = pq.read_metadata(stream)
    stored = [_stored_group(footer, group) for group in range(footer.num_row_groups)]
    if sum(stored) > file.size:  # a footer that errs: whoever reads the file finds out how
        yield Piece(file), file.size
        return
    start = weight = held = 0
    for group, share in enumerate(stored):
        size = footer.row_group(group).total_byte_size
        if weight and weight + size > target_bytes and held >= target_bytes // LEAST_SHARE:
            yield Piece(file, start, group), weight
            start = group
            weight = held = 0
        weight += size
        held += share
    yield Piece(file, start, None), weight


def _groups(piece: Piece, footer: pq.FileMetaData) -> tuple[int, int]:
    return piece.start, footer.num_row_groups if piece.stop is None else piece.stop


def _stored(piece: Piece, footer: pq.FileMetaData) -> int:
    if piece.start == 0 and piece.stop is None:
        return piece.file.size
    return min(piece.file.size, sum(_stored_group(footer, group) for group in range(*_groups(piece, footer))))


def _stored_group(footer: pq.FileMetaData, group: int) -> int:
    chunks = footer.row_group(group)
    return sum(max(0, chunks.column(number).total_compressed_size) for number in range(chunks.num_columns))


def _rows_at_once(stream: Any, group: pq.RowGroupMetaData, columns: Iterable[int], document_bytes: int) -> int:
    """So few that they stay small even if each has the largest values that the dictionaries of `columns` can hold."""
    largest = sum(_dictionary_bytes(stream, group.column(number)) for number in columns)
    if largest > max(4 * document_bytes, UNFOLDED_BYTES):
        raise Unreadable(beyond("document_bytes", document_bytes, f"bytes of a value, but for dictionaries of {largest:,}"))
    usual = rows.rows_in_batch(group.num_rows, group.total_byte_size)
    return max(1, min(usual, UNFOLDED_BYTES // max(1, largest)))


def _dictionary_bytes(stream: Any, chunk: pq.ColumnChunkMetaData) -> int:
    """Bytes of the dictionary page that a column chunk begins with, decompressed; 0 if it begins with another.

    Read off the page's header, which is what a decoder goes by: the footer may say anything. It is a struct in Thrift's compact protocol
    (parquet.thrift, PageHeader) that begins with three i32, each as a field header (0x15) and a zigzag varint: type, size, stored size.
    """
    offsets = [offset for offset in (chunk.dictionary_page_offset, chunk.data_page_offset) if offset is not None and offset > 0]
    stream.seek(min(offsets, default=0))
    header = stream.read(HEADER_BYTES)
    kind, place = _integer(header, 0)
    size, _ = _integer(header, place)
    return size if kind == 2 else 0


def _integer(header: bytes, place: int) -> tuple[int, int]:
    """The i32 field at `place`, and the place behind it."""
    value = shift = 0
    if header[place : place + 1] == b"\x15":
        for index in range(place + 1, min(place + 6, len(header))):
            value |= (header[index] & 0x7F) << shift
            shift += 7
            if header[index] < 0x80:
                return (value >> 1) ^ -(value & 1), index + 1
    raise Unreadable("incomplete: expected a page where the footer says that a column begins, found none")


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join what was read in small steps."""
    waiting: list[pa.RecordBatch] = []
    count = size = 0
    for batch in batches:
        waiting.append(batch)
        count, size = count + len(batch), size + batch.nbytes
        if count >= BATCH_ROWS or size >= BATCH_BYTES:
            yield pa.concat_batches(waiting) if len(waiting) > 1 else batch
            waiting, count, size = [], 0, 0
    if waiting:
        yield pa.concat_batches(waiting)
