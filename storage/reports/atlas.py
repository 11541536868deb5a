"""An atlas: contents of a generation that stay in their places while everything else comes and goes.

    _revector/<collection>/atlases/<generation>/<number>.parquet

Its landmarks are a sample of the contents of one version, with their vectors, so that it outlives their removal. Reports describe every
other row by the landmarks beside it. So two versions can be laid over each other, and a row is never looked at again while it is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.content.chunks import HASH
from storage.collection import Collection, own_part

_FACTS = b"atlas"


@dataclass(frozen=True, eq=False)
class Atlas:
    """n landmarks of d dimensions, each with its k neighbours among them."""

    number: int
    """Counts the atlases of a generation, from 1."""
    version: int
    """Of the vectors table, that the landmarks were drawn from."""
    ids: tuple[str, ...]
    """Of a chunk of each content."""
    hashes: pa.Array
    """Of the contents, HASH, ascending."""
    vectors: NDArray[np.float32]
    """Directions, (n, d)."""
    neighbours: NDArray[np.int32]
    """Landmarks, nearest first, (n, k), not itself; -1 where there are fewer."""
    cosines: NDArray[np.float32]
    """To these, (n, k)."""
    places: NDArray[np.float32]
    """In the plane, (n, 2)."""
    clusters: NDArray[np.int32]
    """The number of the cluster that each is in, (n,)."""
    names: Mapping[int, str]
    """Of the clusters, by number: a number is never used again for another one."""

    @property
    def size(self) -> int:
        """Landmarks."""
        return len(self.ids)

    def to_bytes(self) -> bytes:
        """As a Parquet file: vectors in float16."""
        facts = {"number": self.number, "version": self.version, "names": [[key, name] for key, name in sorted(self.names.items())]}
        columns = {
            "chunk_id": pa.array(self.ids, pa.string()),
            "content_hash": self.hashes.cast(HASH),
            "vector": _lists(self.vectors.astype(np.float16)),
            "neighbours": _lists(self.neighbours),
            "cosines": _lists(self.cosines),
            "place": _lists(self.places),
            "cluster": pa.array(self.clusters),
        }
        sink = pa.BufferOutputStream()
        table = pa.table(columns).replace_schema_metadata({_FACTS: orjson.dumps(facts)})
        pq.write_table(table, sink, compression="zstd")
        return bytes(sink.getvalue().to_pybytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> "Atlas":
        """What `to_bytes` gave."""
        table = pq.read_table(pa.BufferReader(data)).combine_chunks()
        facts = orjson.loads(table.schema.metadata[_FACTS])
        return cls(
            number=facts["number"],
            version=facts["version"],
            ids=tuple(table["chunk_id"].to_pylist()),
            hashes=table["content_hash"].combine_chunks(),
            vectors=_matrix(table["vector"], np.float32),
            neighbours=_matrix(table["neighbours"], np.int32),
            cosines=_matrix(table["cosines"], np.float32),
            places=_matrix(table["place"], np.float32),
            clusters=table["cluster"].to_numpy(),
            names=dict(facts["names"]),
        )


def newest_atlas(collection: Collection, generation: str) -> Atlas | None:
    """The one that reports of a generation stand on; None before the first."""
    numbers = atlas_numbers(collection, generation)
    return find_atlas(collection, generation, numbers[-1]) if numbers else None


def find_atlas(collection: Collection, generation: str, number: int) -> Atlas | None:
    data = collection.objects.get(_key(collection, generation, number))
    return None if data is None else Atlas.from_bytes(data)


def cluster_names(collection: Collection, generation: str, number: int) -> dict[int, str]:
    """Of an atlas, without making the rest of it; none if it is gone."""
    data = collection.objects.get(_key(collection, generation, number))
    return {} if data is None else dict(orjson.loads(pq.read_schema(pa.BufferReader(data)).metadata[_FACTS])["names"])


def keep_atlas(collection: Collection, generation: str, atlas: Atlas) -> bool:
    """Keep it under its number. False if there is another one of that number."""
    return collection.objects.put_if_absent(_key(collection, generation, atlas.number), atlas.to_bytes())


def forget_atlas(collection: Collection, generation: str, number: int) -> None:
    collection.objects.delete(_key(collection, generation, number))


def atlas_numbers(collection: Collection, generation: str) -> list[int]:
    """Of the atlases that are kept of a generation, ascending."""
    return [int(name.partition(".")[0]) for name in collection.objects.names(_folder(collection, generation))]


def _folder(collection: Collection, generation: str) -> str:
    return collection.key(f"atlases/{own_part(generation)}")


def _key(collection: Collection, generation: str, number: int) -> str:
    return f"{_folder(collection, generation)}/{number:06d}.parquet"


def _lists(matrix: NDArray[Any]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(matrix).reshape(-1)), max(1, matrix.shape[1]))


def _matrix(column: pa.ChunkedArray, dtype: type[np.generic]) -> NDArray[Any]:
    lists = column.combine_chunks()
    numbers: NDArray[Any] = lists.flatten().to_numpy(zero_copy_only=False).astype(dtype)
    return numbers.reshape(len(lists), lists.type.list_size)
