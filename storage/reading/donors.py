"""Where a vector can be had without a forward pass: in generations of the same space, or of one that it derives from."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from lance import LanceDataset

from pipelines.content.chunks import HASH
from pipelines.content.diff import member
from pipelines.spaces.space import Space
from storage.collection import Collection
from storage.history.catalog import kept_publications
from storage.store.lance import ROW_ADDRESS, data_file, scan_batches, table_meta, take
from storage.tables.generations import Generation, generations

DONOR_SCHEMA = pa.schema([("content_hash", HASH), ("source", pa.int32()), ("donor", pa.uint64())])


class Donors:
    """Where vectors of a space are kept, or can be derived from: in the generation itself, and wherever else they are still stored.

    What was published stays readable until maintenance removes it: a document that went and comes back costs nothing.
    """

    def __init__(self, generation: Generation, version: int | None, space: Space) -> None:
        self.sources: list[tuple[str, int]] = []
        """Tables and versions, the best first."""
        self._generation = generation
        self._version = version
        self._space = space
        self._seen: set[str] = set()
        self._missing: pa.Array | None = None

    def rows(self, wanted: pa.Array | None) -> Iterator[pa.Table]:
        """Rows of DONOR_SCHEMA, those of better sources first. With `wanted`, only of these contents, until all are found."""
        store, name = self._generation.collection.store, self._generation.name
        own = [(name, self._version)] if self._version is not None else []
        for table, version in (*own, *_kept_versions(self._generation.collection, self._space)):
            if wanted is not None and not len(wanted):
                return
            dataset = store.open(table, version)
            unseen = [fragment for fragment in dataset.get_fragments() if data_file(fragment) not in self._seen]
            if not unseen:
                continue
            # The own table comes first, and is the latest: what was deleted from a fragment of it, an older version still has.
            whole = [fragment for fragment in unseen if self.sources or not own or fragment.metadata.deletion_file is None]
            self._seen |= {data_file(fragment) for fragment in whole}
            self.sources.append((table, version))
            yield from self._scan(dataset, unseen, wanted)
            if wanted is not None:
                wanted = self._missing

    def _scan(self, dataset: LanceDataset, fragments: list[Any], wanted: pa.Array | None) -> Iterator[pa.Table]:
        offered = []
        source = pa.scalar(len(self.sources) - 1, pa.int32())
        for rows in scan_batches(dataset, ["content_hash"], fragments=fragments):
            hits = rows if wanted is None else rows.filter(pa.array(member(rows["content_hash"], wanted)))
            if wanted is not None:
                offered += hits["content_hash"].chunks
            yield pa.table([hits["content_hash"], pa.repeat(source, len(hits)), hits[ROW_ADDRESS]], schema=DONOR_SCHEMA)
        if wanted is not None:
            self._missing = wanted.filter(pa.array(~member(wanted, pa.chunked_array(offered, HASH))))

    def vectors(self, source: np.ndarray, address: np.ndarray) -> np.ndarray:
        """The vectors at `address` in `source`: shape (n, d), in the stored dtype. Those of the same space bit by bit."""
        parts, order = [], []
        for index, (table, version) in enumerate(self.sources):
            places = np.flatnonzero(source == index)
            if len(places):
                dataset = self._generation.collection.store.open(table, version)
                column = take(dataset, address[places], ["vector"])["vector"].combine_chunks()
                stored = column.flatten().to_numpy(zero_copy_only=False).reshape(len(places), -1)
                parts.append(stored if _space_of(dataset)["id"] == self._space.id else self._derived(stored))
                order.append(places)
        back = np.argsort(np.concatenate(order), kind="stable")
        return np.asarray(np.concatenate(parts)[back])

    def _derived(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors of a space that this one derives from, as vectors of this one."""
        cut = vectors[:, : self._space.dimension].astype(np.float32)
        if self._space.normalize:
            cut /= np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return cut.astype(self._space.dtype)


def _kept_versions(collection: Collection, space: Space) -> Iterator[tuple[str, int]]:
    """The published versions of this space, oldest first, then the latest of every generation of it; then those that it derives from.

    Rows of a data file are only ever deleted: the oldest version that has the file has all that is left to find in it, so each file
    is looked at once, however many versions there are.
    """
    latest = {generation.name: collection.store.open(generation.name) for generation in generations(collection)}
    same = {name for name, dataset in latest.items() if _space_of(dataset)["id"] == space.id}
    wider = {name for name, dataset in latest.items() if name not in same and space.derives_from(_space_of(dataset))}
    published = dict.fromkeys((row.generation, row.version) for row in kept_publications(collection))
    for names in (same, wider):
        yield from ((name, version) for name, version in published if name in names)
        yield from ((name, dataset.version) for name, dataset in latest.items() if name in names)


def _space_of(dataset: LanceDataset) -> dict[str, Any]:
    return dict(table_meta(dataset)["space"])
