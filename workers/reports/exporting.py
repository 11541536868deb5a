"""A version for other tools: its map as a page or a picture, its landmarks or all its rows as files."""

import time
from collections.abc import Callable, Iterator
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
from storage.reports.kept_reports import reports_of
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
from workers.reports.run_reports import Sight, Wish, described_rows, sight

Target = Literal["page", "png", "projector", "atlas", "parquet"]
TARGETS: tuple[Target, ...] = get_args(Target)
BATCH_ROWS = 8_192
"""Of an export that are in memory at a time."""
_OWN = ("chunk_id", "doc_id", "text", "metadata", "vector")
_SAID = {"x": pa.float32(), "y": pa.float32(), "cluster": pa.int32(), "similarity": pa.float32()}
"""What an atlas says of a row."""


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


def _write_page(seen: Sight, out: Path, look: Look) -> int:
    showing, version = Showing(seen), seen.rows.version
    kept = sorted(reports_of(version.collection, version.generation, version.number), key=lambda report: report.at)
    newest = {report.kind: report.summary for report in kept}
    summaries: dict[str, Any] = {kind: newest[kind] for kind in KINDS if kind in newest and kind != "map"}
    write_page(showing.chart, out, showing.ids, showing.texts, showing.offered, summaries)
    return len(showing.ids)


def _write_png(seen: Sight, out: Path, look: Look) -> int:
    showing = Showing(seen)
    draw(showing.chart, out, look.dark, showing.colouring(look.by))
    return len(showing.ids)


def _write_projector(seen: Sight, out: Path, look: Look) -> int:
    showing = Showing(seen)
    chart = showing.chart
    columns = {"chunk_id": showing.ids, "cluster": [chart.names.get(number, "") for number in chart.clusters.tolist()]}
    fields = {field if field not in columns else f"metadata_{field}": showing.values(field) for field in showing.fields}
    rows = [] if chart.rows is None else chart.rows.tolist()
    write_projector(out, chart.about.collection, showing.vectors, {**columns, "rows": rows, "text": showing.texts, **fields})
    return len(showing.ids)


def _write_atlas(seen: Sight, out: Path, look: Look) -> int:
    version = seen.rows.version
    own = [name for name in ("chunk_id", "text", "metadata") if name in version.vectors.schema.names]
    schema = pa.schema(
        [*(version.vectors.schema.field(name) for name in own), *_said(("x", "y", "cluster")), pa.field("name", pa.string())]
    )
    return write_rows(out, schema, (_named(rows, seen) for rows in _beside(seen.rows, own, ("x", "y", "cluster"))))


def _named(rows: pa.Table, seen: Sight) -> pa.Table:
    names = [seen.atlas.names.get(number) for number in rows["cluster"].to_pylist()]
    return rows.append_column("name", pa.array(names, pa.string()))


def _write_parquet(version: Version, described: Rows | None, out: Path) -> int:
    own = [name for name in _OWN if name in version.vectors.schema.names]
    fields = [version.vectors.schema.field(name) for name in own]
    if described is None:
        return write_rows(out, pa.schema(fields), (rows.select(own) for rows in scan_batches(version.vectors, own)))
    return write_rows(out, pa.schema([*fields, *_said(tuple(_SAID))]), _beside(described, own, tuple(_SAID)))


def _said(names: tuple[str, ...]) -> list[pa.Field]:
    return [pa.field(name, _SAID[name]) for name in names]


def _beside(described: Rows, own: list[str], said: tuple[str, ...]) -> Iterator[pa.Table]:
    """All rows of a version in the order of its table: its columns `own`, and what is `said` of each; null of one that nothing is said of.

    The two tables are joined part by part: memory does not grow with them.
    """
    dataset = described.version.vectors
    wanted = Spill(pa.schema([("row_hash", HASH), (ROW_ADDRESS, pa.uint64())]), by_hash("row_hash"))
    known = Spill(pa.schema([("row_hash", HASH), *_said(said)]), by_hash("row_hash"))
    for rows in scan_batches(dataset, ["row_hash"]):
        wanted.add(rows)
    for rows in scan_batches(described.table, ["row_hash", *said]):
        known.add(rows)
    fragments = np.array(sorted(fragment.fragment_id for fragment in dataset.get_fragments()), np.uint64)
    joined = Spill(pa.schema([(ROW_ADDRESS, pa.uint64()), *_said(said)]), by_fragment(ROW_ADDRESS, fragments))
    for rows, told in matched(wanted, known):
        places = pc.index_in(rows["row_hash"], value_set=told["row_hash"].combine_chunks())
        joined.add(pa.table([rows[ROW_ADDRESS], *told.select(said).take(places).columns], schema=joined.schema))
    for part in joined.parts():
        ordered = part.sort_by(ROW_ADDRESS)
        for first in range(0, len(ordered), BATCH_ROWS):
            some = ordered.slice(first, BATCH_ROWS)
            rows = take(dataset, some[ROW_ADDRESS].to_numpy(), own)
            yield pa.table([*rows.columns, *some.select(said).columns], names=[*own, *said])


_WRITERS: dict[Target, Callable[[Sight, Path, Look], int]] = {
    "page": _write_page,
    "png": _write_png,
    "projector": _write_projector,
    "atlas": _write_atlas,
}
