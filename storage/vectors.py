"""A generation: what separates it from its chunk table, and where a vector can be had without a forward pass."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceDataset

from pipelines.chunks import HASH
from pipelines.diff import member
from storage.catalog import publications
from storage.tables import ROW_ADDRESS, Store, scan_table, table_meta, take

BLOCK_ROWS = 262_144
_EMBEDDED_SCHEMA = pa.schema([("row_hash", HASH), ("content_hash", HASH), (ROW_ADDRESS, pa.uint64())])


@dataclass(frozen=True)
class Generation:
    """The vectors of one collection under one chunking and space: one table."""

    store: Store
    name: str
    """Of the table, `<collection>.vectors.<...>`."""

    @property
    def collection(self) -> str:
        return self.name.partition(".")[0]

    @property
    def version(self) -> int | None:
        """The latest version; None before there is a table."""
        return int(self.store.open(self.name).version) if self.store.has(self.name) else None

    def count(self, version: int | None) -> int:
        """Rows at `version`; 0 if that is None."""
        return 0 if version is None else int(self.store.open(self.name, version).count_rows())

    def embedded_rows(self, version: int | None) -> pa.Table:
        """`row_hash`, `content_hash` and address of each row. Empty if `version` is None."""
        if version is None:
            return _EMBEDDED_SCHEMA.empty_table()
        return scan_table(self.store.open(self.name, version), ("row_hash", "content_hash"))


def generations(store: Store, collection: str) -> list[Generation]:
    """All generations of a collection that the store holds."""
    return [Generation(store, name) for name in store.tables(f"{collection}.vectors.")]


def replaced(chunks: LanceDataset, pending: np.ndarray, vectors: LanceDataset, stale: np.ndarray) -> np.ndarray:
    """For each address in `pending`, the position in `stale` of the row with the same chunk id, or -1: int64.

    An old row is taken out by the commit that puts the new one in: readers of the latest version never miss a chunk or see it twice.
    """
    if not len(pending) or not len(stale):
        return np.full(len(pending), -1, dtype=np.int64)
    old = take(vectors, stale, ["chunk_id"])["chunk_id"].combine_chunks()
    blocks = (pending[start : start + BLOCK_ROWS] for start in range(0, len(pending), BLOCK_ROWS))
    places = (pc.index_in(take(chunks, block, ["chunk_id"])["chunk_id"].combine_chunks(), value_set=old) for block in blocks)
    return np.concatenate([np.asarray(place.fill_null(-1), dtype=np.int64) for place in places])


class Donors:
    """Vectors that are stored already, found by content."""

    def __init__(self, store: Store, contents: pa.Array) -> None:
        """`contents`: distinct hashes to look for."""
        self.sources: list[tuple[str, int]] = []
        """Tables and versions."""
        self.source = np.full(len(contents), -1, dtype=np.int32)
        """Per content the index into `sources`; -1 while none was found."""
        self.address = np.zeros(len(contents), dtype=np.uint64)
        """Per content the row's address there."""
        self._store = store
        self._contents = contents
        self._seen: set[str] = set()

    @property
    def found(self) -> np.ndarray:
        """Per content: bool."""
        return np.asarray(self.source >= 0)

    def search(self, generation: Generation, version: int | None, space: str, embedded: pa.Table) -> "Donors":
        """Look in the generation itself, whose `embedded` rows are at hand, then wherever this space is still kept.

        What was published stays readable until maintenance removes it: a document that went and comes back costs nothing.
        """
        if version is not None:
            self._take(embedded, generation.name, version)
            whole = self._store.open(generation.name, version).get_fragments()
            self._seen |= {_data_file(fragment) for fragment in whole if fragment.metadata.deletion_file is None}
        for name, at in _kept_versions(self._store, generation.collection, space):
            if self.found.all():
                break
            for rows in self._unseen_rows(self._store.open(name, at)):
                self._take(rows, name, at)
        return self

    def only_found(self) -> "Donors":
        """The same without the contents that were not found."""
        kept = Donors(self._store, self._contents.filter(pa.array(self.found)))
        kept.sources, kept.source, kept.address = self.sources, self.source[self.found], self.address[self.found]
        return kept

    def vectors(self, chosen: np.ndarray) -> np.ndarray:
        """The vectors of the contents at positions `chosen` (each found), bit by bit: shape (len(chosen), d), in the stored dtype."""
        source, address = self.source[chosen], self.address[chosen]
        parts, order = [], []
        for index, (table, version) in enumerate(self.sources):
            places = np.flatnonzero(source == index)
            if len(places):
                column = take(self._store.open(table, version), address[places], ["vector"])["vector"].combine_chunks()
                parts.append(column.flatten().to_numpy(zero_copy_only=False).reshape(len(places), -1))
                order.append(places)
        back = np.argsort(np.concatenate(order), kind="stable")
        return np.asarray(np.concatenate(parts)[back])

    def _take(self, rows: pa.Table, name: str, version: int) -> None:
        missing = np.flatnonzero(~self.found)
        if not len(missing) or not len(rows):
            return
        place = pc.index_in(self._contents.take(pa.array(missing)), value_set=rows["content_hash"].combine_chunks())
        hit = np.asarray(pc.is_valid(place), dtype=bool)
        if hit.any():
            self.address[missing[hit]] = rows[ROW_ADDRESS].to_numpy()[np.asarray(place.drop_null())]
            self.source[missing[hit]] = len(self.sources)
            self.sources.append((name, version))

    def _unseen_rows(self, dataset: LanceDataset) -> Iterator[pa.Table]:
        """Wanted rows of those data files that were not looked at before."""
        unseen = [fragment for fragment in dataset.get_fragments() if _data_file(fragment) not in self._seen]
        if not unseen:
            return
        self._seen |= {_data_file(fragment) for fragment in unseen}
        wanted = self._contents.filter(pa.array(~self.found))
        scanner = dataset.scanner(columns=["content_hash"], fragments=unseen, with_row_address=True)
        hits = [batch.filter(pa.array(member(batch["content_hash"], wanted))) for batch in scanner.to_batches()]
        if hits:
            yield pa.Table.from_batches(hits)


def _kept_versions(store: Store, collection: str, space: str) -> Iterator[tuple[str, int]]:
    """The published versions of this space, oldest first, then the latest of every generation of it.

    Rows of a data file are only ever deleted: the oldest version that has the file has all that is left to find in it, so each file
    is looked at once, however many versions there are.
    """
    for row in publications(store, collection):
        if row.space == space and row.action == "publish":
            yield row.generation, row.version
    for generation in generations(store, collection):
        dataset = store.open(generation.name)
        if table_meta(dataset)["space"]["id"] == space:
            yield generation.name, dataset.version


def _data_file(fragment: Any) -> str:
    return str(fragment.metadata.files[0].path)
