"""The chunk table of a collection, and beside it the list of files that its rows were read from.

    <collection>.chunks.<chunking>.lance
    _revector/<collection>/files/<chunking>/<chunk version>.parquet

A file list belongs to a version of the table. Before each commit one is written in which all that the commit leaves in doubt is
marked to be read again, and after the last one that which holds. So no row is ever from a file that the newest list does not know,
and after a crash at any point the next run finds what is new, what moved, and what is gone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.chunks import DESIRED_COLUMNS, DIFF_COLUMNS, HASH
from pipelines.diff import FileRecord
from pipelines.documents import DeadLetter, SourceFile
from storage.ledger import folder
from storage.tables import ROW_ADDRESS, Store, scan_table

KEPT_LISTS = 3
_LIST_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("documents", pa.int64()),
        ("dead", pa.string()),
        ("partners", pa.list_(pa.string())),
        ("retry", pa.bool_()),
    ]
)
_STORED_SCHEMA = pa.schema([*((name, HASH) for name in DIFF_COLUMNS[:3]), ("file", pa.string()), (ROW_ADDRESS, pa.uint64())])
DESIRED_SCHEMA = pa.schema([("row_hash", HASH), ("content_hash", HASH), ("length", pa.int64()), (ROW_ADDRESS, pa.uint64())])


@dataclass(frozen=True)
class ChunkTable:
    """What a corpus says under one way to read and cut it."""

    store: Store
    collection: str
    chunking: str
    """The fingerprint of how documents are cut, and of what is kept of them."""

    @property
    def name(self) -> str:
        return f"{self.collection}.chunks.{self.chunking[:12]}"

    @property
    def version(self) -> int | None:
        """The latest version; None before there is a table."""
        return int(self.store.open(self.name).version) if self.store.has(self.name) else None

    def count(self, version: int | None) -> int:
        """Rows at `version`; 0 if that is None."""
        return 0 if version is None else int(self.store.open(self.name, version).count_rows())

    def stored_rows(self, version: int | None) -> pa.Table:
        """The hashes, file and address of each row: about 80 bytes a row. Empty if `version` is None."""
        return _STORED_SCHEMA.empty_table() if version is None else scan_table(self.store.open(self.name, version), DIFF_COLUMNS)

    def desired_rows(self, version: int | None) -> pa.Table:
        """`row_hash`, `content_hash`, `length` in code points and address of each row. Empty if `version` is None."""
        if version is None:
            return DESIRED_SCHEMA.empty_table()
        rows = scan_table(self.store.open(self.name, version), DESIRED_COLUMNS)
        length = pc.subtract(rows["end"], rows["start"])
        return pa.table([rows["row_hash"], rows["content_hash"], length, rows[ROW_ADDRESS]], schema=DESIRED_SCHEMA)

    def read_files(self, version: int | None, reading: str) -> dict[str, FileRecord]:
        """The newest file list that is not newer than `version`, by path.

        Files that were read in another way than `reading` are all to be read again. They stay in the list: one that is gone by then
        must be known to take its documents along.
        """
        names = [name for name in self._lists() if version is not None and int(name.removesuffix(".parquet")) <= version]
        data = self.store.objects.get(f"{self._folder}/{names[-1]}") if names else None
        if data is None:
            return {}
        listed = pq.read_table(pa.BufferReader(data))
        other = listed.schema.metadata[b"reading"] != reading.encode()
        return {row["path"]: _record(row | {"retry": row["retry"] or other}) for row in listed.to_pylist()}

    def write_files(self, version: int, reading: str, records: Iterable[FileRecord]) -> None:
        """Keep the file list of `version`; older lists but a few are removed."""
        schema = _LIST_SCHEMA.with_metadata({b"reading": reading.encode()})
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist([_row(record) for record in records], schema=schema), sink, compression="zstd")
        self.store.objects.put(f"{self._folder}/{version:012d}.parquet", sink.getvalue().to_pybytes())
        for name in self._lists()[:-KEPT_LISTS]:
            self.store.objects.delete(f"{self._folder}/{name}")

    @property
    def _folder(self) -> str:
        return f"{folder(self.collection)}/files/{self.chunking[:12]}"

    def _lists(self) -> list[str]:
        return self.store.objects.names(self._folder)


def _row(record: FileRecord) -> dict[str, Any]:
    file = record.file
    dead = orjson.dumps(record.dead).decode() if record.dead else None
    return {
        "path": file.path,
        "size": file.size,
        "etag": file.etag,
        "documents": record.documents,
        "dead": dead,
        "partners": sorted(record.partners),
        "retry": record.retry,
    }


def _record(row: dict[str, Any]) -> FileRecord:
    dead = tuple(DeadLetter(**letter) for letter in orjson.loads(row["dead"] or "[]"))
    file = SourceFile(row["path"], row["size"], row["etag"])
    return FileRecord(file, row["documents"], dead, frozenset(row["partners"]), row["retry"])
