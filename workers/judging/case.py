"""A version before its gates, and what of it is new to them.

Of a version that follows one that passed, only what is new is looked at, so that an update costs what it changes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines.errors import NotFound
from pipelines.spec.declared import CollectionSpec
from storage.history.catalog import current, newest_chunks
from storage.reading.completeness import document_keys, fragments_since, missing_documents
from storage.tables.checksums import Checksum, checksum, remainder
from storage.tables.version import Version
from workers.embedding.encoding import Encoding

GROWN = 0.05
"""The share of new rows from which on an update is judged like a new generation where that takes a look at the whole table."""


@dataclass(frozen=True)
class Case:
    """A version, and all that its gates know of it."""

    version: Version
    spec: CollectionSpec
    """With the thresholds of the gates, as they are declared now."""
    encoding: Encoding
    """Of the version's model."""
    served: Version | None = None
    """What readers have."""
    since: int | None = None
    """The version of this generation that passed last; None: all is new."""
    failed: frozenset[str] = frozenset()
    """Chunk ids that could not be embedded: they are no missing rows."""
    excused: Checksum | None = None
    """Of the rows that the run which made the version could not embed, where it was counted: they may be more than `failed` names."""
    lost: tuple[int, int] | None = None
    """Documents that could not be read or embedded, and of how many; None where nobody counted."""
    counted: tuple[int, int] | None = None
    """Documents that readers have and the version has not, and of how many, where the run that made it knows without a look."""

    @cached_property
    def lacking(self) -> Checksum:
        """Of the rows of the chunk table that have no vector, if there are no others in the vectors table."""
        return remainder(checksum(self.version.chunks), checksum(self.version.vectors))

    @cached_property
    def passed(self) -> Any:
        """The vectors table at the version that passed last; None if there is none, or it was cleaned up."""
        try:
            return None if self.since is None else self.version.collection.store.open(self.version.generation, self.since)
        except NotFound:
            return None

    @cached_property
    def removed(self) -> tuple[int, int] | None:
        """As `counted`, else by the keys of both chunk tables; None if nothing tells what readers have, or had last."""
        mine = self.version
        if self.counted is not None:
            return self.counted
        if (found := newest_chunks(mine.collection)) is None:
            here = current(mine.collection)  # its tables are gone: only how many chunks they had is known
            return (max(0, here.chunks - mine.chunks.count_rows()), here.chunks) if here else None
        row, before = found
        if (row.chunk_table, row.chunk_version) == (mine.chunk_table, mine.chunk_version):
            return 0, 0
        return missing_documents(document_keys(before), document_keys(mine.chunks))

    @cached_property
    def new(self) -> list[Any]:
        """The fragments that no version had that passed."""
        return fragments_since(self.version.vectors, self.passed)

    @cached_property
    def old(self) -> list[Any]:
        """The other fragments, whose rows are those of a version that passed."""
        new = {fragment.fragment_id for fragment in self.new}
        return [fragment for fragment in self.version.vectors.get_fragments() if fragment.fragment_id not in new and fragment.count_rows()]

    @cached_property
    def new_rows(self) -> int:
        return sum(fragment.count_rows() for fragment in self.new)

    @property
    def scope(self) -> str:
        """What the gates of rows look at, in words."""
        return "vectors" if self.passed is None else f"vectors that are new since version {self.since}"

    @property
    def settled(self) -> str:
        """Why what takes a look at the whole table need not be measured again; nothing if it must."""
        rows = self.version.vectors.count_rows()
        if self.passed is None or self.new_rows > GROWN * rows:
            return ""
        return f"not measured again: {self.new_rows:,} of {rows:,} rows are new since version {self.since}, which passed"
