"""What the records of a collection say of documents by name, and an erasure takes out of them: ids, and names of files.

The newest run that read the corpus names what it could not take: that is of the corpus as it is. Everything else is of what was there once.
"""

from collections.abc import Iterator
from typing import Any

import orjson

from pipelines.errors import StorageError
from storage.collection import Collection, own_part
from storage.history.ledger import newest_first
from storage.marts.forgetting import named_marts
from storage.marts.leaving import leave_marts
from storage.marts.mart_files import put_mart
from storage.tables.chunk_table import ChunkTable

_LISTS = ("dead", "rows")
"""Of letters, in the result of a run; of chunk ids, in what its gates found."""


def forget_names(collection: Collection) -> None:
    """Take the names out of all records that are of an earlier state. Counts, times and causes stay."""
    for key, record in _records(collection):
        if (bare := _bare(record)) != record:
            collection.objects.put(key, orjson.dumps(bare))
    for table in _chunk_tables(collection):
        table.forget_older_lists()
    leave_marts(collection)  # the dead letters of the newest run take the place of older ones
    for mart, rows in named_marts(collection):
        put_mart(collection, mart, rows)


def check_names(collection: Collection) -> None:
    """Raises StorageError if a record of an earlier state has a name in it."""
    named = [key for key, record in _records(collection) if _bare(record) != record]
    named += [f"a file list of {table.name}" for table in _chunk_tables(collection) if table.older_lists()]
    named += [f"the mart {mart.name}" for mart, _ in named_marts(collection)]
    if named:
        raise StorageError(
            f"expected no names of documents in earlier records of {collection}, found {len(named)} with some, as {named[0]}"
        )


def _records(collection: Collection) -> Iterator[tuple[str, dict[str, Any]]]:
    """Results of runs but the newest with letters, and evaluations, by key."""
    told = ((run, run.read("result.json")) for run in newest_first(collection))
    results = [(run.key("result.json"), record) for run, record in told if record]
    newest = next((key for key, record in results if "dead" in record), None)
    yield from ((key, record) for key, record in results if key != newest)
    place = collection.key("evaluations")
    for name in collection.objects.names(place):
        if record := collection.objects.get_json(f"{place}/{name}"):
            yield f"{place}/{name}", record


def _bare(value: Any, name: str = "") -> Any:
    """`value`, the member `name` of a record, without ids, names of files and messages, which may have some."""
    if isinstance(value, dict):
        return {key: _bare(member, key) for key, member in value.items()}
    if isinstance(value, list):
        return [] if name in _LISTS else [_bare(member) for member in value]
    return value.partition(":")[0] if name == "error" and isinstance(value, str) else value


def _chunk_tables(collection: Collection) -> list[ChunkTable]:
    return [ChunkTable(collection, own_part(table)) for table in collection.tables("chunks")]
