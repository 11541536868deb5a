"""Documents in the rows of a Lance table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lance
import pyarrow as pa

from pipelines.content.documents import DeadLetter, DocumentBatch, Piece, SourceFile, SourceShard
from pipelines.content.source import Listing
from pipelines.errors import SourceMissing
from pipelines.fingerprint import fingerprint
from pipelines.formats import rows
from pipelines.formats.casts import metadata_struct
from pipelines.formats.limits import Budget, Unreadable
from pipelines.spec.declared import LimitsSpec, SourceSpec
from storage.sources import listing
from storage.sources.layouts import check_tabular, layout_of
from storage.store.s3 import clear_errors, object_store_options


@dataclass(frozen=True, slots=True)
class LanceSource:
    """A `Source` of the rows of one version of a Lance table. Its files are the table's fragments."""

    spec: SourceSpec
    limits: LimitsSpec
    version: int

    @classmethod
    def latest(cls, spec: SourceSpec, limits: LimitsSpec) -> "LanceSource":
        """The table as it is now. Raises SourceMissing if there is none, SpecError if `spec` lacks an id or text."""
        check_tabular("lance", spec)
        return cls(spec, limits, _open_table(spec.uri).version)

    @property
    def place(self) -> str:
        """With the version: that of two sources may differ, if the table moved between their openings."""
        return f"{self.spec.uri}@{self.version}"

    def files(self) -> list[SourceFile]:
        """The fragments in the order of the table."""
        return sorted(_fragment_file(fragment.metadata.to_json()) for fragment in self._table().get_fragments())

    def listing(self) -> Listing:
        """The same: all of them are read."""
        return Listing(self.files())

    def metadata_type(self, files: Sequence[SourceFile]) -> pa.StructType | None:
        """Read off the table's schema; a column that it does not have counts as a string."""
        declared = self.spec.metadata
        schema = self._table().schema
        types = {name: schema.field(name).type for name in declared if name in schema.names}
        return metadata_struct(declared, types) if declared else None

    def shards(self, files: Sequence[SourceFile], target_bytes: int) -> Iterator[SourceShard]:
        """Whole fragments, so many that a shard has about `target_bytes`: fragments are not cut."""
        return listing.pack(((Piece(file), file.size) for file in files), target_bytes)

    def read(self, shard: SourceShard, metadata: pa.StructType | None) -> Iterator[DocumentBatch]:
        """Stream the documents of some fragments. Raises OSError if the store fails."""
        table, layout = self._table(), layout_of(self.spec, metadata, self.limits)
        with clear_errors():
            for piece in shard.pieces:
                try:
                    yield from self._read(table, piece.file, layout)
                except Unreadable as error:
                    yield rows.only_letters(piece.file, layout, [DeadLetter("file", piece.file.path, "", str(error))])

    def _read(self, table: Any, file: SourceFile, layout: rows.Layout) -> Iterator[DocumentBatch]:
        columns = layout.check(table.schema.names)
        fragment = table.get_fragment(int(file.path))
        step = rows.rows_in_batch(fragment.physical_rows, file.size)
        first = 1
        budget = Budget(self.limits, file.size)
        for batch in fragment.to_batches(columns=columns, batch_size=step):
            yield from rows.row_batches(file, batch, layout, first, budget)
            first += len(batch)

    def _table(self) -> Any:
        return _open_table(self.spec.uri, self.version)


def _open_table(uri: str, version: int | None = None) -> Any:
    try:
        with clear_errors():
            return lance.dataset(uri, version=version, storage_options=object_store_options(uri))
    except ValueError as error:
        raise SourceMissing(f"expected a Lance table at {uri}, found none: check source.uri") from error


def _fragment_file(fragment: Mapping[str, Any]) -> SourceFile:
    """A fragment is changed by new data files and by deletions; both have names of their own."""
    size = sum(file["file_size_bytes"] or 0 for file in fragment["files"])
    return SourceFile(f"{fragment['id']:010d}", size, fingerprint({key: fragment[key] for key in ("files", "deletion_file", "overlays")}))
