"""From a version and its atlas to what is drawn of it: its landmarks, each with as many rows as stand beside it."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.content.chunks import HASH, metadata_type
from pipelines.content.diff import member
from pipelines.errors import SpecError
from storage.store.lance import ROW_ADDRESS, scan_batches, take
from workers.reports.drawing.chart import About, Chart
from workers.reports.drawing.colouring import Colouring, by_cluster, by_field, by_growth
from workers.reports.run_reports import Mapped

FIELDS = 3
"""Fields of the metadata that a page offers to colour by."""
MOST_VALUES = 60
"""Of a field that is offered: names of files and the like say nothing in colours."""
READ_ROWS = 1_024
"""Whose texts are in memory at a time."""
TEXT_LETTERS = 2_000
_FOUND = pa.schema([("row_hash", HASH), (ROW_ADDRESS, pa.uint64())])
_STANDING = pa.schema([("landmark", pa.int32()), ("similarity", pa.float32()), ("row_hash", HASH)])


@dataclass(frozen=True)
class Showing:
    """What there is to draw of a version. A landmark that no row stands beside any more is not drawn, and nothing is told of it."""

    sight: Mapped

    @cached_property
    def chart(self) -> Chart:
        atlas, version = self.sight.atlas, self.sight.rows.version
        about = About(
            collection=version.collection.name,
            version=version.number,
            rows=version.vectors.count_rows(),
            landmarks=len(atlas.ids),
            model=_model_name(version.recorded.name),
            date=self.sight.map.at[:10],
        )
        return Chart(about, "landmarks with chunks beside them", atlas.places, atlas.clusters, atlas.names, self._counts)

    @cached_property
    def ids(self) -> list[str]:
        """Of the chunk nearest to each landmark that is shown."""
        return list(self._nearest["chunk_id"].to_pylist())

    @cached_property
    def texts(self) -> list[str]:
        """Of the same chunks."""
        return list(self._nearest["text"].to_pylist())

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """Of these landmarks themselves, (m, d)."""
        return np.asarray(self.sight.atlas.vectors[self.chart.shown])

    @property
    def clusters(self) -> list[str]:
        """The names of those that these landmarks are in."""
        return [self.chart.names.get(number, "") for number in self.chart.clusters[self.chart.shown].tolist()]

    @property
    def rows(self) -> list[int]:
        """How many chunks stand beside each of these landmarks."""
        return list(self._counts[self.chart.shown].tolist())

    @property
    def fields(self) -> list[str]:
        """Of the metadata."""
        kind = metadata_type(self.sight.rows.version.vectors.schema)
        return [] if kind is None else [field.name for field in kind]

    def values(self, field: str) -> list[Any]:
        """Of a field of the metadata, of the same chunks. Raises SpecError if there is no such field."""
        if field not in self.fields:
            raise SpecError(
                f"expected clusters, growth or a field of the metadata ({', '.join(self.fields) or 'there are none'}), found {field}"
            )
        return [None if row is None else row[field] for row in self._nearest["metadata"].to_pylist()]

    def colouring(self, by: str) -> Colouring:
        """`clusters`, `growth`, or a field of the metadata. Raises SpecError for what is none of them, and without an earlier version."""
        if by == "clusters":
            return by_cluster(self.chart)
        if by != "growth":
            return self._by_nearest(by)
        growth = self.growth
        if growth is None:
            raise SpecError(
                "expected an earlier version that was reported on by the same atlas, found none: `revector report --version` one"
            )
        return growth

    @cached_property
    def growth(self) -> Colouring | None:
        """By how the share of each point's cluster has changed; None without an earlier version."""
        before = self.sight.before
        if before is None:
            return None
        shares = [_by_cluster(counts, self.sight.atlas.clusters) for counts in (_counts(before.table, len(self._counts)), self._counts)]
        with np.errstate(divide="ignore", invalid="ignore"):
            change = shares[1] / shares[0] - 1
        return by_growth(change[self.chart.clusters], before.version.number, self.sight.rows.version.number)

    @property
    def offered(self) -> list[Colouring]:
        """What a page offers beside the clusters."""
        told = [field for field in self.fields if 1 < len(set(map(str, self.values(field)))) <= MOST_VALUES]
        return [*([self.growth] if self.growth else []), *map(self._by_nearest, told[:FIELDS])]

    def _by_nearest(self, field: str) -> Colouring:
        made = by_field(field, self.values(field))
        codes = np.zeros(len(self._counts), np.int32)
        codes[self.chart.shown] = made.codes
        return replace(made, codes=codes, note="Each dot has the colour of the chunk nearest to it.")

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        return _counts(self.sight.rows.table, len(self.sight.atlas.ids))

    @cached_property
    def _nearest(self) -> pa.Table:
        """`chunk_id`, `text` and maybe `metadata` of the row nearest to each landmark that is shown."""
        dataset = self.sight.rows.version.vectors
        nearest = _nearest_rows(self.sight.rows.table)
        wanted = nearest.filter(pa.array(self.chart.shown[nearest["landmark"].to_numpy()]))["row_hash"].combine_chunks()
        scanned = (rows.select(_FOUND.names).cast(_FOUND) for rows in scan_batches(dataset, ["row_hash"]))
        found = pa.concat_tables([_FOUND.empty_table(), *(rows.filter(pa.array(member(rows["row_hash"], wanted))) for rows in scanned)])
        places = pc.index_in(wanted, value_set=found["row_hash"].combine_chunks())
        addresses = found[ROW_ADDRESS].combine_chunks().take(places).to_numpy()
        names = [name for name in ("chunk_id", "text", "metadata") if name in dataset.schema.names]
        return pa.concat_tables(
            _beginnings(take(dataset, some, names)) for some in np.array_split(addresses, 1 + len(addresses) // READ_ROWS)
        )


def _beginnings(rows: pa.Table) -> pa.Table:
    """With no more of the texts than is shown."""
    return rows.set_column(1, "text", pc.utf8_slice_codeunits(rows["text"], 0, TEXT_LETTERS))


def _counts(table: Any, landmarks: int) -> NDArray[np.int64]:
    """How many rows stand beside each landmark."""
    counts = np.zeros(landmarks, np.int64)
    for rows in scan_batches(table, ["landmark"]):
        beside = rows["landmark"].to_numpy()
        counts += np.bincount(beside[beside >= 0], minlength=landmarks)
    return counts


def _nearest_rows(table: Any) -> pa.Table:
    """The nearest row of each landmark that has any, by landmark; of several alike that of the smallest hash."""
    best = _STANDING.empty_table()
    for rows in scan_batches(table, _STANDING.names):
        beside = rows.filter(pc.greater_equal(rows["landmark"], 0)).select(_STANDING.names).cast(_STANDING)
        both = pa.concat_tables([best, beside]).sort_by(
            [("landmark", "ascending"), ("similarity", "descending"), ("row_hash", "ascending")]
        )
        best = both.filter(pa.array(np.diff(both["landmark"].to_numpy(), prepend=-1) > 0)).combine_chunks()
    return best


def _by_cluster(counts: NDArray[np.int64], clusters: NDArray[np.int32]) -> NDArray[np.float64]:
    """The share of all rows in each cluster, by its number; the last one is that of landmarks in none."""
    rows = np.zeros(int(clusters.max(initial=-1)) + 2)
    np.add.at(rows, clusters, counts)
    return rows / max(float(rows.sum()), 1.0)


def _model_name(name: str) -> str:
    """Of a folder its last two parts: a picture is sent on, and where a model lies is nobody's business."""
    return "/".join(PurePath(name).parts[-2:])
