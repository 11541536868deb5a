"""A collection in a store: its name, and where its tables and records lie.

<collection>.chunks.<chunking>.lance           the chunk tables
<collection>.vectors.<generation>.lance        the generations
<collection>.reports.<generation>-....lance    what reports say of their rows
_revector/<collection>/...                     all records
"""

from dataclasses import dataclass
from typing import Literal, get_args

from storage.store.lance import Store
from storage.store.objects import Objects

Kind = Literal["chunks", "vectors", "reports"]
RECORDS = "_revector"


@dataclass(frozen=True)
class Collection:
    """A name in a store, and all that belongs to it. As a text it is its name."""

    store: Store
    name: str

    def __str__(self) -> str:
        return self.name

    @classmethod
    def of(cls, store: Store, table: str) -> "Collection":
        """The collection that a chunk table or a generation belongs to."""
        return cls(store, table.partition(".")[0])

    @property
    def objects(self) -> Objects:
        return self.store.objects

    def key(self, name: str) -> str:
        """The key of a record of this collection among the store's objects."""
        return f"{RECORDS}/{self.name}/{name}"

    def table(self, kind: Kind, part: str) -> str:
        """The name of the table of that kind whose own part of the name is `part`."""
        return f"{self.name}.{kind}.{part}"

    def tables(self, kind: Kind) -> list[str]:
        """The names of the tables of that kind that the store has."""
        return self.store.tables(self.table(kind, ""))

    def remains(self) -> list[str]:
        """Folders of tables whose removal was interrupted. Some object stores go on listing one in which nothing is left."""
        folders = (name for kind in get_args(Kind) for name in self.store.folders(f"{self.name}.{kind}."))
        gone = (name for name in folders if not self.store.has(name))
        return [name for name in gone if not self.objects.remote or any(self.objects.walk(f"{name}.lance").values())]


def collections(store: Store) -> list[Collection]:
    """The collections of which the store has runs, published or not."""
    known = (Collection(store, name) for name in store.objects.names(RECORDS) if "." not in name)  # others are no folders of a collection
    return [collection for collection in known if store.objects.names(collection.key("runs"))]


def own_part(table: str) -> str:
    """What tells a table from the others of its collection and kind: what people type."""
    return table.rpartition(".")[2]


def is_generation(table: str) -> bool:
    return table.split(".")[1] == "vectors"


def is_chunk_table(table: str) -> bool:
    return table.split(".")[1] == "chunks"
