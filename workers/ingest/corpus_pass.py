"""One pass over the changed files of a corpus: the rows that are new go in while shards are read, and then it is settled what holds.

The coordinator's side of `workers.ingest`. It alone sees all shards, so it decides between documents of one id, and what is gone. Until
then the table may hold a document twice; nobody reads it before it is published, and after a crash the files are read again.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.content.chunks import HASH
from pipelines.content.diff import FileRecord, FilesDiff, member
from pipelines.content.documents import LETTERS_KEPT, DeadLetter, SourceFile, SourceShard, Stage, count_inputs, gathered
from pipelines.content.settling import Fate, Settled, Standing, file_numbers, settle
from pipelines.errors import SourceError
from pipelines.spec.declared import SourceSpec
from storage.store.commit import Change
from storage.store.lance import ROW_ADDRESS
from storage.store.spill import Spill, by_hash, matched
from storage.tables.chunk_table import DESIRED_SCHEMA
from workers.ingest.losses import Losses
from workers.ingest.source_shard import Ingest, Ingested

STEP_ROWS = 200_000
"""Chunk rows of one commit."""
_NOTHING = np.zeros(0, dtype=np.uint64)
_SEEN = pa.schema([("doc_id", pa.string()), ("doc_key", HASH), ("doc_hash", HASH), ("file", pa.int32()), ("doubtful", pa.bool_())])
_ROWS = pa.schema([("doc_key", HASH), ("doc_hash", HASH), ("row_hash", HASH), ("file", pa.int32()), (ROW_ADDRESS, pa.uint64())])
_PLANNED = pa.schema([*_ROWS, ("content_hash", HASH), ("length", pa.int64())])


@dataclass(frozen=True, slots=True)
class CorpusSummary:
    """How the corpus differs from the chunk table."""

    documents_added: int
    documents_changed: int
    documents_removed: int
    documents_unchanged: int
    chunks_added: int
    chunks_removed: int
    chunks_unchanged: int
    files_read: int
    files_gone: int
    files_unchanged: int
    failed: int
    """Documents that could not be read as they are: dead letters of documents and values, and all in files that could not be read."""
    stale: int
    """Those of them that are stored as they were before: they are not among the unchanged."""
    total: int
    """All documents, those included."""
    changed: bool
    """Whether the chunk table is not what the corpus says: also where a document is only in another file."""


@dataclass(frozen=True, slots=True)
class Step:
    """One commit's worth of a pass."""

    change: Change
    records: list[FileRecord]
    """The file list to keep before the change is committed: what a crash from here on leaves in doubt is marked to be read again."""


class CorpusPass:
    """Follows the shards of a run in order and tells what to commit: first all `inserts`, then what `settle` says."""

    def __init__(
        self, ingest: Ingest, files: FilesDiff, known: dict[str, FileRecord], earlier: Mapping[str, FileRecord], source: SourceSpec
    ) -> None:
        """`known`: the file list before the run. `earlier`: that of another table of the corpus, for one that is new."""
        self.ingest = ingest
        self._files = files
        self._records = dict(known)
        self._refuse = source.duplicates == "error"
        self._keep_last = source.duplicates == "last"
        self._losses = Losses(known, earlier, source.format)
        self._stale: Counter[str] = Counter()
        """Documents that are kept as they were, by file."""
        self._paths = sorted(known.keys() | {file.path for file in files.read})
        self._number = {path: number for number, path in enumerate(self._paths)}
        self._standing = np.full(len(self._paths), Standing.KEPT, dtype=np.int8)
        self._mark(files.gone, Standing.GONE)
        self._mark((file.path for file in files.read), Standing.READ)
        doubtful = {file.path for file in files.read if file.path not in known or known[file.path].retry}
        self._doubtful = np.array([path in doubtful for path in self._paths], dtype=bool)
        """Files that no run has settled, by number: their documents may be stored elsewhere, too."""
        self._total, self._first_new = ingest.table.extent(ingest.version)
        self._seen = Spill(_SEEN, by_hash("doc_key"))
        self._planned = Spill(_PLANNED, by_hash("doc_key"))
        self._inserted = False
        self._pieces: Counter[SourceFile] = Counter()
        self._open: dict[SourceFile, FileRecord] = {}
        self._doubt = {file.path for file in files.read} | files.gone
        """Files whose rows may not be what their record says if the run ends now."""
        self._deleted = _NOTHING
        self._fates = np.zeros(len(Fate), dtype=np.int64)
        self._added = self._gone = self._again = self._removed_documents = 0

    def inserts(self, shards: Sequence[SourceShard], done: Iterable[Ingested]) -> Iterator[Step]:
        """Turn what the shards found (`done`, in the order of `shards`) into commits that add rows."""
        self._pieces = Counter(piece.file for shard in shards for piece in shard.pieces)
        fragments: list[str] = []
        rows = 0
        for shard, ingested in zip(shards, done, strict=True):
            self._note(ingested)
            self._record(shard, ingested)
            fragments += ingested.fragments
            rows += ingested.fresh
            if rows >= STEP_ROWS and fragments:
                yield self._insert(fragments)
                fragments, rows = [], 0
        if fragments and not self._in_vain():
            yield self._insert(fragments)

    def _insert(self, fragments: list[str]) -> Step:
        self._planned = Spill(_PLANNED, by_hash("doc_key"))  # these are rows of the table from now on
        self._inserted = True
        return self._step(_NOTHING, fragments)

    def _in_vain(self) -> bool:
        """Whether all that was staged is of documents that lose their id to others: then the table stays as it is."""
        if self._inserted or not self.ingest.narrow:
            return False
        return not any((settled.hold & new).any() for settled, new, _ in self._settled(self.ingest.version))

    def settle(self, version: int | None) -> Step:
        """What must go from `version` of the chunk table, which has all inserts.

        Raises SourceError for a duplicate that is refused, and if no file has the columns that the spec names.
        """
        self._check_columns()
        deleted = [_NOTHING]
        for settled, new, address in self._settled(version):
            self._count(settled, new)
            deleted.append(address[~settled.hold])
            self._stale.update(self._paths[number] for number in settled.stale.tolist())
        self._losses.count(self._records, self._stale)
        self._deleted = np.sort(np.concatenate(deleted))
        written = self._deleted[self._deleted < self._first_new] if self._planned.rows else self._deleted
        return self._step(written, [])

    def _check_columns(self) -> None:
        """A mistake in the spec is not so many bad files."""
        letters = [next((letter for letter in self._records[file.path].dead if letter.misfit), None) for file in self._files.read]
        if letters and letters[0] and all(letters) and not self._files.kept:
            raise SourceError(f"{letters[0].reason} (in {letters[0].file}; of {len(letters):,} files none has what the spec names)")

    def _settled(self, version: int | None) -> Iterator[tuple[Settled, np.ndarray, np.ndarray]]:
        """What holds, which rows are new, and the address of each row, part by part."""
        rows = Spill(_ROWS, by_hash("doc_key"))
        if not self._files.empty:
            self._collect(rows, version)
        for stored, planned, seen in matched(rows, self._planned, self._seen):
            both = pa.concat_tables([stored, planned.select(_ROWS.names)])
            address = both[ROW_ADDRESS].to_numpy()
            new = address >= self._first_new
            yield settle(both, new, seen, self._standing, self._keep_last), new, address

    def end(self) -> None:
        """Forget the files that are gone. Only once all is committed: until then a crash must leave them in the list, marked."""
        for path in self._files.gone:
            self._records.pop(path, None)

    def desired(self, version: int | None) -> Iterator[pa.Table]:
        """The rows of the chunk table (DESIRED_SCHEMA) as they would be. Those that are not written yet have made-up addresses."""
        for rows in self.ingest.table.desired(version):
            yield self._without_deleted(rows)
        for rows in self._planned.parts():
            yield self._without_deleted(rows.select(DESIRED_SCHEMA.names))

    def documents(self, version: int | None) -> Iterator[pa.Table]:
        """The `doc_key` of each row of the chunk table, as they would be."""
        for rows in chain(self.ingest.table.documents(version), self._planned.parts()):
            yield self._without_deleted(rows).select(["doc_key"])

    @property
    def records(self) -> list[FileRecord]:
        return list(self._records.values())

    @property
    def dead(self) -> list[DeadLetter]:
        """All letters of all files, also of those that were not opened in this run."""
        return [letter for path in sorted(self._records) for letter in self._records[path].dead]

    def summary(self) -> CorpusSummary:
        """Counts over the whole corpus, files that were not read included. Complete only after `settle`."""
        kept = [self._records[record.file.path] for record in self._files.kept]
        records = self._records.values()
        missing = sum(record.lost + _count(record.dead, "document") for record in records)
        return CorpusSummary(
            documents_added=int(self._fates[Fate.ADDED]),
            documents_changed=int(self._fates[Fate.CHANGED]),
            documents_removed=self._removed_documents,
            documents_unchanged=int(self._fates[Fate.UNCHANGED]) + sum(record.documents for record in kept),
            chunks_added=self._added - self._again,
            chunks_removed=self._gone - self._again,
            chunks_unchanged=self._total - self._gone + self._again,
            files_read=len(self._files.read),
            files_gone=len(self._files.gone),
            files_unchanged=len(self._files.kept),
            failed=missing + sum(_count(record.dead, "value") for record in records),
            stale=int(self._fates[Fate.STALE]) + sum(record.stale for record in kept),
            total=missing + sum(record.documents for record in records),
            changed=bool(self._added or self._gone),
        )

    def _mark(self, paths: Iterable[str], standing: Standing) -> None:
        self._standing[[self._number[path] for path in paths]] = standing

    def _step(self, deleted: np.ndarray, fragments: list[str]) -> Step:
        reading = {file.path: FileRecord(file) for file in self._files.read}
        records = (reading | self._records).items()
        return Step(
            Change(deleted, fragments), [replace(record, retry=True) if path in self._doubt else record for path, record in records]
        )

    def _note(self, ingested: Ingested) -> None:
        """Keep what was seen, and rows that are not in the table yet, at addresses behind all others."""
        files = self._numbered(ingested.seen["file"])
        doubtful = ingested.seen["fresh"].to_numpy(zero_copy_only=False) | self._doubtful[files]
        self._seen.add(
            ingested.seen.drop_columns(["file", "fresh"]).append_column("file", files).append_column("doubtful", pa.array(doubtful))
        )
        if len(ingested.rows):
            addresses = np.arange(len(ingested.rows), dtype=np.uint64) + np.uint64(self._first_new + self._planned.rows)
            rows = ingested.rows.drop_columns(["file"]).append_column("file", self._numbered(ingested.rows["file"]))
            self._planned.add(rows.append_column(ROW_ADDRESS, pa.array(addresses)))

    def _numbered(self, paths: pa.ChunkedArray) -> pa.Array:
        return pa.array(file_numbers(paths, self._number))

    def _collect(self, rows: Spill, version: int | None) -> None:
        """The rows of files that are not as they were, and those elsewhere of documents that came into one of them."""
        released = self._standing != Standing.KEPT
        newcomers = self._newcomers()
        for batch in self.ingest.table.documents(version):
            files = self._numbered(batch["file"])
            wanted = released[files]
            if not wanted.all():
                wanted |= True if newcomers is None else member(batch["doc_key"], newcomers)
            rows.add(batch.drop_columns(["file"]).append_column("file", files).filter(pa.array(wanted)))

    def _newcomers(self) -> pa.Array | None:
        """The keys of documents that may be stored in a file that was not read; None if they are too many to hold."""
        if not self._seen.in_memory:
            return None
        seen = self._seen.whole()
        return seen["doc_key"].filter(seen["doubtful"]).combine_chunks()

    def _count(self, settled: Settled, new: np.ndarray) -> None:
        self._fates += settled.fates
        self._removed_documents += settled.removed
        self._added += int((settled.hold & new).sum())
        self._gone += int((~settled.hold & ~new).sum())
        self._again += settled.again
        losers = settled.losers.take(pa.array(np.argsort(settled.losers["file"].to_numpy(), kind="stable")))
        _, starts = np.unique(losers["file"].to_numpy(), return_index=True)
        for start, stop in pairwise([*starts.tolist(), len(losers)]):
            self._displace(losers.slice(start, stop - start))

    def _displace(self, losers: pa.Table) -> None:
        """Documents of one `file` lost their ids (`doc_id`) to those of others (`holder`), or of its own."""
        path = self._paths[losers["file"][0].as_py()]
        named = [(doc_id.as_py(), self._paths[holder.as_py()]) for doc_id, holder in zip(*_first(losers, "doc_id", "holder"), strict=True)]
        if self._refuse:
            doc_id, holder = named[0]
            raise SourceError(f"expected every document id once (duplicates = 'error'), found {doc_id!r} in {path} and in {holder}")
        letters = [DeadLetter("document", path, doc_id, f"duplicate id: in {path}, kept the one in {holder}") for doc_id, holder in named]
        if more := len(losers) - len(letters):
            letters.append(DeadLetter("document", path, "", "duplicate ids", more))
        record = self._records[path]
        holders = {self._paths[number] for number in pc.unique(losers["holder"]).to_pylist()}
        self._doubt.add(path)
        self._records[path] = replace(
            record,
            documents=record.documents - len(losers),
            dead=gathered((*record.dead, *letters)),
            partners=record.partners | (holders - {path}),
        )

    def _without_deleted(self, rows: pa.Table) -> pa.Table:
        if not len(self._deleted):
            return rows
        address = rows[ROW_ADDRESS].to_numpy()
        place = np.minimum(np.searchsorted(self._deleted, address), len(self._deleted) - 1)
        return rows.filter(pa.array(self._deleted[place] != address))

    def _record(self, shard: SourceShard, ingested: Ingested) -> None:
        """Note the files of a shard. One of several pieces counts as read with its last."""
        read = {count["values"]: count["counts"] for count in ingested.seen["file"].value_counts().to_pylist()}
        dead: dict[str, list[DeadLetter]] = {}
        for letter in ingested.dead:
            dead.setdefault(letter.file, []).append(letter)
        for file, pieces in Counter(piece.file for piece in shard.pieces).items():
            letters = dead.get(file.path, [])
            failed = [letter for letter in letters if letter.stage == "file"]
            if failed:
                self._mark([file.path], Standing.FAILED)
                self._losses.note(failed)
            record = self._open.get(file, FileRecord(file))
            self._open[file] = replace(
                record,
                documents=record.documents + read.get(file.path, 0),
                dead=gathered((*record.dead, *letters)),  # each piece of a bad file may complain
                # A row that is bad in an unchanged file stays bad, and so does a file above a limit; any other may be readable next time.
                retry=record.retry or any(not letter.capped for letter in failed),
            )
            self._pieces[file] -= pieces
            if not self._pieces[file]:
                self._records[file.path] = whole = self._open.pop(file)
                if self._losses.emptied(whole):
                    self._mark([file.path], Standing.FAILED)
                    self._losses.note([DeadLetter("file", file.path, "", "")])


def _count(letters: Iterable[DeadLetter], stage: Stage) -> int:
    return count_inputs(letter for letter in letters if letter.stage == stage)


def _first(rows: pa.Table, *columns: str) -> list[pa.Array]:
    """Columns of the first LETTERS_KEPT rows: so many are kept one by one."""
    return [rows[name].slice(0, LETTERS_KEPT) for name in columns]
