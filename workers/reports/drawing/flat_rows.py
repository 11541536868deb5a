"""Rows as one Parquet file of flat columns, for tools that read neither Lance nor float16: DuckDB, Spark, a notebook, embedding-atlas."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workers.reports.drawing.whole import whole_file

GROUP_BYTES = 32 << 20
"""Of a row group, uncompressed."""


def write_rows(out: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write rows of `schema` to `out`, each table made flat when its turn comes; gives how many. A row group of them is in memory.

    Raises SpecError if `out` is there.
    """
    rows = 0
    with whole_file(out) as part, pq.ParquetWriter(part, flat(schema.empty_table()).schema, compression="zstd") as writer:
        for group in _groups(map(flat, tables)):
            writer.write_table(group, row_group_size=len(group))
            rows += len(group)
    return rows


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of at least GROUP_BYTES, but for the last one: a reader pays for each row group of a file."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(one.nbytes for one in waiting) >= GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if any(map(len, waiting)):
        yield pa.concat_tables(waiting)


def flat(rows: pa.Table) -> pa.Table:
    """With a column for each field of a struct, and each vector as a list of float32.

    A field whose name is taken is called after its struct: `metadata_text`.
    """
    columns = {name: rows[name] for name in rows.schema.names if not pa.types.is_struct(rows.schema.field(name).type)}
    for field in rows.schema:
        if pa.types.is_struct(field.type):
            for place, name in enumerate(part.name for part in field.type):
                free = name
                while free in columns:
                    free = f"{field.name}_{free}"
                columns[free] = rows[field.name].combine_chunks().flatten()[place]  # with the struct's own nulls
    return pa.table({name: _single(values) for name, values in columns.items()})


def _single(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """A vector as a list of float32: half of what reads Parquet knows neither float16 nor lists of one length."""
    if not pa.types.is_fixed_size_list(values.type) or not pa.types.is_floating(values.type.value_type):
        return values
    width = values.type.list_size
    numbers = values.combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return pa.ListArray.from_arrays(pa.array(np.arange(0, (len(values) + 1) * width, width, dtype=np.int32)), pa.array(numbers))
