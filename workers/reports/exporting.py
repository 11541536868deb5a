"""A version for other tools: its map as a page or a picture, its landmarks or all its rows as files."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.content.chunks import HASH
from pipelines.errors import SpecError
from pipelines.spec.declared import Spec
from pipelines.spec.keys import nearest
from pipelines.spec.reports import KINDS
from storage.reports.kept_reports import is_whole, reports_of
from storage.store.lance import ROW_ADDRESS, scan_batches, take
from storage.store.spill import Spill, by_fragment, by_hash, matched
from storage.tables.version import Version
from workers.observing.telling import Report, silent
from workers.reports.analysis import Rows
from workers.reports.drawing.flat_rows import write_rows
from workers.reports.drawing.map_page import write_page
from workers.reports.drawing.picture import draw
from workers.reports.drawing.projector import write_projector
from workers.reports.drawing.showing import Showing
from workers.reports.run_reports import Mapped, Wish, described_rows, sight

Target = Literal["page", "png", "projector", "atlas", "parquet"]
TARGETS: tuple[Target, ...] = get_args(Target)
BATCH_ROWS = 1_024
"""That are read at a time: their texts may be long."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    collection: str
    generation: str
    version: int
    to: Target
    path: str
    rows: int
    """Chunks, or landmarks where only they are written."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """How a picture is drawn."""

    by: str = "clusters"
    """What the colours are of: `clusters`, `growth`, or a field of the metadata."""
    dark: bool = False


def export(
    spec: Spec, name: str | None, to: str, out: Path, wish: Wish | None = None, look: Look | None = None, tell: Report = silent
) -> Exported:
    """Write a version to `out`, whole or not at all; what its map needs and is not there is made first, except for `parquet`.

    Raises SpecError if `out` is there, or for what is no target; and as `report` does.
    """
    if to not in TARGETS:
        raise SpecError(f"expected --to {', '.join(TARGETS)}, found {to!r}{nearest(to, TARGETS)}")
    target: Target = to
    if look and look != Look() and target != "png":
        raise SpecError(f"expected --by and --dark with --to png, found them with --to {target}")
    began = time.monotonic()
    if out.exists():
        raise SpecError(f"expected a new path, found {out}: name another, or remove it")
    if target == "parquet":
        version, rows = described_rows(spec, name, wish)
        written = _write_parquet(version, rows, out)
    else:
        seen = sight(spec, name, wish, tell)
        version = seen.rows.version
        written = _WRITERS[target](seen, out, look or Look())
    seconds = round(time.monotonic() - began, 3)
    return Exported(version.collection.name, version.generation, version.number, target, str(out), written, seconds)


def _write_page(seen: Mapped, out: Path, look: Look) -> int:
    showing, version = Showing(seen), seen.rows.version
    kept = sorted(reports_of(version.collection, version.generation, version.number), key=lambda report: report.at)
    newest = {report.kind: report.summary for report in kept}
    summaries: dict[str, Any] = {kind: newest[kind] for kind in KINDS if kind in newest and kind != "map"}
    write_page(showing.chart, out, showing.ids, showing.texts, showing.offered, summaries)
    return len(showing.ids)


def _write_png(seen: Mapped, out: Path, look: Look) -> int:
    showing = Showing(seen)
    draw(showing.chart, out, look.dark, showing.colouring(look.by))
    return len(showing.ids)


def _write_projector(seen: Mapped, out: Path, look: Look) -> int:
    showing = Showing(seen)
    columns: dict[str, Any] = {"chunk_id": showing.ids, "cluster": showing.clusters, "rows": showing.rows, "text": showing.texts}
    fields = {f"metadata_{field}" if field in columns else field: showing.values(field) for field in showing.fields}
    write_projector(out, showing.chart.about.collection, showing.vectors, {**columns, **fields})
    return len(showing.ids)


def _write_atlas(seen: Mapped, out: Path, look: Look) -> int:
    version, said = seen.rows.version, _Said(seen.rows.table, {name: name for name in ("x", "y", "cluster")}, "landmark")
    own = [name for name in ("chunk_id", "text", "metadata") if name in version.vectors.schema.names]
    schema = pa.schema([*(version.vectors.schema.field(name) for name in own), *said.fields, pa.field("name", pa.string())])
    return write_rows(out, schema, (_named(rows, seen) for rows in _rows_with(version, own, [said])))


def _named(rows: pa.Table, seen: Mapped) -> pa.Table:
    names = [seen.atlas.names.get(number) for number in rows["cluster"].to_pylist()]
    return rows.append_column("name", pa.array(names, pa.string()))


def _write_parquet(version: Version, described: Rows | None, out: Path) -> int:
    own = [name for name in ("chunk_id", "doc_id", "text", "metadata", "vector") if name in version.vectors.schema.names]
    said = [_Said(described.table, {name: f"map_{name}" for name in ("x", "y", "cluster", "similarity")}, "landmark")] if described else []
    said += _labels(version)
    schema = pa.schema([*(version.vectors.schema.field(name) for name in own), *(field for one in said for field in one.fields)])
    return write_rows(out, schema, _rows_with(version, own, said))


def _labels(version: Version) -> list["_Said"]:
    """Those that were suggested last, if any were."""
    every = reports_of(version.collection, version.generation, version.number, "labels")
    kept = sorted((report for report in every if is_whole(version.collection, report)), key=lambda report: report.at)
    tables = [version.collection.store.open(name, number) for report in kept[-1:] for name, number in report.tables.items()]
    names = {"label": "labels_label", "confidence": "labels_confidence"}
    return [_Said(table, names) for table in tables if {*names, "row_hash"} <= {*table.schema.names}]


@dataclass(frozen=True)
class _Said:
    """What a report says of each row of a version."""

    table: Any
    """A LanceDataset with a `row_hash` and what is in `names`."""
    names: Mapping[str, str]
    """Column -> what it is called in an export: always the same, whatever else is there."""
    only: str | None = None
    """A number that is negative in rows of which nothing is said."""

    @property
    def fields(self) -> list[pa.Field]:
        return [pa.field(name, self.table.schema.field(column).type) for column, name in self.names.items()]

    def spilled(self) -> Spill:
        spill = Spill(pa.schema([("row_hash", HASH), *self.fields]), by_hash("row_hash"))
        for rows in scan_batches(self.table, ["row_hash", *self.names, *([self.only] if self.only else [])]):
            known = rows.filter(pc.greater_equal(rows[self.only], 0)) if self.only else rows
            spill.add(known.select(["row_hash", *self.names]).rename_columns(["row_hash", *self.names.values()]))
        return spill


def _rows_with(version: Version, own: list[str], said: Sequence[_Said]) -> Iterator[pa.Table]:
    """All rows of a version in the order of its table, some at a time: its columns `own`, and what is said of it; null: nothing."""
    for part in _joined(version, said) if said else scan_batches(version.vectors, ["row_hash"]):
        ordered = part.sort_by(ROW_ADDRESS)
        told = ordered.select([field.name for one in said for field in one.fields])
        for first in range(0, len(ordered), BATCH_ROWS):
            addresses = ordered[ROW_ADDRESS].slice(first, BATCH_ROWS).to_numpy()
            rows = take(version.vectors, addresses, own)
            yield pa.table([*rows.columns, *told.slice(first, BATCH_ROWS).columns], names=[*own, *told.column_names])


def _joined(version: Version, said: Sequence[_Said]) -> Iterator[pa.Table]:
    """The address of each row, and what is said of it; the parts are in the order of the table. Memory does not grow with it."""
    wanted = Spill(pa.schema([("row_hash", HASH), (ROW_ADDRESS, pa.uint64())]), by_hash("row_hash"))
    for rows in scan_batches(version.vectors, ["row_hash"]):
        wanted.add(rows)
    fragments = np.array(sorted(fragment.fragment_id for fragment in version.vectors.get_fragments()), np.uint64)
    schema = pa.schema([(ROW_ADDRESS, pa.uint64()), *(field for one in said for field in one.fields)])
    joined = Spill(schema, by_fragment(ROW_ADDRESS, fragments))
    for rows, *told in matched(wanted, *(one.spilled() for one in said)):
        columns = [column for one in told for column in _beside(rows["row_hash"], one)]
        joined.add(pa.table([rows[ROW_ADDRESS], *columns], schema=schema))
    yield from joined.parts()


def _beside(hashes: pa.ChunkedArray, told: pa.Table) -> list[pa.ChunkedArray]:
    """The columns of `told`, but for its `row_hash`, in the order of `hashes`."""
    places = pc.index_in(hashes, value_set=told["row_hash"].combine_chunks())
    return list(told.drop(["row_hash"]).take(places).columns)


_WRITERS: dict[Target, Callable[[Mapped, Path, Look], int]] = {
    "page": _write_page,
    "png": _write_png,
    "projector": _write_projector,
    "atlas": _write_atlas,
}
