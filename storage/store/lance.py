"""Lance tables: creating, staging, and the one atomic commit that everything goes through.

The traps that shaped this file: an Append, and two Updates of different fragments, both pass when they race, and would double rows.
So every commit touches what every other commit touches, and is thereby a compare-and-swap on the version that it was planned against.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import lance
import numpy as np
import orjson
import pyarrow as pa
from lance import LanceDataset, LanceOperation, Transaction
from lance.fragment import write_fragments

from pipelines.errors import NotFound, StorageError
from storage.store.objects import Objects
from storage.store.s3 import clear_errors, object_store_options

ROW_ADDRESS = "_rowaddr"
SCAN_ROWS = 65_536
META_KEY = b"revector"


@dataclass(frozen=True)
class Store:
    """Where everything is kept: a folder or an S3 prefix."""

    root: str
    """Without a slash at its end."""
    cache_bytes: int | None = None
    """Of what was read of tables' files and indexes: as much stays in memory, for all that are opened, each of the two. None: as long as a
    table is open, and without a limit."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.root.rstrip("/") or "/")

    @cached_property
    def objects(self) -> Objects:
        return Objects(self.root)

    @cached_property
    def options(self) -> dict[str, str]:
        return object_store_options(self.root)

    @cached_property
    def _session(self) -> lance.Session | None:
        size = self.cache_bytes
        return None if size is None else lance.Session(index_cache_size_bytes=size, metadata_cache_size_bytes=size)

    def uri(self, table: str) -> str:
        return f"{self.root}/{table}.lance"

    def tables(self, prefix: str = "") -> list[str]:
        """The names of all tables that begin with `prefix`."""
        return [name for name in self.folders(prefix) if self.has(name)]

    def folders(self, prefix: str = "") -> list[str]:
        """As `tables`, and folders of tables that were removed but for a rest."""
        names = (name.removesuffix(".lance") for name in self.objects.names("") if name.endswith(".lance"))
        return [name for name in names if name.startswith(prefix)]

    def has(self, table: str) -> bool:
        """Whether there is a version of it. One that is being written has a name of its own until it is whole."""
        return any(name.endswith(".manifest") for name in self.objects.names(f"{table}.lance/_versions"))

    def open(self, table: str, version: int | None = None) -> LanceDataset:
        """The table at `version`, or its latest. Raises NotFound."""
        try:
            with clear_errors():
                return lance.dataset(self.uri(table), version=version, storage_options=self.options, session=self._session)
        except (ValueError, FileNotFoundError) as error:
            at = "" if version is None else f" at version {version}"
            raise NotFound(f"expected a table {table}{at} in {self.root}, found none") from error

    @clear_errors()
    def create(self, table: str, schema: pa.Schema, meta: dict[str, Any]) -> LanceDataset:
        """The table, made empty with `meta` in its schema if it is not there yet. Of two makers one wins, both get it."""
        if not self.has(table):
            # Version 0 is "not there": of racing makers one lands. `write_dataset` lets a second one overwrite what the first has in it.
            first = Transaction(0, LanceOperation.Overwrite(schema.with_metadata({META_KEY: orjson.dumps(meta)}), []))
            try:
                LanceDataset.commit(self.uri(table), first, storage_options=self.options, max_retries=0)
            except OSError:
                if not self.has(table):
                    raise
        return self.open(table)

    @clear_errors()
    def stage(self, table: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> list[str]:
        """Write rows to the table's folder without committing them. Gives the fragments as JSON, for `commit`."""
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        fragments = write_fragments(reader, self.uri(table), schema=schema, mode="append", storage_options=self.options)
        return [orjson.dumps(fragment.to_json()).decode() for fragment in fragments if fragment.physical_rows]


def table_meta(dataset: LanceDataset) -> dict[str, Any]:
    """What `Store.create` was given."""
    metadata = dataset.schema.metadata or {}
    return dict(orjson.loads(metadata[META_KEY]))


def data_file(fragment: Any) -> str:
    """The name of the file that a fragment's rows are in: rows of it are deleted, never added."""
    return str(fragment.metadata.files[0].path)


@clear_errors()
def scan_table(dataset: LanceDataset, columns: Sequence[str]) -> pa.Table:
    """`columns` and the row addresses (`_rowaddr`, uint64) of all live rows, in memory: for narrow columns only."""
    return _scanner(dataset, columns, None).to_table().combine_chunks()


def scan_batches(dataset: LanceDataset, columns: Sequence[str], *, fragments: Sequence[Any] | None = None) -> Iterator[pa.Table]:
    """`columns` and the row addresses of all live rows, or of those in `fragments`, in the order of the table, some at a time."""
    with clear_errors():
        for batch in _scanner(dataset, columns, fragments).to_batches():
            yield pa.Table.from_batches([batch])


def _scanner(dataset: LanceDataset, columns: Sequence[str], fragments: Sequence[Any] | None) -> Any:
    return dataset.scanner(columns=list(columns), fragments=fragments, with_row_address=True, batch_size=SCAN_ROWS, scan_in_order=True)


@clear_errors()
def take(dataset: LanceDataset, addresses: np.ndarray, columns: Sequence[str]) -> pa.Table:
    """The rows at `addresses` (uint64, any order, repeats allowed), in that order. Raises StorageError if one was deleted."""
    unique, back = np.unique(addresses, return_inverse=True)
    rows = dataset._take_rows(unique.tolist(), columns=list(columns))
    if len(rows) != len(unique):
        raise StorageError(f"expected {len(unique)} rows of {dataset.uri} at version {dataset.version}, found {len(rows)}: plan again")
    return rows if np.array_equal(unique, addresses) else rows.take(pa.array(back))
