"""From documents to chunk rows: the columns of the chunk table and the hashes that the difference is taken on.

| hash | of | tells |
|---|---|---|
| `doc_key` | the document's id | whether it is the same document |
| `doc_hash` | id, text, metadata | whether the document changed |
| `content_hash` | a chunk's text | whether a vector can be used again |
| `row_hash` | chunk id, content, offsets, metadata | whether a stored row is still what the corpus says |
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.content.sizes import row_bytes, slices
from pipelines.fingerprint import DIGEST_BYTES, digests, whole

HASH = pa.binary(DIGEST_BYTES)
DIFF_COLUMNS = ("doc_key", "doc_hash", "row_hash", "file")
DESIRED_COLUMNS = ("row_hash", "content_hash", "start", "end")
PART_BYTES, PART_ROWS = 16 << 20, 1 << 20
"""Of chunk rows that are made at a time, about."""


class Spans(Protocol):
    """What this module needs of a chunker."""

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]: ...


def row_schema(metadata: pa.StructType | None) -> pa.Schema:
    """The columns that a chunk has in both tables."""
    fields = [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("content_hash", HASH, nullable=False),
        pa.field("row_hash", HASH, nullable=False),
    ]
    return pa.schema(fields if metadata is None else [*fields, pa.field("metadata", metadata)])


def chunk_schema(metadata: pa.StructType | None) -> pa.Schema:
    """The chunk table: a chunk, and the document and file that it is from."""
    source = [("doc_key", HASH), ("doc_hash", HASH), ("file", pa.string())]
    return pa.schema([*row_schema(metadata), *(pa.field(name, kind, nullable=False) for name, kind in source)])


def vector_schema(metadata: pa.StructType | None, dimension: int, dtype: str) -> pa.Schema:
    """The vectors table: a chunk and its vector."""
    value = pa.float16() if dtype == "float16" else pa.float32()
    return pa.schema([*row_schema(metadata), pa.field("vector", pa.list_(value, dimension), nullable=False)])


def metadata_type(schema: pa.Schema) -> pa.StructType | None:
    """The metadata's type in any of the schemas above."""
    index = schema.get_field_index("metadata")
    return None if index < 0 else schema.field(index).type


@dataclass(frozen=True, slots=True)
class Documents:
    """Some documents with their hashes. All columns have one length."""

    columns: pa.Table
    """`doc_id`, `text`, maybe `metadata`, `doc_key`, `doc_hash`, `file`."""

    def select(self, keep: np.ndarray) -> "Documents":
        """Those for which `keep` (bool) holds."""
        return self if keep.all() else Documents(self.columns.filter(pa.array(keep)))


def hash_documents(documents: pa.Table) -> Documents:
    """Add `doc_key` and `doc_hash` to a table of `doc_id`, `text`, maybe `metadata`, and `file`."""
    keys = digests(documents["doc_id"])
    hashes = digests(documents["doc_id"], documents["text"], *_metadata_columns(documents))
    return Documents(documents.append_column("doc_key", keys).append_column("doc_hash", hashes))


def chunk_rows(documents: Documents, chunker: Spans) -> Iterator[pa.Table]:
    """Cut documents into rows of `chunk_schema`, in document order, some at a time: each chunk repeats the metadata of its document."""
    texts = documents.columns["text"].to_pylist()
    spans = chunker.spans(texts)
    counts = np.fromiter(map(len, spans), dtype=np.int64, count=len(spans))
    owner = np.repeat(np.arange(len(texts)), counts)
    ordinal = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    borders = np.array([span for document in spans for span in document], dtype=np.int64).reshape(-1, 2)
    repeated = documents.columns.drop_columns(["text"])
    sizes = sum((row_bytes(whole(column)) for column in repeated.columns), np.zeros(len(texts), dtype=np.int64))
    for part in slices(borders[:, 1] - borders[:, 0] + sizes[owner], PART_BYTES, PART_ROWS):
        yield _rows(repeated, texts, owner[part], ordinal[part], borders[part])


def _rows(columns: pa.Table, texts: Sequence[str], owner: np.ndarray, ordinals: np.ndarray, borders: np.ndarray) -> pa.Table:
    """The chunks of documents (`columns`, without their texts): whose each is, its number in there, and its borders."""
    ordinal = pa.array(ordinals, pa.int32())
    start, end = pa.array(borders[:, 0]), pa.array(borders[:, 1])
    pieces = pa.array([texts[document][a:b] for document, (a, b) in zip(owner.tolist(), borders.tolist(), strict=True)], pa.string())
    of_document = columns.take(pa.array(owner)).combine_chunks()
    chunk_ids = pc.binary_join_element_wise(of_document["doc_id"].combine_chunks(), ordinal.cast(pa.string()), "#")
    contents = digests(pieces)
    offsets = (start.cast(pa.string()), end.cast(pa.string()))
    made = {
        "chunk_id": chunk_ids,
        "ordinal": ordinal,
        "start": start,
        "end": end,
        "text": pieces,
        "content_hash": contents,
        "row_hash": digests(chunk_ids, contents, *offsets, *_metadata_columns(of_document)),
    }
    schema = chunk_schema(metadata_type(columns.schema))
    return pa.table([made[name] if name in made else of_document[name] for name in schema.names], schema=schema)


def _metadata_columns(table: pa.Table) -> list[pa.Array]:
    """Each metadata field as strings that tell a null from every value."""
    if "metadata" not in table.column_names:
        return []
    fields = table["metadata"].combine_chunks().flatten()
    present = (pc.binary_join_element_wise("=", field.cast(pa.string()), "").fill_null("") for field in fields)
    return list(present)
