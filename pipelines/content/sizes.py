"""How many bytes rows have once they are decoded, found without decoding them; and cutting rows by what they hold.

A dictionary-encoded column holds a value once, however often rows have it: twenty megabytes can stand for hundreds of gigabytes.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

FIXED_BYTES = 8
"""Taken for a value of any type that is no text."""


def slices(sizes: np.ndarray, most: int, rows: int) -> Iterator[slice]:
    """Cut rows of those `sizes` (shape (n,), int64) into parts of at most `rows` rows, `most` in all; a larger row is its own part."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        fitting = int(np.searchsorted(ends, before + most, side="right"))
        stop = max(start + 1, min(start + rows, fitting))
        yield slice(start, stop)
        start = stop


def table_bytes(table: pa.RecordBatch) -> np.ndarray:
    """Bytes of each row, shape (n,), int64."""
    return sum((row_bytes(column) for column in table.columns), np.zeros(len(table), dtype=np.int64))


def row_bytes(column: pa.Array) -> np.ndarray:
    """Bytes of each value, shape (n,), int64."""
    measures = (measure for fits, measure in _MEASURES if fits(column.type))
    return next(measures, _of_fixed)(column)


def _of_dictionary(column: pa.DictionaryArray) -> np.ndarray:
    sizes = np.append(row_bytes(column.dictionary), 0)
    return np.asarray(sizes[_whole(column.indices, null=-1)])


def _of_views(column: pa.Array) -> np.ndarray:
    """A view is 16 bytes, of which the first four are the length (Arrow columnar format, variable-size binary view)."""
    lengths = np.frombuffer(column.buffers()[1], np.int32).reshape(-1, 4)[column.offset : column.offset + len(column), 0]
    return np.asarray(np.where(column.is_valid().to_numpy(zero_copy_only=False), lengths, 0), dtype=np.int64)


def _of_lists(column: pa.ListArray | pa.LargeListArray | pa.MapArray) -> np.ndarray:
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = pa.StructArray.from_arrays([column.keys, column.items], ["key", "item"]) if pa.types.is_map(column.type) else column.values
    ends = np.concatenate([[0], np.cumsum(row_bytes(values))])
    return np.asarray(ends[offsets[1:]] - ends[offsets[:-1]] + FIXED_BYTES)


def _of_structs(column: pa.StructArray) -> np.ndarray:
    return sum((row_bytes(field) for field in column.flatten()), np.zeros(len(column), dtype=np.int64))


def _of_text(column: pa.Array) -> np.ndarray:
    return _whole(pc.binary_length(column))


def _of_other(column: pa.Array) -> np.ndarray:
    """Types that nothing writes here: their share of the whole."""
    return np.full(len(column), column.nbytes // max(1, len(column)), dtype=np.int64)


def _of_fixed(column: pa.Array) -> np.ndarray:
    return np.full(len(column), FIXED_BYTES, dtype=np.int64)


def _whole(numbers: pa.Array, null: int = 0) -> np.ndarray:
    return np.asarray(pc.fill_null(numbers.cast(pa.int64()), null).to_numpy(zero_copy_only=False), dtype=np.int64)


_MEASURES: Sequence[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], np.ndarray]]] = (
    (pa.types.is_dictionary, _of_dictionary),
    (pa.types.is_struct, _of_structs),
    (lambda type_: pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_map(type_), _of_lists),
    (pa.types.is_nested, _of_other),
    (lambda type_: pa.types.is_string_view(type_) or pa.types.is_binary_view(type_), _of_views),
    (lambda type_: pa.types.is_string(type_) or pa.types.is_large_string(type_), _of_text),
    (lambda type_: pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_), _of_text),
)
"""The first that fits a type measures its columns."""
