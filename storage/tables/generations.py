"""A generation: what separates it from its chunk table, and where a vector can be had without a forward pass."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from pipelines.content.chunks import HASH
from pipelines.errors import NotFound
from storage.collection import Collection, own_part
from storage.store.lance import ROW_ADDRESS, scan_batches

EMBEDDED_SCHEMA = pa.schema([("row_hash", HASH), ("content_hash", HASH), (ROW_ADDRESS, pa.uint64())])


@dataclass(frozen=True)
class Generation:
    """The vectors of one collection under one chunking and space: one table."""

    collection: Collection
    name: str
    """Of the table, `<collection>.vectors.<...>`."""

    @property
    def version(self) -> int | None:
        """The latest version; None before there is a table."""
        return int(self.collection.store.open(self.name).version) if self.collection.store.has(self.name) else None

    def count(self, version: int | None) -> int:
        """Rows at `version`; 0 if that is None."""
        return 0 if version is None else int(self.collection.store.open(self.name, version).count_rows())

    def embedded(self, version: int | None) -> Iterator[pa.Table]:
        """Rows of EMBEDDED_SCHEMA, some at a time. Nothing if `version` is None."""
        if version is not None:
            yield from scan_batches(self.collection.store.open(self.name, version), EMBEDDED_SCHEMA.names[:2])


def generations(collection: Collection) -> list[Generation]:
    """All generations of a collection that the store holds."""
    return [Generation(collection, name) for name in collection.tables("vectors")]


def named(collection: Collection, known: Iterable[str], name: str) -> str:
    """The one of `known` generations called `name`: in full, or by a beginning of its last part. Raises NotFound."""
    names = sorted(known)
    matching = [table for table in names if name == table] or [table for table in names if name and own_part(table).startswith(name)]
    if len(matching) != 1:
        raise NotFound(f"expected one generation of {collection} ({', '.join(names) or 'it has none'}), found {len(matching)} for {name!r}")
    return matching[0]
