"""Where marts lie in the store: one Parquet file for each table and collection, so that two collections never write the same one.

_revector/marts.d/<table>/<collection>.parquet
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import StorageError
from storage.collection import RECORDS, Collection
from storage.marts.columns import Mart
from storage.store.lance import Store
from storage.store.objects import Objects

FOLDER = f"{RECORDS}/marts.d"
"""With a dot, which no collection has in its name: one may be called `marts`."""
READERS = 16
"""Files that are asked for at once: a bucket answers each late, and many together."""


def read_mart(collection: Collection, mart: Mart) -> pa.Table:
    """The rows of one collection; none where no run has left any."""
    return _table(collection.objects, _key(mart, collection.name), mart)


def readable_mart(collection: Collection, mart: Mart) -> pa.Table:
    """The same; none, too, of a file that is no mart: where the rows of many are read, one hides no other."""
    try:
        return read_mart(collection, mart)
    except NoMart:
        return mart.schema.empty_table()


def mart_bytes(collection: Collection, mart: Mart) -> bytes | None:
    """The file itself; None where there is none, which does not say that there are no rows."""
    return collection.objects.get(_key(mart, collection.name))


class NoMart(StorageError):
    """A file that is no mart."""


def parse_mart(data: bytes, mart: Mart) -> pa.Table:
    """The rows of a file, with the columns of today. Raises NoMart."""
    try:
        found = pq.read_table(pa.BufferReader(data))
        columns = [found[field.name] if field.name in found.column_names else pa.nulls(len(found), field.type) for field in mart.schema]
        return pa.table(columns, names=mart.schema.names).cast(mart.schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        said = f"expected a file of the mart {mart.name}, found one that is none: `revector export --to marts` makes it anew"
        raise NoMart(said) from error


def mart_stamps(store: Store, mart: Mart) -> dict[str, str]:
    """The collections that have left rows, each with what is another one once it has left others. One listing."""
    return {name.removesuffix(".parquet"): stamp for name, stamp in sorted(store.objects.stamps(f"{FOLDER}/{mart.name}").items())}


def read_marts(store: Store, mart: Mart) -> pa.Table:
    """The rows of all collections of a store that have left any, one after another.

    Of a collection whose file cannot be read there is none, as of one that has left none: that hides no other one.
    """
    known = (Collection(store, name) for name in mart_stamps(store, mart))
    with ThreadPoolExecutor(READERS) as pool:
        return pa.concat_tables([mart.schema.empty_table(), *pool.map(lambda collection: readable_mart(collection, mart), known)])


def put_mart(collection: Collection, mart: Mart, rows: pa.Table) -> None:
    """Replace the rows of one collection, whole or not at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    collection.objects.put(_key(mart, collection.name), bytes(sink.getvalue()))


def table_of(mart: Mart, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as dicts; what one does not name is null."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=mart.schema)


def _table(objects: Objects, key: str, mart: Mart) -> pa.Table:
    data = objects.get(key)
    return mart.schema.empty_table() if data is None else parse_mart(data, mart)


def _key(mart: Mart, name: str) -> str:
    return f"{FOLDER}/{mart.name}/{name}.parquet"
