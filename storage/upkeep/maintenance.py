"""Upkeep of one table: compaction, removal of old versions, removal of the whole, and the check that nothing else lies in its folder.

Only for the holder of the collection's fencing token. Compaction gives rows other addresses, and a run plans by addresses.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lance import LanceDataset
from lance.optimize import Compaction, CompactionTask

from pipelines.errors import NotFound, StorageError
from storage.store.lance import Store
from storage.store.s3 import store_failure
from storage.tables.checksums import own_latest, same_rows

SMALL_ROWS = 131_072
"""A fragment with fewer is worth joining with its neighbours: a billion rows are then at most 8,000 fragments, which open in 20 ms."""
SMALL_FRAGMENTS = 8
"""That must have piled up: to join each new one at once would write the last large one again and again."""
FULL_ROWS = 1 << 20
"""Of a joined fragment."""
WORN = 0.1
"""Share of deleted rows from which a fragment is written anew."""
ROUND_ROWS = 8 << 20
"""Compacted by one commit. A crash costs the round that it is in."""
BATCH_ROWS, BATCH_BYTES = 2048, 8 << 20
READ_BYTES = 64 << 20
"""Read ahead. A million rows of 384 dimensions, 10 % of them deleted: 3 s of processor time and .46 GB at most (.65 GB with Lance's
defaults), and 1.3 s more for the index."""
THREADS = 2

_BOOKKEEPING = ("_refs/", "_versions/latest_version_hint.json")
"""Files of Lance that belong to no version."""


@dataclass(frozen=True, slots=True)
class Freed:
    """What was taken away: versions of tables, and files and bytes of the store."""

    versions: int = 0
    files: int = 0
    bytes: int = 0

    def __add__(self, other: "Freed") -> "Freed":
        return Freed(self.versions + other.versions, self.files + other.files, self.bytes + other.bytes)


def compaction_is_due(dataset: LanceDataset, worn: float = WORN) -> bool:
    """Whether `compact` would do anything."""
    return bool(_tasks(dataset, worn))


def compact(dataset: LanceDataset, check: Callable[[], None], worn: float = WORN) -> LanceDataset:
    """Join small fragments that have piled up, and write fragments anew of which more than the share `worn` is deleted.

    The rows stay, at other addresses, and so do the parts of the index; memory is bounded by a batch. `check` is called before each
    commit, and raises if it must not be. Raises StorageError if a commit did not land, Conflict if one of another run landed with it.
    """
    while tasks := _tasks(dataset, worn):
        rewritten = [task.execute(dataset) for task in tasks]
        before = dataset.version  # now: a commit moves the handle along
        check()
        try:
            Compaction.commit(dataset, rewritten)
        except OSError as error:
            failure = store_failure(error) or error
            raise StorageError(f"expected to compact {dataset.uri}, found {failure}: run again") from error
        dataset = own_latest(dataset, before)
    return dataset


def _tasks(dataset: LanceDataset, worn: float) -> list[CompactionTask]:
    fragments = dataset.get_fragments()
    size = {fragment.fragment_id: fragment.physical_rows for fragment in fragments}
    small = {number for number, rows in size.items() if rows < SMALL_ROWS}
    with_deletions = [fragment for fragment in fragments if fragment.metadata.deletion_file]
    chosen = {fragment.fragment_id for fragment in with_deletions if fragment.num_deletions > worn * fragment.physical_rows}
    if len(small) >= SMALL_FRAGMENTS:
        chosen |= small
    if not chosen:
        return []
    options: dict[str, Any] = {
        "target_rows_per_fragment": FULL_ROWS,
        "materialize_deletions_threshold": worn,
        "excluded_fragment_ids": sorted(size.keys() - chosen),
        "max_source_rows": ROUND_ROWS,
        "batch_size": _batch_rows(fragments),
        "io_buffer_size": READ_BYTES,
        "num_threads": THREADS,
    }
    return list(Compaction.plan(dataset, options).tasks)


def _batch_rows(fragments: Collection[Any]) -> int:
    """Rows that make BATCH_BYTES, from 16 to BATCH_ROWS: fewer where rows are long, as a chunk may be a whole document."""
    files = [file for fragment in fragments for file in fragment.metadata.files]
    rows = sum(fragment.physical_rows for fragment in fragments)
    row_bytes = sum(file.file_size_bytes or 0 for file in files) // max(rows, 1) + 1
    return max(16, min(BATCH_ROWS, int(BATCH_BYTES // row_bytes)))


def unchanged(store: Store, table: str, version: int, other: int) -> bool:
    """Whether two versions of a table hold the same rows, in whichever order. False if one of them is gone."""
    if version == other:
        return True
    try:
        return same_rows(store.open(table, version), store.open(table, other))
    except NotFound:
        return False


def old_versions(dataset: LanceDataset, needed: Collection[int], young: timedelta) -> list[int]:
    """Versions that are neither the latest, nor needed, nor tagged, nor younger than `young`: a plan or a status may be reading those."""
    kept = {*needed, dataset.latest_version, *(tag["version"] for tag in dataset.tags.list().values())}
    until = datetime.now(UTC) - young
    others = [version for version in dataset.versions() if version["version"] not in kept]
    return [version["version"] for version in others if version["timestamp"].astimezone(UTC) <= until]


def remove_versions(dataset: LanceDataset, versions: list[int]) -> Freed:
    """Remove versions, and the files that nothing else refers to. Files that were staged and not committed stay for seven days."""
    if not versions:
        return Freed()
    return _freed(dataset.cleanup_old_versions(versions=versions, error_if_tagged_old_versions=False))


def remove_all_else(dataset: LanceDataset) -> Freed:
    """Keep the latest and the tagged versions, and no other file, staged ones included: only while no run can be writing any."""
    return _freed(dataset.cleanup_old_versions(timedelta(0), delete_unverified=True, error_if_tagged_old_versions=False))


def _freed(stats: Any) -> Freed:
    if stats.failed_deletes:
        raise StorageError(f"expected to remove old files, found {stats.failed_deletes} that could not be: run again")
    files = stats.data_files_removed + stats.index_files_removed + stats.deletion_files_removed + stats.transaction_files_removed
    return Freed(stats.old_versions, files + stats.old_versions, stats.bytes_removed)


def remove_table(store: Store, table: str) -> Freed:
    """Remove a table. After a crash on the way it is whole, as it was last, or it is not there; the next call removes the rest.

    So its versions go first, oldest first, and before them what would be mistaken for that of a table of this name that is made anew.
    """
    objects, folder = store.objects, f"{table}.lance"
    sizes = objects.walk(folder)
    first = [key for key in sizes if key.removeprefix(f"{folder}/").startswith(_BOOKKEEPING)]
    manifests = sorted((key for key in sizes if key.endswith(".manifest")), reverse=True)  # the names count down
    for key in (*first, *manifests):
        objects.delete(key)
    objects.remove(folder)
    return Freed(len(manifests), len(sizes), sum(sizes.values()))


def check_erased(store: Store, table: str, kept: set[int]) -> int:
    """The count of files that the versions of a table refer to: those that are `kept`.

    Raises StorageError if there is another version, or another file, or if one has deleted rows.
    """
    latest = store.open(table)
    for version in latest.versions():
        if version["version"] not in kept:
            raise StorageError(
                f"expected only versions of {table} that a run has finished, found {version['version']}, which another run has committed "
                "meanwhile: apply, then erase again"
            )
        fragments = store.open(table, version["version"]).get_fragments()
        worn = [fragment for fragment in fragments if fragment.metadata.deletion_file]
        if worn:
            raise StorageError(
                f"expected no deleted rows in {table} at version {version['version']}, found {len(worn)} fragments with some"
            )
    known = {row for batch in latest.tracked_files() for row in batch["path"].to_pylist()}
    there = {row for batch in latest.all_files() for row in batch["path"].to_pylist()}
    strays = {path for path in there - known if not path.startswith(_BOOKKEEPING)}
    if strays or known - there:
        example = min(strays or known - there)
        raise StorageError(
            f"expected only files of kept versions in {table}, found {len(strays)} others and {len(known - there)} missing, as {example}"
        )
    return len(known)
