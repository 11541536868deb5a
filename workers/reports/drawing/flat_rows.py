"""Rows as one Parquet file of flat columns, for tools that read neither Lance nor float16: DuckDB, Spark, a notebook, embedding-atlas."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workers.reports.drawing.whole import whole_file


def write_rows(out: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write rows of `schema` to `out`, a batch at a time, each made flat; gives how many. A batch at a time is in memory.

    Raises SpecError if `out` is there.
    """
    rows = 0
    with whole_file(out) as part, pq.ParquetWriter(part, flat(pa.RecordBatch.from_pylist([], schema)).schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(flat(batch))
            rows += len(batch)
    return rows


def flat(batch: pa.RecordBatch) -> pa.RecordBatch:
    """With a column for each field of a struct, and each vector as a list of float32.

    A field whose name is taken is called after its struct: `metadata_text`.
    """
    columns: dict[str, pa.Array] = {name: batch[name] for name in batch.schema.names if not pa.types.is_struct(batch[name].type)}
    for field in batch.schema:
        if pa.types.is_struct(field.type):
            for place, name in enumerate(field.type.names):
                free = name
                while free in columns:
                    free = f"{field.name}_{free}"
                columns[free] = batch[field.name].flatten()[place]  # with the struct's own nulls
    return pa.RecordBatch.from_pydict({name: _single(values) for name, values in columns.items()})


def _single(values: pa.Array) -> pa.Array:
    """A vector as a list of float32: half of what reads Parquet knows neither float16 nor lists of one length."""
    if not pa.types.is_fixed_size_list(values.type) or not pa.types.is_floating(values.type.value_type):
        return values
    width = values.type.list_size
    numbers = values.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return pa.ListArray.from_arrays(np.arange(0, (len(values) + 1) * width, width, dtype=np.int32), numbers, mask=values.is_null())
