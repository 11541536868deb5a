"""The chunk table of a collection, and beside it the list of files that its rows were read from.

    <collection>.chunks.<chunking>.lance
    _revector/<collection>/files/<chunking>/<chunk version>.parquet
    _revector/<collection>/tokenizers/<identity>.json
    _revector/<collection>/loaded/<model files>.json

A file list belongs to a version of the table. Before each commit one is written in which all that the commit leaves in doubt is
marked to be read again, and after the last one that which holds. So no row is ever from a file that the newest list does not know,
and after a crash at any point the next run finds what is new, what moved, and what is gone.

One commit can escape that: of a run that was paused between the check of its fencing token and the commit, while another run took over
and found nothing to commit itself. A list has the token of its run, and so has a commit. Where they differ the list is in doubt.

The tokenizer that chunks were counted with is kept, too: they stay as they are when the model changes, and so do their ids. So is which
tokenizer a model has once it is loaded, for loading it takes seconds.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.content.chunks import DESIRED_COLUMNS, DIFF_COLUMNS, HASH
from pipelines.content.diff import FileRecord
from pipelines.content.documents import DeadLetter, SourceFile
from storage.collection import Collection
from storage.store.commit import commit_tokens
from storage.store.lance import ROW_ADDRESS, scan_batches

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
        ("lost", pa.int64()),
        ("stale", pa.int64()),
    ]
)
_READING, _TOKEN, _PLACE = b"reading", b"token", b"place"
"""In a list's metadata: how its files were read, the fencing token of the run that wrote it, and where they were."""
_DOCUMENT_SCHEMA = pa.schema([("doc_hash", HASH), ("file", pa.dictionary(pa.int32(), pa.string()))])
DESIRED_SCHEMA = pa.schema([("row_hash", HASH), ("content_hash", HASH), ("length", pa.int64()), (ROW_ADDRESS, pa.uint64())])


@dataclass(frozen=True, slots=True)
class FileList:
    """The files that the rows of a chunk table were read from."""

    records: dict[str, FileRecord]
    """By path."""
    place: str | None
    """Where they were; None if nothing says that."""


@dataclass(frozen=True)
class ChunkTable:
    """What a corpus says under one way to read and cut it."""

    collection: Collection
    chunking: str
    """The fingerprint of how documents are cut, and of what is kept of them."""

    @property
    def name(self) -> str:
        return self.collection.table("chunks", self.chunking[:12])

    @property
    def version(self) -> int | None:
        """The latest version; None before there is a table."""
        return int(self.collection.store.open(self.name).version) if self.collection.store.has(self.name) else None

    def count(self, version: int | None) -> int:
        """Rows at `version`; 0 if that is None."""
        return 0 if version is None else int(self.collection.store.open(self.name, version).count_rows())

    def extent(self, version: int | None) -> tuple[int, int]:
        """Rows at `version`, and the least address that none of them has; zeros if that is None."""
        if version is None:
            return 0, 0
        fragments = self.fragments(version)
        return self.count(version), (int(fragments[-1]) + 1) << 32 if len(fragments) else 0

    def fragments(self, version: int | None) -> np.ndarray:
        """The numbers of the table's fragments, sorted: uint64."""
        held = [] if version is None else self.collection.store.open(self.name, version).get_fragments()
        return np.array(sorted(fragment.fragment_id for fragment in held), dtype=np.uint64)

    def documents(self, version: int | None) -> Iterator[pa.Table]:
        """`doc_key`, `doc_hash`, `row_hash`, `file` and address of each row, some at a time. Nothing if `version` is None."""
        if version is not None:
            yield from scan_batches(self.collection.store.open(self.name, version), DIFF_COLUMNS)

    def desired(self, version: int | None) -> Iterator[pa.Table]:
        """Rows of DESIRED_SCHEMA, some at a time: `length` is in code points. Nothing if `version` is None."""
        if version is not None:
            for rows in scan_batches(self.collection.store.open(self.name, version), DESIRED_COLUMNS):
                length = pc.subtract(rows["end"], rows["start"])
                yield pa.table([rows["row_hash"], rows["content_hash"], length, rows[ROW_ADDRESS]], schema=DESIRED_SCHEMA)

    def fragments_by_file(self, version: int, paths: Iterable[str]) -> dict[str, list[int]]:
        """The numbers of the fragments that have rows of each of `paths`, by path."""
        wanted = pa.array(sorted(paths), pa.string())
        numbers: dict[str, list[int]] = {path: [] for path in paths}
        for fragment in self.collection.store.open(self.name, version).get_fragments():
            held = pc.unique(fragment.to_table(columns=["file"])["file"])
            for path in held.filter(pc.is_in(held, value_set=wanted)).to_pylist():
                numbers[path].append(fragment.fragment_id)
        return numbers

    def document_hashes(self, version: int, paths: Sequence[str], fragments: Iterable[int]) -> pa.Table:
        """`doc_hash` and `file` of the rows of `paths`, which are in `fragments`."""
        dataset = self.collection.store.open(self.name, version)
        held = [dataset.get_fragment(number) for number in fragments]
        files = pa.array(paths, pa.string())
        parts = []
        for rows in scan_batches(dataset, _DOCUMENT_SCHEMA.names, fragments=held):
            wanted = rows.filter(pc.is_in(rows["file"], value_set=files))
            parts.append(pa.table([wanted["doc_hash"], wanted["file"].dictionary_encode()], schema=_DOCUMENT_SCHEMA))
        return pa.concat_tables([_DOCUMENT_SCHEMA.empty_table(), *parts]).combine_chunks()

    def read_files(self, version: int | None, reading: str) -> FileList:
        """The newest file list that is not newer than `version`.

        Files that were read in another way than `reading` are all to be read again. They stay in the list: one that is gone by then
        must be known to take its documents along. So it is where the list is in doubt, and files that only the table knows are added.
        """
        if version is None:
            return FileList({}, None)
        known, listed = self._newest_list(version)
        metadata = listed.schema.metadata
        place = metadata.get(_PLACE, b"").decode() or None
        records = {row["path"]: _record(row) for row in listed.to_pylist()}
        if self._escaped(known, version, metadata[_TOKEN].decode()):
            unknown = [path for path in self._paths(version) if path not in records]
            records |= {path: FileRecord(SourceFile(path, 0, "")) for path in unknown}
        elif metadata[_READING] == reading.encode():
            return FileList(records, place)
        return FileList({path: replace(record, retry=True) for path, record in records.items()}, place)

    def _newest_list(self, version: int) -> tuple[int, pa.Table]:
        """The newest list that is not newer than `version`, and the version that it is of; an empty one of version 0 if there is none."""
        names = [name for name in self._lists() if int(name.removesuffix(".parquet")) <= version]
        data = self.collection.store.objects.get(f"{self._folder}/{names[-1]}") if names else None
        if data is None:
            return 0, _LIST_SCHEMA.with_metadata({_READING: b"", _TOKEN: b""}).empty_table()
        # In this thread: one of Arrow's own that still holds the bytes when the process ends, ends it with SIGABRT instead.
        listed = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        return int(names[-1].removesuffix(".parquet")), listed

    def _escaped(self, known: int, version: int, token: str) -> bool:
        """Whether a commit between the version `known` and `version` is of another run than the one of `token`."""
        return known < version and not commit_tokens(self.collection.store.open(self.name, version), known) <= {token}

    def _paths(self, version: int) -> list[str]:
        """The files that the rows at `version` are from."""
        paths: set[str] = set()
        for rows in scan_batches(self.collection.store.open(self.name, version), ["file"]):
            paths.update(pc.unique(rows["file"]).to_pylist())
        return sorted(paths)

    def write_files(self, version: int, reading: str, records: Iterable[FileRecord], token: int, place: str = "") -> None:
        """Keep the file list of `version`, as the run with fencing token `token` has it; older lists but a few are removed.

        `place`: where the files are.
        """
        schema = _LIST_SCHEMA.with_metadata({_READING: reading.encode(), _TOKEN: str(token).encode(), _PLACE: place.encode()})
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist([_row(record) for record in records], schema=schema), sink, compression="zstd")
        self._forget_later(version)
        self.collection.store.objects.put(f"{self._folder}/{version:012d}.parquet", sink.getvalue().to_pybytes())
        for name in self._lists()[:-KEPT_LISTS]:
            self.collection.store.objects.delete(f"{self._folder}/{name}")

    def carry_files(self, version: int, to: int) -> None:
        """Let the list of `version` be that of version `to`, too, which has the same rows. One that is in doubt stays behind."""
        self._forget_later(version)
        known, listed = self._newest_list(version)
        if known and not self._escaped(known, version, listed.schema.metadata[_TOKEN].decode()):
            data = self.collection.store.objects.get(f"{self._folder}/{known:012d}.parquet")
            if data is not None:
                self.collection.store.objects.put(f"{self._folder}/{to:012d}.parquet", data)

    def _forget_later(self, version: int) -> None:
        """Remove the lists of versions after the latest: they are of a table that was there before an older one was restored."""
        for name in self._lists():
            if int(name.removesuffix(".parquet")) > version:
                self.collection.store.objects.delete(f"{self._folder}/{name}")

    def older_lists(self) -> list[str]:
        """The names of file lists that are no longer read: all but the newest."""
        return self._lists()[:-1]

    def forget_older_lists(self) -> None:
        """Remove them: they have names of files that are gone."""
        for name in self.older_lists():
            self.collection.store.objects.delete(f"{self._folder}/{name}")

    def forget_files(self) -> None:
        """Remove all file lists: those of a table that is no more would be taken for those of one that is made anew."""
        self.collection.store.objects.remove(self._folder)

    @property
    def _folder(self) -> str:
        return self.collection.key(f"files/{self.chunking[:12]}")

    def _lists(self) -> list[str]:
        return self.collection.store.objects.names(self._folder)


def keep_tokenizer(collection: Collection, identity: str, content: bytes) -> None:
    """Keep the `tokenizer.json` that chunks are counted with."""
    collection.objects.put_if_absent(_tokenizer_key(collection, identity), content)


def kept_tokenizer(collection: Collection, identity: str) -> bytes | None:
    """The `tokenizer.json` of that identity, if it was kept."""
    return collection.objects.get(_tokenizer_key(collection, identity))


def keep_loaded(collection: Collection, files: str, identity: str) -> None:
    """Keep the identity of the tokenizer that a model of these `files` (their hash) has once it is loaded."""
    collection.objects.put_if_absent(collection.key(f"loaded/{files}.json"), orjson.dumps(identity))


def loaded_identity(collection: Collection, files: str) -> str | None:
    """What `keep_loaded` kept."""
    identity: str | None = collection.objects.get_json(collection.key(f"loaded/{files}.json"))
    return identity


def _tokenizer_key(collection: Collection, identity: str) -> str:
    return collection.key(f"tokenizers/{identity}.json")


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
        "lost": record.lost,
        "stale": record.stale,
    }


def _record(row: dict[str, Any]) -> FileRecord:
    dead = tuple(DeadLetter(**letter) for letter in orjson.loads(row["dead"] or "[]"))
    file = SourceFile(row["path"], row["size"], row["etag"])
    lost, stale = row.get("lost", 0), row.get("stale", 0)  # of lists that an earlier version wrote
    return FileRecord(file, row["documents"], dead, frozenset(row["partners"]), row["retry"], lost, stale)
