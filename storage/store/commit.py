"""TODO."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lance
import numpy as np
from lance import LanceDataset, LanceOperation, Transaction
from lance.fragment import FragmentMetadata

from pipelines.errors import CommitUnknown, Conflict, StorageError
from storage.store.lance import Store
from storage.store.s3 import clear_errors, store_failure

TOKEN = "token"  # noqa: S105  no secret
"""The property of a commit that holds the fencing token of its run."""


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
    failure = store_failure(error) or error
    raise StorageError(f"expected a commit to {dataset.uri}, found {failure}: nothing was written, run again") from error


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
