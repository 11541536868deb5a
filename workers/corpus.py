"""One pass over the changed files of a corpus: what each shard found becomes changes to the chunk table, in file order.

The coordinator's side of `workers.ingest`. It alone sees all shards, so it decides between documents of one id, and what is gone.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.diff import FileRecord, FilesDiff, State, member
from pipelines.documents import DeadLetter, SourceFile, SourceShard
from pipelines.errors import SourceError
from storage.tables import ROW_ADDRESS, Change
from workers.ingest import Duplicate, Ingest, Ingested, ingest_shard

STEP_ROWS = 200_000
"""Chunk rows of one commit."""


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
    changed: bool
    """Whether the chunk table is not what the corpus says: also where a document is only in another file."""


@dataclass(frozen=True, slots=True)
class Step:
    """One commit's worth of a pass."""

    change: Change
    records: list[FileRecord]
    """The file list to keep before the change is committed: what a crash from here on leaves in doubt is marked to be read again."""


class CorpusPass:
    """Follows the shards of a run in order and tells what to commit."""

    def __init__(
        self, ingest: Ingest, files: FilesDiff, known: dict[str, FileRecord], stored: pa.Table, total: int, refuse_duplicates: bool
    ) -> None:
        """`known`: the file list before the run; `stored`: the chunk table before it (hashes, `file`, addresses), `total` its rows.

        `stored` may be empty where no file is to be read.
        """
        self._total = total
        self.new_rows: list[pa.Table] = []
        """`row_hash`, `content_hash`, `length` of what was or would be written; kept only where nothing is staged."""
        self.ingest = ingest
        self._files = files
        self._records = dict(known)
        self._new = {file.path for file in files.read} - known.keys()
        self._stored = stored
        self._refuse = refuse_duplicates
        self._released = member(stored["file"], pa.array(sorted(files.released), pa.string()))
        self._untouched = stored.filter(pa.array(~self._released)).select(["doc_key", "file"])
        self._seen: list[pa.Table] = []
        self._pieces: Counter[SourceFile] = Counter()
        self._open: dict[SourceFile, FileRecord] = {}
        self._sure = {record.file.path for record in files.kept}
        """Files whose rows are in the table as their record says, whatever happens to the rest of the run."""
        self._failed: set[str] = set()
        self._deleted: list[np.ndarray] = []
        self._states = np.zeros(len(State), dtype=np.int64)
        self._rows = self._common = self._removed_documents = 0

    def steps(self, shards: Sequence[SourceShard], done: Iterable[Ingested]) -> Iterator[Step]:
        """Turn what the shards found (`done`, in the order of `shards`) into commits."""
        self._pieces = Counter(piece.file for shard in shards for piece in shard.pieces)
        deleted: list[np.ndarray] = []
        fragments: list[str] = []
        rows = 0
        for shard, found in zip(shards, done, strict=True):
            settled = self._settle(shard, found)
            deleted.append(self._accept(settled))
            fragments += settled.fragments
            rows += len(settled.rows)
            self._record(shard, settled)
            if rows >= STEP_ROWS:
                yield self._step(deleted, fragments)
                self._sure |= self._new & self._records.keys()
                deleted, fragments, rows = [], [], 0
        deleted.append(self._removed())
        yield self._step(deleted, fragments)
        for path in self._files.gone:
            self._records.pop(path, None)

    @property
    def records(self) -> list[FileRecord]:
        return list(self._records.values())

    @property
    def dead(self) -> list[DeadLetter]:
        """All letters of all files, also of those that were not opened in this run."""
        return [letter for path in sorted(self._records) for letter in self._records[path].dead]

    @property
    def deleted(self) -> np.ndarray:
        """Addresses of all stored rows that the run takes out: uint64."""
        return np.concatenate([np.zeros(0, dtype=np.uint64), *self._deleted])

    def summary(self) -> CorpusSummary:
        """To be asked when the steps are done."""
        deleted = len(self.deleted)
        read = {file.path for file in self._files.read}
        untouched = sum(self._records[record.file.path].documents for record in self._files.kept)
        return CorpusSummary(
            documents_added=int(self._states[State.ADDED]),
            documents_changed=int(self._states[State.CHANGED]),
            documents_removed=self._removed_documents,
            documents_unchanged=int(self._states[State.UNCHANGED] + self._states[State.MOVED]) + untouched,
            chunks_added=self._rows - self._common,
            chunks_removed=deleted - self._common,
            chunks_unchanged=self._total - deleted + self._common,
            files_read=len(read),
            files_gone=len(self._files.gone),
            files_unchanged=len(self._files.kept),
            changed=bool(self._rows or deleted),
        )

    def _step(self, deleted: list[np.ndarray], fragments: list[str]) -> Step:
        addresses = np.concatenate([np.zeros(0, dtype=np.uint64), *deleted])
        reading = {file.path: FileRecord(file) for file in self._files.read}
        records = [record if path in self._sure else replace(record, retry=True) for path, record in (reading | self._records).items()]
        return Step(Change(addresses, fragments), records)

    def _settle(self, shard: SourceShard, found: Ingested) -> Ingested:
        """Do a shard again without the documents that lost their id to one elsewhere."""
        lost = self._lost(found)
        if lost:
            again = ingest_shard(self.ingest, shard, frozenset(lost))
            named = [replace(copy, kept_in=copy.kept_in or lost[copy.doc_key]) for copy in again.duplicates]
            found = replace(again, duplicates=named)
        if self._refuse and found.duplicates:
            raise _refusal(found.duplicates[0])
        return found

    def _lost(self, found: Ingested) -> dict[bytes, str]:
        """The keys of a shard's documents that a document elsewhere goes before, and the file of that one."""
        lost: dict[bytes, str] = {}
        for rival in self._seen:
            lost |= {key: holder for key, _, _, holder in _shared(found.documents, rival)}
        for key, doc_id, file, holder in _shared(found.documents, self._untouched):
            if self._goes_before(holder, file):
                lost[key] = holder
            elif key not in lost:
                self._displace(Duplicate(doc_id, key, holder, file))
        return lost

    def _goes_before(self, holder: str, file: str) -> bool:
        return holder > file if self.ingest.keep_last else holder < file

    def _displace(self, loser: Duplicate) -> None:
        """A stored document of an unchanged file lost its id to one that was just read."""
        if self._refuse:
            raise _refusal(loser)
        record = self._records[loser.file]
        self._sure.discard(loser.file)
        self._records[loser.file] = replace(
            record, documents=record.documents - 1, dead=(*record.dead, _letter(loser)), partners=record.partners | {loser.kept_in or ""}
        )

    def _accept(self, found: Ingested) -> np.ndarray:
        """Count a shard in. Gives the addresses of the stored rows that its documents replace."""
        self._seen.append(pa.table({"doc_key": found.documents["doc_key"], "file": found.documents["file"].dictionary_encode()}))
        states = found.documents["state"].to_numpy()
        self._states += np.bincount(states, minlength=len(State))
        self._rows += len(found.rows)
        self._common += int(member(self._stored["row_hash"], found.rows["row_hash"]).sum())
        if not self.ingest.stage:
            self.new_rows.append(found.rows)
        rewritten = found.documents.filter(pa.array(states != State.UNCHANGED))["doc_key"]
        return self._delete(member(self._stored["doc_key"], rewritten))

    def _delete(self, mask: np.ndarray) -> np.ndarray:
        addresses = self._stored[ROW_ADDRESS].to_numpy()[mask]
        self._deleted.append(addresses)
        return np.asarray(addresses)

    def _removed(self) -> np.ndarray:
        """Addresses of documents that were in a changed or vanished file and are nowhere now. A file that failed keeps its own."""
        if not len(self._stored):
            return np.zeros(0, dtype=np.uint64)
        gone = self._released & ~member(self._stored["file"], pa.array(sorted(self._failed), pa.string()))
        if self._seen:
            gone &= ~member(self._stored["doc_key"], pa.concat_tables(self._seen)["doc_key"])
        self._removed_documents = len(pc.unique(self._stored["doc_key"].filter(pa.array(gone))))
        return self._delete(gone)

    def _record(self, shard: SourceShard, found: Ingested) -> None:
        """Note the files of a shard. One of several pieces counts as read with its last."""
        for file, pieces in Counter(piece.file for piece in shard.pieces).items():
            letters = [letter for letter in found.dead if letter.file == file.path]
            copies = [duplicate for duplicate in found.duplicates if duplicate.file == file.path]
            if any(letter.stage == "file" for letter in letters):
                self._failed.add(file.path)
            record = self._open.get(file, FileRecord(file))
            self._open[file] = replace(
                record,
                documents=record.documents + found.read.get(file.path, 0),
                dead=tuple(dict.fromkeys((*record.dead, *letters, *map(_letter, copies)))),  # each piece of a bad file may complain
                partners=record.partners | {copy.kept_in for copy in copies if copy.kept_in},
                # A row that is bad in an unchanged file stays bad; a file that could not be read may be readable now.
                retry=record.retry or any(letter.stage == "file" for letter in letters),
            )
            self._pieces[file] -= pieces
            if not self._pieces[file]:
                self._records[file.path] = self._open.pop(file)


def _shared(documents: pa.Table, rival: pa.Table) -> Iterator[tuple[bytes, str, str, str]]:
    """The documents of both tables: key, id, file here, file there."""
    if member(rival["doc_key"], documents["doc_key"]).any():  # this way round first: the rival may be a million times larger
        both = documents.filter(pa.array(member(documents["doc_key"], rival["doc_key"])))
        place = pc.index_in(both["doc_key"].combine_chunks(), value_set=rival["doc_key"].combine_chunks())
        columns = [both["doc_key"], both["doc_id"], both["file"], rival["file"].take(place)]
        yield from zip(*(column.to_pylist() for column in columns), strict=True)


def _letter(copy: Duplicate) -> DeadLetter:
    return DeadLetter("document", copy.file, copy.doc_id, f"duplicate id: in {copy.file}, kept the one in {copy.kept_in}")


def _refusal(copy: Duplicate) -> SourceError:
    where = f"{copy.doc_id!r} in {copy.file} and in {copy.kept_in}"
    return SourceError(f"expected every document id once (duplicates = 'error'), found {where}")
