"""What points of a map have in a field of the metadata, and since when they are there: a code for each, and what the codes mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.content.chunks import metadata_type
from pipelines.errors import SpecError
from pipelines.spec.keys import nearest
from storage.reports.described import Described
from storage.reports.points import Points
from storage.store.lance import ROW_ADDRESS, scan_batches

VALUES = 7
"""That have a colour of their own, or ranges of numbers, or versions."""
OTHERS, MISSING = VALUES, VALUES + 1
WIDTH = 60
"""Letters of a value that is told."""


@dataclass(frozen=True, eq=False)
class PointValues:
    """Of n points."""

    codes: NDArray[np.uint8]
    """Places in `labels`, (n,)."""
    labels: tuple[str, ...]
    """VALUES, OTHERS and MISSING; empty where no point has the code."""
    counts: tuple[int, ...]
    """Points of each."""
    scale: Literal["distinct", "rising"]
    """`rising`: the values have an order."""


def value_fields(described: Described) -> list[str]:
    """The fields of the metadata, in the order of the table."""
    return [field.name for field in metadata_type(described.vectors().schema) or ()]


def values_of(points: Points, field: str) -> PointValues:
    """The most frequent values of a field, or ranges of its numbers or times. Raises SpecError for what is no field."""
    known = value_fields(points.described)
    if field not in known:
        raise SpecError(f"expected a field of {', '.join(known) or '(none)'}, found {field[:100]!r}{nearest(field, known)}")
    return made_of(_column(points, field))


def made_of(values: pa.Array) -> PointValues:
    """Codes of values of any type that metadata has."""
    kind = values.type
    if pa.types.is_temporal(kind):
        whole = pa.int32() if kind.bit_width == 32 else pa.int64()
        return _ranges(values.cast(whole), lambda edge: str(pa.scalar(round(edge), whole).cast(kind).as_py())[:19])
    if (pa.types.is_integer(kind) or pa.types.is_floating(kind)) and len(pc.unique(values.drop_null())) > VALUES:
        return _ranges(values, _number)
    return _frequent(values)


def _number(edge: float) -> str:
    """A year is written without a comma."""
    return f"{edge:.6g}" if abs(edge) < 10_000 else f"{edge:,.6g}" if abs(edge) < 1_000_000 else f"{edge:.4g}"


def _column(points: Points, field: str) -> pa.Array:
    """The field's value of each point, in their order: texts by their beginnings."""
    order = np.argsort(points.sources)
    wanted, found, first = points.sources[order], [], 0
    column = f"metadata.{field}" if field.isidentifier() else "metadata"
    for rows in scan_batches(points.described.vectors(), [column]):
        addresses = rows[ROW_ADDRESS].to_numpy()
        stop = first + int(np.searchsorted(wanted[first:], addresses[-1], "right"))
        values = rows[column] if column != "metadata" else pc.struct_field(rows["metadata"], [field])
        chosen = values.take(pa.array(np.searchsorted(addresses, wanted[first:stop])))
        found.append(pc.utf8_slice_codeunits(chosen, 0, WIDTH + 1) if pa.types.is_string(chosen.type) else chosen)
        first = stop
    kind = points.described.vectors().schema.field("metadata").type.field(field).type
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return pa.chunked_array([chunk for part in found for chunk in part.chunks], kind).take(pa.array(back)).combine_chunks()


def _frequent(values: pa.Array) -> PointValues:
    texts = values.cast(pa.string())
    counted = pc.value_counts(texts.drop_null()).to_pylist()
    ranked = sorted(counted, key=lambda one: (-one["counts"], one["values"]))
    named, others = ranked[:VALUES], ranked[VALUES:]
    codes = pc.index_in(texts, value_set=pa.array([one["values"] for one in named], pa.string())).fill_null(OTHERS).to_numpy()
    codes = np.where(texts.is_null().to_numpy(zero_copy_only=False), MISSING, codes).astype(np.uint8)
    labels = [_short(one["values"]) for one in named] + [""] * (VALUES - len(named))
    return _made(codes, labels, f"{len(others):,} others" if others else "", "distinct")


def _ranges(values: pa.Array, said: Any) -> PointValues:
    """As many points in each range, as far as equal numbers allow."""
    floats = values.cast(pa.float64()).fill_null(np.nan).to_numpy()
    known = floats[np.isfinite(floats)]
    if not len(known):
        return _made(np.full(len(floats), MISSING, np.uint8), [""] * VALUES, "", "rising")
    borders = np.unique(np.quantile(known, np.linspace(0, 1, VALUES + 1)[1:-1], method="nearest"))
    codes = np.digitize(floats, borders).astype(np.uint8)
    codes[~np.isfinite(floats)] = MISSING
    edges = [known.min(), *borders, known.max()]
    labels = [f"{said(low)} to {said(high)}" for low, high in pairwise(edges)]
    return _made(codes, labels + [""] * (VALUES - len(labels)), "", "rising")


def ages_of(points: Points, earlier: Sequence[Described]) -> PointValues:
    """In which version each point was first there, of `earlier` ones (ascending) and its own, as far as one atlas has described them.

    A table of BESIDE is only added to and taken from, never written anew: what is in a fragment came when the fragment came.
    """
    ours = [one for one in earlier if one.table == points.described.table and one.table_version <= points.described.table_version]
    versions = [*ours, points.described]
    fragments = (points.addresses >> np.uint64(32)).astype(np.int64)
    first = np.full(len(points), len(versions) - 1)
    for place, one in reversed([*enumerate(versions[:-1])]):
        there = np.array([fragment.fragment_id for fragment in one.rows().get_fragments()], np.int64)
        first[np.isin(fragments, there)] = place
    shown = versions[-VALUES:]
    codes = np.maximum(first - (len(versions) - len(shown)), 0).astype(np.uint8)
    labels = [f"since version {one.version}" for one in shown]
    labels[0] = f"version {shown[0].version} or before"
    return _made(codes, labels + [""] * (VALUES - len(labels)), "", "rising")


def _made(codes: NDArray[np.uint8], labels: list[str], others: str, scale: Literal["distinct", "rising"]) -> PointValues:
    counts = np.bincount(codes, minlength=MISSING + 1).tolist()
    return PointValues(codes, (*labels, others, "no value" if counts[MISSING] else ""), tuple(counts), scale)


def _short(text: str) -> str:
    """In one line, without control characters: values come from documents."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
