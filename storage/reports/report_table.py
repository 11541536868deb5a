"""Tables of reports: what is said of the rows of a generation, keyed by chunk id.

    <collection>.reports.<generation>-<part>.lance

A table follows the generation from version to version, as that follows the chunk table. Which version of it belongs to which version of
the generation says the record of a report, and nothing else: the latest may be half of what a report was about to write.
"""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.content.chunks import HASH
from storage.collection import Collection, own_part
from storage.store.commit import Change, commit

BESIDE = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("content_hash", HASH, nullable=False),
        pa.field("row_hash", HASH, nullable=False),
        pa.field("landmark", pa.int32(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
        pa.field("second", pa.int32(), nullable=False),
        pa.field("second_similarity", pa.float32(), nullable=False),
        pa.field("x", pa.float32(), nullable=False),
        pa.field("y", pa.float32(), nullable=False),
        pa.field("cluster", pa.int32(), nullable=False),
    ]
)
"""Of each row of a generation the landmarks beside it: the nearest, which of a landmark's own content is itself, and the next; their
cosines; its place in the plane; its cluster. Numbers are those of an Atlas; -1 where there is no such landmark."""


@dataclass(frozen=True)
class ReportTable:
    """One table of a generation's reports."""

    collection: Collection
    generation: str
    part: str
    """What it holds, and by which atlas: `a1`, `pairs-a1`."""

    @property
    def name(self) -> str:
        return self.collection.table("reports", f"{own_part(self.generation)}-{self.part}")

    def latest(self, schema: pa.Schema) -> Any:
        """A LanceDataset, made empty if there was none."""
        return self.collection.store.create(self.name, schema, {"generation": self.generation})

    def open(self, version: int) -> Any:
        """A LanceDataset at `version`. Raises NotFound."""
        return self.collection.store.open(self.name, version)

    def commit(self, version: int, change: Change, run_id: str) -> int:
        """On top of exactly `version`; gives the one that it made. Raises Conflict if another report has changed the table."""
        if change.empty:
            return version
        return int(commit(self.collection.store, self.open(version), change, {"run_id": run_id}).version)


def generation_of(collection: Collection, table: str) -> str:
    """The generation that a table of reports follows."""
    return collection.table("vectors", own_part(table).partition("-")[0])
