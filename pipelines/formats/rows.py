"""From rows with columns to documents: joins and checks over whole Arrow columns."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.content.documents import LETTERS_KEPT, MISFIT, DeadLetter, DocumentBatch, SourceFile, Stage
from pipelines.content.sizes import row_bytes, slices, table_bytes
from pipelines.formats.casts import cast_column, json_column
from pipelines.formats.limits import Budget, Unreadable, beyond
from pipelines.spec.declared import LimitsSpec
from pipelines.spec.keys import nearest

BATCH_ROWS = 8192
BATCH_BYTES = 16 << 20

NAMES_SHOWN = 30


NO_TEXT = "no text"
"""Why a row is no document whose text is empty or white space."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns of a file make its documents."""

    id: str
    text: tuple[str, ...]
    """Joined by a blank line, in order."""
    metadata: pa.StructType | None
    """Names and types of the columns that are kept; None: none."""
    limits: LimitsSpec
    partition: Mapping[str, str | None] = field(default_factory=dict)
    """Metadata that all rows of the file have, where it has no column of that name."""

    @property
    def columns(self) -> list[str]:
        """What is to be read, each once."""
        return list(dict.fromkeys([self.id, *self.text, *(kept.name for kept in self.metadata or ())]))

    @property
    def schema(self) -> pa.Schema:
        """Of the documents."""
        fields = [pa.field("doc_id", pa.string()), pa.field("text", pa.string())]
        return pa.schema([*fields, pa.field("metadata", self.metadata)] if self.metadata is not None else fields)

    def check(self, present: Iterable[str]) -> list[str]:
        """The columns to read. Raises Unreadable if a file whose columns are `present` lacks one or has it twice."""
        names = list(present)
        for name in self.columns:
            if names.count(name) != 1 and not (name not in names and self._from_path(name)):
                shown = ", ".join(other[:64] for other in names[:NAMES_SHOWN]) or "none"
                within = "; what is within a column is none itself" if name.partition(".")[0] in names and "." in name else ""
                raise Unreadable(
                    f"{self.key(name)}: expected one column {name!r}, found {names.count(name)} among {shown}{nearest(name, names)}{within}"
                )
        return [name for name in self.columns if name in names]

    def _from_path(self, name: str) -> bool:
        return name in self.partition and name != self.id and name not in self.text

    def key(self, column: str) -> str:
        """The key of the spec that asks for a column."""
        return f"{MISFIT}{'id' if column == self.id else 'text' if column in self.text else 'metadata'}"


@dataclass(slots=True)
class Columns:
    """Rows of a file, column by column, on their way to documents."""

    ids: pa.Array
    """string; null where there is none."""
    texts: list[pa.Array]
    """string; one a text column."""
    metadata: list[pa.Array]
    """One a field of the metadata's type, and of its type."""
    problems: dict[int, str] = field(default_factory=dict)
    """Row -> why it cannot become a document."""
    odd: dict[int, str] = field(default_factory=dict)
    """Row -> why a field of its metadata is null."""


def assemble(file: SourceFile, columns: Columns, layout: Layout, place: Callable[[int], str]) -> DocumentBatch:
    """Join the text columns and set aside the rows that cannot become documents. `place` names a row that has no id."""
    text = _joined(columns.texts)
    problems = dict(columns.problems)
    _note(problems, pc.equal(pc.utf8_trim_whitespace(text), ""), NO_TEXT)
    no_id = pc.or_(pc.is_null(columns.ids), pc.equal(pc.fill_null(columns.ids, ""), ""))
    _note(problems, no_id, "no id: null or empty")
    limits = layout.limits
    _cap(problems, [text], "document_bytes", limits.document_bytes, "text")
    _cap(problems, [columns.ids], "id_bytes", limits.id_bytes, "id")
    _cap(problems, columns.metadata, "metadata_bytes", limits.metadata_bytes, "metadata")
    arrays = [columns.ids, text]
    if layout.metadata is not None:
        arrays.append(pa.StructArray.from_arrays(columns.metadata, fields=list(layout.metadata)))
    documents = pa.RecordBatch.from_arrays(arrays, schema=layout.schema)
    odd = {row: reason for row, reason in columns.odd.items() if row not in problems}
    dead = _letters("value", file, columns.ids, odd, limits.id_bytes, place)
    if problems:
        dead = [*_letters("document", file, columns.ids, problems, limits.id_bytes, place), *dead]
        keep = np.ones(len(documents), dtype=bool)
        keep[list(problems)] = False
        documents = documents.filter(pa.array(keep))
    return DocumentBatch(file, documents, dead)


def _cap(problems: dict[int, str], columns: Sequence[pa.Array], limit: str, most: int, of: str) -> None:
    """Note the rows of `columns` that have more than `most` bytes together."""
    if sum(column.nbytes for column in columns) > most:
        _note(problems, pa.array(sum(map(row_bytes, columns)) > most), beyond(limit, most, f"bytes of {of}"))


def _letters(
    stage: Stage, file: SourceFile, ids: pa.Array, problems: dict[int, str], id_bytes: int, place: Callable[[int], str]
) -> list[DeadLetter]:
    """One a problem, the first of them; and one for all others."""
    rows = sorted(problems)
    named = ((row, ids[row].as_py()) for row in rows[:LETTERS_KEPT])
    letters = [DeadLetter(stage, file.path, id if id and len(id.encode()) <= id_bytes else place(row), problems[row]) for row, id in named]
    more = len(rows) - len(letters)
    return [*letters, DeadLetter(stage, file.path, "", problems[rows[-1]], more)] if more else letters


def _joined(texts: Sequence[pa.Array]) -> pa.Array:
    if len(texts) == 1:
        return pc.fill_null(texts[0], "")
    parts = [pc.if_else(pc.equal(part, ""), None, part) for part in texts]
    nothing = reduce(pc.and_, map(pc.is_null, parts))
    parts[0] = pc.if_else(nothing, "", parts[0])  # Arrow 26 leaves a row out whose parts are all null
    return pc.binary_join_element_wise(*parts, "\n\n", null_handling="skip")


def _note(problems: dict[int, str], bad: pa.Array, reason: str) -> None:
    for row in np.flatnonzero(bad.to_numpy(zero_copy_only=False)):
        problems.setdefault(int(row), reason)


def only_letters(file: SourceFile, layout: Layout, letters: list[DeadLetter]) -> DocumentBatch:
    return DocumentBatch(file, pa.RecordBatch.from_pylist([], schema=layout.schema), letters)


def rows_in_batch(count: int, size: int) -> int:
    """How many of `count` rows that have `size` bytes together make a batch."""
    return max(1, min(BATCH_ROWS, count * BATCH_BYTES // max(size, 1)))


def row_batches(
    file: SourceFile, table: pa.RecordBatch, layout: Layout, first: int, budget: Budget, place: Callable[[int], str] = "row {}".format
) -> Iterator[DocumentBatch]:
    """The documents of some rows of a typed file, of which the first is its row number `first`; `place` names a row number.

    Raises Unreadable when they exceed the budget of the file: what goes before is delivered.
    """
    sizes = table_bytes(table)
    limits = layout.limits
    most = limits.document_bytes + limits.metadata_bytes + limits.id_bytes
    for part in slices(sizes, BATCH_BYTES, BATCH_ROWS):
        size, count = int(sizes[part].sum()), part.stop - part.start
        budget.spend(size, count)
        if count == 1 and size > most:
            reason = beyond("document_bytes", limits.document_bytes, "bytes of text")
            yield only_letters(file, layout, [DeadLetter("document", file.path, place(first + part.start), reason)])
        else:
            yield assemble(file, from_arrow(table.slice(part.start, count), layout), layout, _shifted(place, first + part.start))


def _shifted(place: Callable[[int], str], by: int) -> Callable[[int], str]:
    return lambda row: place(row + by)


def from_arrow(rows: pa.RecordBatch, layout: Layout) -> Columns:
    """Columns of a typed file. Raises Unreadable if the id or a text column has a type that cannot be one."""
    problems: dict[int, str] = {}
    ids = cast_column(
        _checked(rows, layout, layout.id, "strings, whole numbers, decimals, UUIDs or bytes", _is_id), pa.string(), "id", problems
    )
    texts = [
        cast_column(_checked(rows, layout, name, "strings or numbers", _is_text), pa.string(), f"text {name!r}", problems)
        for name in layout.text
    ]

    def kept_column(name: str) -> pa.Array:
        return rows.column(name) if name in rows.schema.names else pa.repeat(pa.scalar(layout.partition[name], pa.string()), len(rows))

    odd: dict[int, str] = {}
    values = [cast_column(kept_column(kept.name), kept.type, f"metadata {kept.name!r}", odd) for kept in layout.metadata or ()]
    return Columns(ids, texts, values, problems, odd)


def from_json(records: Sequence[Mapping[str, Any]], layout: Layout) -> Columns:
    """Columns of parsed JSON objects. A key that an object lacks is null."""
    problems: dict[int, str] = {}
    odd: dict[int, str] = {}

    def column(name: str, type_: pa.DataType, label: str, allowed: frozenset[type], bad: dict[int, str]) -> pa.Array:
        constant = layout.partition.get(name) if name not in (layout.id, *layout.text) else None
        return json_column([record.get(name, constant) for record in records], type_, label, allowed, bad)

    ids = column(layout.id, pa.string(), "id", frozenset({int}), problems)
    texts = [column(name, pa.string(), f"text {name!r}", frozenset({int, float}), problems) for name in layout.text]
    everything = frozenset({int, float, bool, str, list, dict})
    values = [column(kept.name, kept.type, f"metadata {kept.name!r}", everything, odd) for kept in layout.metadata or ()]
    return Columns(ids, texts, values, problems, odd)


def _is_id(type_: pa.DataType) -> bool:
    kinds = pa.types
    return _is_plain(type_) or bool(kinds.is_decimal(type_) or kinds.is_fixed_size_binary(type_) or isinstance(type_, pa.UuidType))


def _is_plain(type_: pa.DataType) -> bool:
    kinds = pa.types
    return bool(
        kinds.is_integer(type_)
        or kinds.is_null(type_)
        or kinds.is_string(type_)
        or kinds.is_large_string(type_)
        or kinds.is_string_view(type_)
        or kinds.is_binary(type_)
        or kinds.is_large_binary(type_)
    )


def _is_text(type_: pa.DataType) -> bool:
    return _is_plain(type_) or bool(pa.types.is_floating(type_) or pa.types.is_decimal(type_))


def _checked(rows: pa.RecordBatch, layout: Layout, name: str, expected: str, accepts: Callable[[pa.DataType], bool]) -> pa.Array:
    column = rows.column(name)
    type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not accepts(type_):
        raise Unreadable(f"{layout.key(name)}: expected {expected} in column {name!r}, found {type_}")
    return column
