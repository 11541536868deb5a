"""The contents of a version, each once, in the order of their landmarks: what is near to something lies near to it on disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.content.chunks import HASH
from pipelines.content.settling import halves
from pipelines.errors import StorageError
from pipelines.fingerprint import whole
from pipelines.measures.quality import unit
from storage.store.lance import scan_batches
from storage.store.spill import PARTS, PartOf, Spill, by_hash, matched, on_scratch_disk

_ROWS = pa.schema([("content_hash", HASH), ("row_hash", HASH), ("chunk_id", pa.string()), ("landmark", pa.int32()), ("second", pa.int32())])
EARLIER = pa.schema([("content_hash", HASH), ("chunk_id", pa.string()), ("landmark", pa.int32()), ("second", pa.int32())])
"""What is known of the rows of an earlier version."""
_COLUMNS = {"landmark": np.int32, "second": np.int32, "copies": np.int32, "since": np.uint8}


class Since(IntEnum):
    """What became of a content since an earlier version."""

    KEPT = 0
    RENAMED = 1
    """It is another chunk now that stands for it: the one that did is gone, or one with a smaller id has come."""
    NEW = 2


@dataclass(frozen=True, slots=True)
class Shelf:
    """n contents, each with the smallest of its chunk ids. All but `starts` and `gone` lies in files that are mapped into memory."""

    ids: pa.ChunkedArray
    hashes: NDArray[np.uint64]
    """Of the contents, (n, 2), as `halves` gives them; ascending among those of one landmark."""
    landmark: NDArray[np.int32]
    """The nearest one, ascending; -1 for none."""
    second: NDArray[np.int32]
    copies: NDArray[np.int32]
    """Rows that have the content."""
    since: NDArray[np.uint8]
    """The Since of each; all are new where there is no earlier version."""
    stored: NDArray[Any]
    """Vectors, (n, d), of the type that the table has."""
    starts: NDArray[np.int64]
    """The place of the first content of each landmark, and n."""
    gone: pa.Table
    """EARLIER, and `there` (bool): chunks that no longer stand for a content, and whether the content is still there."""

    def __len__(self) -> int:
        return len(self.landmark)

    def vectors(self, places: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Directions of some contents, (n, d)."""
        return unit(self.stored[places])


def earlier_rows(rows: Any | None) -> Spill:
    """Those of an earlier version as `shelve` wants them."""
    spill = Spill(EARLIER, by_hash("content_hash"))
    for part in scan_batches(rows, EARLIER.names) if rows else ():
        spill.add(part)
    return spill


class Register:
    """Where contents are on a shelf, by their hashes. 16 bytes a content."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._order = np.argsort(shelf.hashes[:, 0], kind="stable")
        self._keys = shelf.hashes[self._order, 0]

    def places(self, contents: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
        """Of contents, (n,); -1 for one that is not there. First halves of hashes tell contents apart: 64 bits."""
        wanted = halves(contents)[:, 0]
        found = np.minimum(np.searchsorted(self._keys, wanted), max(0, len(self._keys) - 1))
        if not len(self._keys):
            return np.full(len(wanted), -1)
        return np.where(self._keys[found] == wanted, self._order[found], -1)


@contextmanager
def shelve(rows: Any, vectors: Any, landmarks: int, earlier: Spill) -> Iterator[Shelf]:
    """Put the contents of a version on a shelf, in a temporary folder that goes with it.

    `rows`: `content_hash`, `row_hash`, `chunk_id`, `landmark` and `second`, below `landmarks`, of each row of `vectors`. Two passes over
    temporary files, of memory that does not depend on the number of rows. Raises StorageError if a row has no vector, or there is no room.
    """
    wanted = Spill(_ROWS, by_hash("content_hash"))
    for part in scan_batches(rows, _ROWS.names):
        wanted.add(part)
    vector = vectors.schema.field("vector").type
    stored = Spill(pa.schema([("content_hash", HASH), ("row_hash", HASH), ("vector", vector)]), by_hash("content_hash"))
    for part in scan_batches(vectors, stored.schema.names):
        stored.add(part)
    fields = [*EARLIER, ("copies", pa.int32()), ("since", pa.uint8()), ("vector", vector)]
    contents, gone = Spill(pa.schema(fields), _by_landmark(landmarks)), []
    for some, with_vectors, before in matched(wanted, stored, earlier):
        firsts = representatives(some, counted=True)
        there = representatives(before)
        contents.add(_stand(firsts, there).append_column("vector", _vectors_of(firsts, with_vectors)))
        gone.append(_gone(firsts, there))
    with TemporaryDirectory() as folder:
        yield _put(Path(folder), contents, landmarks, pa.concat_tables(gone))


def _by_landmark(landmarks: int) -> PartOf:
    def part(rows: pa.Table) -> np.ndarray:
        place = rows["landmark"].to_numpy().astype(np.int64)
        return np.asarray(np.clip(place * PARTS // max(1, landmarks), 0, PARTS - 1), dtype=np.uint8)

    return part


def representatives(rows: pa.Table, counted: bool = False) -> pa.Table:
    """Of each content the row of the smallest chunk id, in the order of hashes; `counted`: with `copies`, how many rows have it."""
    rows = rows.sort_by([("content_hash", "ascending"), ("chunk_id", "ascending")]).combine_chunks()
    starts = np.flatnonzero(first_of_run(halves(rows["content_hash"])))
    made = rows.take(pa.array(starts)).combine_chunks()
    return made.append_column("copies", pa.array(np.diff(starts, append=len(rows)), pa.int32())) if counted else made


def first_of_run(keys: np.ndarray) -> np.ndarray:
    """Whether each of (n, w) keys, which lie beside their equals, is the first of them."""
    first = np.ones(len(keys), dtype=bool)
    first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    return first


def _stand(contents: pa.Table, before: pa.Table) -> pa.Table:
    """`contents` with their Since."""
    known = pc.index_in(contents["content_hash"], whole(before["content_hash"]))
    same = pc.equal(contents["chunk_id"], before["chunk_id"].take(known)).fill_null(False)
    there = np.where(same.to_numpy(), Since.KEPT, Since.RENAMED)
    since = np.where(known.is_null().to_numpy(), Since.NEW, there)
    names = [*EARLIER.names, "copies"]
    return contents.select(names).append_column("since", pa.array(since, pa.uint8()))


def _vectors_of(contents: pa.Table, stored: pa.Table) -> pa.ChunkedArray:
    places = pc.index_in(contents["row_hash"], whole(stored["row_hash"]))
    if places.null_count:
        raise StorageError(f"expected a vector of each row, found none of {places.null_count}: make the report of this version again")
    return stored["vector"].take(places)


def _gone(contents: pa.Table, before: pa.Table) -> pa.Table:
    known = pc.index_in(before["content_hash"], whole(contents["content_hash"]))
    same = pc.equal(before["chunk_id"], contents["chunk_id"].take(known)).fill_null(False)
    return before.append_column("there", pc.is_valid(known)).filter(pc.invert(same)).select([*EARLIER.names, "there"])


def _put(folder: Path, contents: Spill, landmarks: int, gone: pa.Table) -> Shelf:
    """Write the contents in order, a file a column, and map the files."""
    kind = contents.schema.field("vector").type
    types = {**_COLUMNS, "hashes": np.uint64, "stored": kind.value_type.to_pandas_dtype()}
    with on_scratch_disk():
        files = {name: (folder / name).open("wb") for name in types}
        ids = pa.ipc.new_file(str(folder / "ids"), pa.schema([("chunk_id", pa.string())]))
        for some in contents.parts():
            part = some.sort_by([("landmark", "ascending"), ("content_hash", "ascending")]).combine_chunks()
            ids.write_table(part.select(["chunk_id"]))
            for name in _COLUMNS:
                part[name].to_numpy().tofile(files[name])
            halves(part["content_hash"]).tofile(files["hashes"])
            whole(part["vector"]).flatten().to_numpy(zero_copy_only=False).tofile(files["stored"])
        ids.close()
        for file in files.values():
            file.close()
    count = contents.rows
    widths = {"hashes": (count, 2), "stored": (count, kind.list_size)}
    mapped = {name: _mapped(folder / name, kind, widths.get(name, (count,))) for name, kind in types.items()}
    names = pa.ipc.open_file(pa.memory_map(str(folder / "ids"))).read_all()["chunk_id"]
    return Shelf(ids=names, starts=np.searchsorted(mapped["landmark"], np.arange(landmarks + 1)), gone=gone, **mapped)


def _mapped(path: Path, kind: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    return np.asarray(np.memmap(path, kind, "r", shape=shape)) if shape[0] else np.zeros(shape, kind)
