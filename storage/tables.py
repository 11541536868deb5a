"""Lance tables: creating, staging, and the one atomic commit that everything goes through.

The traps that shaped this file: an Append, and two Updates of different fragments, both pass when they race, and would double rows.
So every commit touches what every other commit touches, and is thereby a compare-and-swap on the version that it was planned against.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import lance
import numpy as np
import orjson
import pyarrow as pa
from lance import LanceDataset, LanceOperation, Transaction
from lance.fragment import FragmentMetadata, write_fragments

from pipelines.errors import CommitUnknown, Conflict, NotFound, StorageError
from storage.objects import Objects
from storage.s3 import clear_errors, object_store_options, store_failure

ROW_ADDRESS = "_rowaddr"
SCAN_ROWS = 65_536
META_KEY = b"revector"
TOKEN = "token"  # noqa: S105  no secret
"""The property of a commit that holds the fencing token of its run."""


@dataclass(frozen=True)
class Store:
    """Where everything is kept: a folder or an S3 prefix."""

    root: str

    @cached_property
    def objects(self) -> Objects:
        return Objects(self.root)

    @cached_property
    def options(self) -> dict[str, str]:
        return object_store_options(self.root)

    def uri(self, table: str) -> str:
        return f"{self.root}/{table}.lance"

    def tables(self, prefix: str = "") -> list[str]:
        """The names of all tables that begin with `prefix`."""
        return [name for name in self.folders(prefix) if self.has(name)]

    def folders(self, prefix: str = "") -> list[str]:
        """The same, and folders of tables that were removed but for a rest."""
        names = (name.removesuffix(".lance") for name in self.objects.names("") if name.endswith(".lance"))
        return [name for name in names if name.startswith(prefix)]

    def has(self, table: str) -> bool:
        """Whether there is a version of it. One that is being written has a name of its own until it is whole."""
        return any(name.endswith(".manifest") for name in self.objects.names(f"{table}.lance/_versions"))

    def open(self, table: str, version: int | None = None) -> LanceDataset:
        """The table at `version`, or its latest. Raises NotFound."""
        try:
            with clear_errors():
                return lance.dataset(self.uri(table), version=version, storage_options=self.options)
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


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit does: rows to take out, by address, and staged fragments to put in."""

    deleted: np.ndarray
    """Row addresses, uint64."""
    fragments: Sequence[str]

    @property
    def empty(self) -> bool:
        return not len(self.deleted) and not self.fragments


def commit(store: Store, dataset: LanceDataset, change: Change, properties: dict[str, str]) -> LanceDataset:
    """Apply `change` to exactly `dataset`'s version, atomically, with `properties` on the transaction.

    Raises Conflict if another commit came first, CommitUnknown if the outcome cannot be told, StorageError if it did not land.
    """
    commit_id = uuid.uuid4().hex
    fragments = [FragmentMetadata.from_json(fragment) for fragment in change.fragments]
    _check_staged(store, dataset, fragments)
    operation = _replace(dataset, change.deleted, fragments) if len(change.deleted) else _insert(dataset, fragments)
    transaction = Transaction(dataset.version, operation, transaction_properties={**properties, "commit_id": commit_id})
    try:
        return LanceDataset.commit(dataset.uri, transaction, storage_options=store.options)
    except OSError as error:  # a conflict, too: it may be one with ourselves, whose reply was lost
        return _landed(store, dataset, commit_id, error)


def _insert(dataset: LanceDataset, fragments: list[FragmentMetadata]) -> LanceOperation.Merge:
    return LanceOperation.Merge([f.metadata for f in dataset.get_fragments()] + fragments, dataset.lance_schema)


def _replace(dataset: LanceDataset, deleted: np.ndarray, fragments: list[FragmentMetadata]) -> LanceOperation.Update:
    updated, removed = [], []
    for fragment_id, offsets in _by_fragment(deleted):
        fragment = dataset.get_fragment(fragment_id)
        if fragment is None:
            raise StorageError(f"expected fragment {fragment_id} in {dataset.uri}, found none: was it compacted meanwhile? plan again")
        rest = fragment.delete_rows(offsets)
        if rest is None:
            removed.append(fragment_id)
        else:
            updated.append(rest)
    first = dataset.get_fragments()[0]
    if first.fragment_id not in {*removed, *(f.id for f in updated)}:
        # Two Updates conflict only over a fragment that both touch: all of them touch the first.
        updated.append(first.metadata)
    return LanceOperation.Update(
        removed_fragment_ids=removed,
        updated_fragments=updated,
        new_fragments=fragments,
        update_mode="rewrite_rows",
        # All fields: otherwise an index forgets the fragments that lost a row.
        fields_for_preserving_frag_bitmap=_field_ids(dataset.lance_schema.fields()),
    )


def _by_fragment(addresses: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Addresses hold the fragment in the upper and the offset in the lower 32 bits."""
    ordered = np.sort(addresses)
    fragments, starts = np.unique(ordered >> np.uint64(32), return_index=True)
    for fragment, part in zip(fragments, np.split(ordered, starts[1:]), strict=True):
        yield int(fragment), (part & np.uint64(0xFFFFFFFF)).tolist()


def _field_ids(fields: Iterable[Any]) -> list[int]:
    return [id for field in fields for id in [field.id(), *_field_ids(field.children())]]


def _check_staged(store: Store, dataset: LanceDataset, fragments: list[FragmentMetadata]) -> None:
    """Lance commits fragments whose files are gone, and the table is then unreadable."""
    table = dataset.uri.rstrip("/").rpartition("/")[2]
    for fragment in fragments:
        for file in fragment.files:
            size = store.objects.size(f"{table}/data/{file.path}")
            if size != file.file_size_bytes:
                raise StorageError(f"expected the staged file {file.path} with {file.file_size_bytes} bytes, found {size}: run again")


def _landed(store: Store, dataset: LanceDataset, commit_id: str, error: OSError) -> LanceDataset:
    """After a failure: first look whether the commit is in the history, then decide."""
    try:
        with clear_errors():
            latest = lance.dataset(dataset.uri, storage_options=store.options)
            for version in range(dataset.version + 1, latest.version + 1):
                if _properties(latest, version).get("commit_id") == commit_id:
                    return latest.checkout_version(version)
    except OSError as second:
        raise CommitUnknown(f"expected an answer from {dataset.uri}, found {second}: run again") from error
    if latest.version > dataset.version:
        raise Conflict(f"expected {dataset.uri} at version {dataset.version}, found {latest.version}: plan again") from error
    found = store_failure(error) or error
    raise StorageError(f"expected a commit to {dataset.uri}, found {found}: nothing was written, run again") from error


def commit_tokens(dataset: LanceDataset, after: int) -> set[str]:
    """The fencing tokens of the commits from version `after` to that of `dataset`; "?" for those that clean-up has removed since."""
    there = {version["version"] for version in dataset.versions()}
    made = range(after + 1, dataset.version + 1)
    tokens = {_properties(dataset, version).get(TOKEN) if version in there else "?" for version in made}
    return {token for token in tokens if token is not None}


def _properties(dataset: LanceDataset, version: int) -> dict[str, str]:
    """What `commit` put on the transaction that made `version`; empty if that was none of ours."""
    try:
        transaction = dataset.read_transaction(version)
    except TypeError:  # pylance 14 cannot read a compaction that moved an index along; no commit of ours is one
        return {}
    return dict(transaction.transaction_properties) if transaction is not None else {}
