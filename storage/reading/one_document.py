"""Documents by their ids: which there are, what one was cut into, which of its chunks have vectors, and in which versions it was."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceDataset

from pipelines.content.chunks import HASH
from storage.history.catalog import Publication, is_there
from storage.store.lance import ROW_ADDRESS, Store, data_file, scan_batches, take
from storage.tables.version import Version

MOST_CHUNKS = 200
"""Of a document that are read at a time."""
_LAST = "\U0010ffff"
"""Behind whatever begins with something."""


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as the chunk table has it."""

    chunk_id: str
    ordinal: int
    """Its number within the document, from 0."""
    start: int
    end: int
    """Its borders in the document's text, in code points."""
    text: str
    content_hash: bytes
    embedded: bool
    """Whether the version has a vector of it."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document of a version, and some of its chunks."""

    doc_id: str
    file: str
    """Which it was read from, relative to the source."""
    metadata: dict[str, Any]
    chunks: tuple[StoredChunk, ...]
    """In their order, from the one that was asked for."""
    total: int
    """Chunks of it."""
    embedded: int
    """That have a vector."""


@dataclass(frozen=True, slots=True)
class DocumentState:
    """A document at one publication."""

    publication: Publication
    there: bool
    """Whether the version is still in the store; else nothing is known of the document."""
    doc_hash: bytes | None
    """Of its id, text and metadata; None if it was not in the version."""
    chunks: int


def list_documents(version: Version, beginning: str = "", first: int = 0, count: int = 50) -> list[tuple[str, str]]:
    """Ids and files of `count` documents whose ids begin so, from the `first`th on, in the order of the table."""
    wanted = pc.field("ordinal") == 0
    if beginning:
        wanted = wanted & (pc.field("doc_id") >= beginning) & (pc.field("doc_id") < beginning + _LAST)
    rows = version.chunks.scanner(columns=["doc_id", "file"], filter=wanted, limit=count, offset=first, scan_in_order=True).to_table()
    return list(zip(rows["doc_id"].to_pylist(), rows["file"].to_pylist(), strict=True))


def read_document(version: Version, doc_id: str, first: int = 0) -> StoredDocument | None:
    """With MOST_CHUNKS of its chunks, from number `first` on; None if the version does not have it."""
    found = _rows_of(version.chunks, doc_id, ["ordinal", "row_hash"]).sort_by("ordinal")
    if not len(found):
        return None
    embedded = set(_rows_of(version.vectors, doc_id, ["row_hash"])["row_hash"].to_pylist())
    has = [row_hash in embedded for row_hash in found["row_hash"].to_pylist()]
    shown = found.slice(min(first, len(found) - 1), MOST_CHUNKS)
    names = [
        name for name in ("chunk_id", "ordinal", "start", "end", "text", "content_hash", "file", "metadata") if name in _columns(version)
    ]
    rows = take(version.chunks, shown[ROW_ADDRESS].to_numpy(), names).to_pylist()
    chunks = tuple(
        StoredChunk(**{name: row[name] for name in names if name not in ("file", "metadata")}, embedded=with_vector)
        for row, with_vector in zip(rows, has[min(first, len(found) - 1) :], strict=False)
    )
    return StoredDocument(doc_id, rows[0]["file"], rows[0].get("metadata") or {}, chunks, len(found), sum(has))


def document_states(store: Store, rows: Iterable[Publication], doc_id: str) -> list[DocumentState]:
    """What became of a document over some publications, oldest first.

    Rows of a data file are only ever deleted: each is looked through once, however many versions have it, and then only those that have
    had the document.
    """
    holds: dict[str, bool] = {}
    states = []
    for row in rows:
        if row.removed or not is_there(store, row):
            states.append(DocumentState(row, False, None, 0))
            continue
        chunks = store.open(row.chunk_table, row.chunk_version)
        fragments = {fragment.fragment_id: fragment for fragment in chunks.get_fragments()}
        files = {number: f"{row.chunk_table}/{data_file(fragment)}" for number, fragment in fragments.items()}
        looked = [fragment for number, fragment in fragments.items() if holds.get(files[number], True)]
        found = _rows_of(chunks, doc_id, ["doc_hash"], looked)
        with_it = set((found[ROW_ADDRESS].to_numpy() >> np.uint64(32)).tolist())
        for number, file in files.items():
            holds.setdefault(file, number in with_it)
        states.append(DocumentState(row, True, found["doc_hash"][0].as_py() if len(found) else None, len(found)))
    return states


def same_contents(version: Version, contents: Collection[bytes], most: int) -> dict[bytes, list[str]]:
    """Ids of at most `most` chunks of each of `contents`, in the order of the table."""
    wanted = pa.array(sorted(contents), HASH)
    places: dict[bytes, list[int]] = {content: [] for content in contents}
    for rows in scan_batches(version.vectors, ["content_hash"]):
        hits = rows.filter(pc.is_in(rows["content_hash"], value_set=wanted))
        for content, address in zip(hits["content_hash"].to_pylist(), hits[ROW_ADDRESS].to_pylist(), strict=True):
            if len(places[content]) < most:
                places[content].append(address)
    addresses = np.array([address for found in places.values() for address in found], np.uint64)
    ids = iter(take(version.vectors, addresses, ["chunk_id"])["chunk_id"].to_pylist() if len(addresses) else [])
    return {content: [next(ids) for _ in found] for content, found in places.items()}


def _rows_of(dataset: LanceDataset, doc_id: str, columns: list[str], fragments: list[Any] | None = None) -> pa.Table:
    if fragments == []:
        return pa.schema([*(dataset.schema.field(name) for name in columns), (ROW_ADDRESS, pa.uint64())]).empty_table()
    scanner = dataset.scanner(columns=columns, filter=pc.field("doc_id") == doc_id, fragments=fragments, with_row_address=True)
    return scanner.to_table()


def _columns(version: Version) -> list[str]:
    return list(version.chunks.schema.names)
