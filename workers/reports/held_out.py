"""Rows whose labels are known, and which of them are held out to see whether the others tell their labels.

A document is held out, or not, by the hash of its id, and of each side those of the smallest hashes are looked at. So two versions are
judged by the same documents as far as they have the same, and no document stands on both sides.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.content.chunks import metadata_type
from pipelines.content.settling import halves
from pipelines.errors import SpecError
from pipelines.fingerprint import digests
from pipelines.measures.quality import unit
from pipelines.measures.scores import nearest_labels
from pipelines.spec.keys import nearest
from storage.reading.neighbours import vectors_at
from storage.store.lance import ROW_ADDRESS, scan_batches

TRAIN = 8_000
"""Rows that tell labels."""
TEST = 4_000
"""Rows that are held out: the standard error of an accuracy is then below .01."""
HELD_OUT = 3
"""One document in so many is held out, before either side is cut."""
READ = ("doc_id", "ordinal", "metadata")

Columns = Callable[[pa.Table], Mapping[str, pa.Array]]
"""From rows with READ to texts of each, null where there is none, by name."""


@dataclass(frozen=True)
class Half:
    """Some rows, documents of the smallest hashes first."""

    addresses: NDArray[np.uint64]
    columns: Mapping[str, pa.Array]
    """What is known of each: texts."""
    vectors: NDArray[np.float32]
    """Their directions, (n, d)."""

    def __len__(self) -> int:
        return len(self.addresses)


@dataclass(frozen=True)
class KnownRows:
    """Labelled rows: those that tell, and those that are held out."""

    train: Half
    test: Half
    rows: int
    """Labelled ones in the whole version."""

    def labels(self, column: str) -> tuple[list[str], NDArray[np.intp], NDArray[np.intp]]:
        """All that occur in a column, in order, and those of both halves by their places."""
        texts = pa.concat_arrays([self.train.columns[column], self.test.columns[column]])
        names = sorted(pc.unique(texts).to_pylist())
        codes = pc.index_in(texts, pa.array(names, pa.string())).to_numpy(zero_copy_only=False).astype(np.intp)
        return names, codes[: len(self.train)], codes[len(self.train) :]

    def told(self, column: str) -> NDArray[np.intp]:
        """The label that most of the nearest rows of one side have, of each of the other, by its place in `labels`."""
        _, train, _ = self.labels(column)
        return nearest_labels(self.train.vectors, train, self.test.vectors)[0]


def known_rows(dataset: Any, label: str, columns: Columns) -> KnownRows | None:
    """Rows that have a `label`, one of `columns`; None unless both halves have some. One look at ids and metadata, vectors of a sample."""
    train, test, rows = _Smallest(TRAIN), _Smallest(TEST), 0
    for batch in scan_batches(dataset, [name for name in READ if name in dataset.schema.names]):
        texts = {name: column.cast(pa.string()) for name, column in columns(batch).items()}
        chosen = pc.is_valid(texts[label])
        there = batch.filter(chosen)
        if not len(there):
            continue
        rows += len(there)
        keys = _keys(there["doc_id"])
        held_out = keys[:, 1] % HELD_OUT == 0
        found = pa.table(
            {
                "key": keys[:, 0],
                **{name: there[name] for name in ("ordinal", ROW_ADDRESS)},
                **{n: t.filter(chosen) for n, t in texts.items()},
            }
        )
        train.add(found.filter(pa.array(~held_out)))
        test.add(found.filter(pa.array(held_out)))
    both = train.side(dataset), test.side(dataset)
    return KnownRows(*both, rows) if all(map(len, both)) else None


def field_of(key: str, dataset: Any, field: str) -> Callable[[pa.Table], pa.Array]:
    """From rows to the texts of a field of the metadata. Raises SpecError, that names the `key`, where there is none of that name."""
    fields = fields_of(dataset)
    if field not in fields:
        there = ", ".join(fields) or "none"
        raise SpecError(f"{key}: expected a field of the metadata ({there}), found {field!r}{nearest(field, fields)}")
    return lambda rows: texts_of(rows, field)


def fields_of(dataset: Any) -> list[str]:
    """Names of the fields of the metadata."""
    return [field.name for field in metadata_type(dataset.schema) or ()]


def texts_of(rows: pa.Table, field: str) -> pa.Array:
    """A field of the metadata of rows, as texts."""
    return pc.struct_field(rows["metadata"].combine_chunks(), [field]).cast(pa.string())


def of_documents(labels: Mapping[str, str]) -> Callable[[pa.Table], pa.Array]:
    """From rows to the texts that a file has for the ids of their documents."""
    ids, texts = pa.array(list(labels), pa.string()), pa.array(list(labels.values()), pa.string())
    return lambda rows: texts.take(pc.index_in(rows["doc_id"].combine_chunks(), ids))


def _keys(documents: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Two numbers of the hash of each document's id, (n, 2). The chunks of a document mostly lie together: it is hashed once."""
    encoded = documents.combine_chunks().dictionary_encode()
    hashes: NDArray[np.uint64] = halves(digests(encoded.dictionary))
    keys: NDArray[np.uint64] = hashes[encoded.indices.to_numpy()]
    return keys


class _Smallest:
    """The rows of the smallest keys, of all that were added."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._rows: list[pa.Table] = []

    def add(self, rows: pa.Table) -> None:
        self._rows.append(rows)
        if sum(map(len, self._rows)) > 4 * self._count:
            self._rows = [self._cut()]

    def _cut(self) -> pa.Table:
        return pa.concat_tables(self._rows).sort_by([("key", "ascending"), ("ordinal", "ascending")]).slice(0, self._count)

    def side(self, dataset: Any) -> Half:
        rows = self._cut().combine_chunks() if self._rows else pa.table({ROW_ADDRESS: pa.array([], pa.uint64())})
        addresses = rows[ROW_ADDRESS].to_numpy()
        vectors = unit(vectors_at(dataset, addresses)) if len(rows) else np.zeros((0, 0), np.float32)
        usable = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
        names = [name for name in rows.column_names if name not in ("key", "ordinal", ROW_ADDRESS)]
        columns = {name: rows[name].combine_chunks().filter(pa.array(usable)) for name in names}
        return Half(addresses[usable], columns, vectors[usable])


def batches_of(dataset: Any, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    """`columns` of all rows, at most so many `rows` at a time."""
    for batch in scan_batches(dataset, columns):
        for first in range(0, len(batch), rows):
            yield batch.slice(first, rows)
