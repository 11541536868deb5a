"""From documents to chunk rows: the columns of the chunk table and the hashes that the difference is taken on.

| hash | of | tells |
|---|---|---|
| `doc_key` | the document's id | whether it is the same document |
| `doc_hash` | id, text, metadata | whether the document changed |
| `content_hash` | a chunk's text | whether a vector can be used again |
| `row_hash` | chunk id, content, offsets, metadata | whether a stored row is still what the corpus says |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import orjson
import pyarrow as pa

from pipelines.fingerprint import DIGEST_BYTES, content_hashes, digest

HASH = pa.binary(DIGEST_BYTES)
DIFF_COLUMNS = ("doc_key", "doc_hash", "row_hash", "file")
DESIRED_COLUMNS = ("row_hash", "content_hash", "start", "end")


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
    ids = [id.encode() for id in documents["doc_id"].to_pylist()]
    metadata = _metadata_bytes(documents)
    texts = documents["text"].to_pylist()
    keys = [digest(id) for id in ids]
    hashes = [digest(id, text.encode(), extra) for id, text, extra in zip(ids, texts, metadata, strict=True)]
    return Documents(documents.append_column("doc_key", pa.array(keys, HASH)).append_column("doc_hash", pa.array(hashes, HASH)))


def chunk_rows(documents: Documents, chunker: Spans) -> pa.Table:
    """Cut documents into rows of `chunk_schema`, in document order."""
    columns = documents.columns
    texts = columns["text"].to_pylist()
    spans = chunker.spans(texts)
    counts = np.fromiter(map(len, spans), dtype=np.int64, count=len(spans))
    owner = np.repeat(np.arange(len(texts)), counts)
    ordinal = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    borders = np.array([span for document in spans for span in document], dtype=np.int64).reshape(-1, 2)
    pieces = [texts[document][start:end] for document, (start, end) in zip(owner.tolist(), borders.tolist(), strict=True)]
    ids = columns["doc_id"].to_pylist()
    chunk_ids = [f"{ids[document]}#{number}" for document, number in zip(owner.tolist(), ordinal.tolist(), strict=True)]
    contents = content_hashes(pieces)
    metadata = _metadata_bytes(columns)
    row_hashes = [
        digest(chunk_id.encode(), content, b"%d:%d" % (start, end), metadata[document])
        for chunk_id, content, (start, end), document in zip(chunk_ids, contents, borders.tolist(), owner.tolist(), strict=True)
    ]
    of_document = columns.drop_columns(["text"]).take(pa.array(owner))
    made = {
        "chunk_id": pa.array(chunk_ids, pa.string()),
        "ordinal": pa.array(ordinal, pa.int32()),
        "start": pa.array(borders[:, 0], pa.int64()),
        "end": pa.array(borders[:, 1], pa.int64()),
        "text": pa.array(pieces, pa.string()),
        "content_hash": pa.array(contents, HASH),
        "row_hash": pa.array(row_hashes, HASH),
    }
    schema = chunk_schema(metadata_type(columns.schema))
    return pa.table([made[name] if name in made else of_document[name] for name in schema.names], schema=schema)


def _metadata_bytes(table: pa.Table) -> list[bytes]:
    """Each row's metadata as JSON; a field that is null and one that is absent are the same."""
    if "metadata" not in table.column_names:
        return [b""] * table.num_rows
    return [orjson.dumps(row) for row in table["metadata"].to_pylist()]
