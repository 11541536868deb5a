"""What is published: one small Lance table, swapped whole by a strict overwrite, which is a compare-and-swap.

Each row is one publication. A collection's current one is that with the highest epoch; the others are its history.
"""

import random
import time
from collections.abc import Callable, Set
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import orjson
import pyarrow as pa
from lance import LanceDataset, LanceOperation, Transaction
from lance.commit import CommitConflictError
from lance.fragment import write_fragments

from pipelines.errors import CommitUnknown, Conflict, NotFound
from pipelines.spec.parsing import check_text
from storage.collection import Collection
from storage.store.lance import Store
from storage.store.s3 import store_failure
from storage.tables.checksums import commit_of
from storage.who import now

CATALOG = "_revector/catalog"
PATIENCE_SECONDS = 120.0
"""For races with publications of other collections, each of which is a moment."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds at most before another attempt, by chance: those who lost a race would meet again."""

_ARROW = {str: pa.string(), int: pa.int64()}
Action = Literal["publish", "update", "promote", "rollback", "resume", "maintenance"]
"""`publish`: the generation that the spec declares. `update`: the generation that readers have already, brought up to date, whatever the
spec declares by now. `promote` and `rollback`: what a person chose; `resume`: that a rollback holds no longer. `maintenance`: the same
rows, written anew."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What readers get from one epoch on: a row of the catalog."""

    collection: str
    epoch: int
    """Counts the publications of a collection, from 1."""
    action: str
    """One of `Action`."""
    generation: str
    version: int
    """Of the vectors table."""
    chunk_table: str
    chunk_version: int
    space: str
    """The space's id."""
    model: str
    """JSON: what a reader needs to encode a query in this space."""
    chunks: int
    """Rows of the vectors table."""
    dead_letters: int
    restores: int
    """The epoch whose rows a rollback, or maintenance, has again; 0 for others, also for a promotion: it is a new state."""
    run_id: str
    at: str
    who: str
    why: str
    against: str = ""
    """The generation that the spec declared when a person chose this one (`promote`, `rollback`)."""
    removed: str = ""
    """When its tables were taken away by maintenance, ISO 8601; empty while they are there."""
    commit: str = ""
    """The commit that made the version of the vectors table, as `commit_of` names it; empty in records from before it was kept."""
    chunk_commit: str = ""
    """The same of the chunk table."""

    @property
    def origin(self) -> int:
        """The epoch that first had these rows."""
        return self.restores or self.epoch

    @property
    def by_upkeep(self) -> bool:
        """Whether nothing was decided: readers have the same rows as before. Upkeep once called itself an update."""
        return self.action == "maintenance" or (self.action == "update" and self.restores > 0)

    @property
    def tables(self) -> tuple[str, int, str, int]:
        """What it points to: both tables, each with its version."""
        return self.generation, self.version, self.chunk_table, self.chunk_version

    @property
    def versions(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """The vectors table and the chunk table, each with its version."""
        return (self.generation, self.version), (self.chunk_table, self.chunk_version)

    def model_spec(self) -> dict[str, Any]:
        return dict(orjson.loads(self.model))


def identified(store: Store, row: Publication) -> Publication:
    """`row` with the commits that its versions are at this moment. Raises NotFound if one of them is not there."""
    commits = [commit_of(store.open(table, version)) for table, version in row.versions]
    return replace(row, commit=commits[0], chunk_commit=commits[1])


def is_there(store: Store, row: Publication) -> bool:
    """Whether both versions that a record means are in the store. Tables that were restored may lack them, or have others of the number."""
    return _found(store, row) is not None


def _found(store: Store, row: Publication) -> Publication | None:
    """`row`, identified; None if it is not there."""
    try:
        found = identified(store, row)
    except NotFound:
        return None
    return found if row.commit in ("", found.commit) and row.chunk_commit in ("", found.chunk_commit) else None


SCHEMA = pa.schema([(field.name, _ARROW[field.type]) for field in fields(Publication)])  # type: ignore[index]


def all_publications(store: Store) -> list[Publication]:
    """The publications of all collections of a store, by collection, oldest first."""
    catalog = _open(store)
    rows = _rows(catalog) if catalog else []
    return sorted(rows, key=lambda row: (row.collection, row.epoch))


def publications(collection: Collection) -> list[Publication]:
    """The publications of one collection, oldest first, those that were given up included."""
    return [row for row in all_publications(collection.store) if row.collection == collection.name]


def kept_publications(collection: Collection) -> list[Publication]:
    """The publications of one collection whose versions are in the store, oldest first."""
    return [row for row in publications(collection) if not row.removed and is_there(collection.store, row)]


def current(collection: Collection) -> Publication | None:
    """What readers of `collection` get; None before the first publication."""
    history = publications(collection)
    return history[-1] if history else None


def published(collection: Collection) -> Publication:
    """As `current`. Raises NotFound before the first publication."""
    publication = current(collection)
    if publication is None:
        known = ", ".join(sorted({row.collection for row in all_publications(collection.store)}))
        others = f"only {known}: check the name, or" if known else "none:"
        raise NotFound(f"expected a published collection {collection.name!r}, found {others} run `revector apply {collection}`")
    return publication


def newest_chunks(collection: Collection) -> tuple[Publication, LanceDataset] | None:
    """The newest publication whose chunk table is in the store at its version, and that, open; None if there is none.

    It tells what readers have, or had last, also where the vectors are gone.
    """
    for row in reversed(publications(collection)):
        try:
            chunks = collection.store.open(row.chunk_table, row.chunk_version)
        except NotFound:
            continue
        if row.chunk_commit in ("", commit_of(chunks)):
            return row, chunks
    return None


def published_there(collection: Collection) -> Publication:
    """As `published`. Raises NotFound also if its versions are not in the store."""
    publication = published(collection)
    _there(collection.store, publication)
    return publication


def publish(store: Store, new: Publication, again: Publication | None = None, check: Callable[[], None] = lambda: None) -> Publication:
    """Swap the pointer. `new.epoch` must follow the current epoch of its collection, else Conflict.

    Tags both tables first, so that a reader who resolves the pointer always finds what it points to. `again`: the publication whose
    tables these are; NotFound if maintenance has taken them away. `check` is called before each attempt, and raises if there must be none.
    """
    check_text("a reason", new.why)
    if again is not None:
        _check_kept(again)
    new = _there(store, new)
    _tag(store, new)

    def follow(rows: list[Publication]) -> list[Publication]:
        if new in rows:  # an earlier attempt whose reply was lost
            return rows
        mine = {row.epoch: row for row in rows if row.collection == new.collection}
        last = max(mine, default=0)
        if last != new.epoch - 1:
            raise Conflict(f"expected {new.collection} at epoch {new.epoch - 1}, found {last}: another run has published, run again")
        # Now nobody can take the tables away any more without a swap of his own.
        check()
        if again is not None:
            _check_kept(mine[again.epoch])
        return [*rows, new]

    _change(store, follow)
    return new


def give_up(collection: Collection, epochs: Set[int]) -> None:
    """Record that the tables of some publications are about to go. From here on nobody points to them again."""
    at = now()

    def mark(rows: list[Publication]) -> list[Publication]:
        kept = {row for row in rows if row.collection == collection.name and not row.removed}
        going = {row for row in kept if row.epoch in epochs}
        if {row.tables for row in going} & {row.tables for row in kept - going}:
            raise Conflict(f"expected the publications of {collection} as they were, found that one was published again: run again")
        return [replace(row, removed=at) if row in going else row for row in rows]

    _change(collection.store, mark)


def retire(collection: Collection, generation: str) -> None:
    """Record that a whole generation is about to go. Raises Conflict if readers have it.

    Swaps the catalog in any case: who is about to publish the generation finds that out, and looks again.
    """
    at = now()

    def mark(rows: list[Publication]) -> list[Publication]:
        mine = [row for row in rows if row.collection == collection.name]
        if mine and max(mine, key=lambda row: row.epoch).generation == generation:
            raise Conflict(f"expected a generation that readers do not have, found {generation}, which was published meanwhile")
        going = {row for row in mine if row.generation == generation and not row.removed}
        return [replace(row, removed=at) if row in going else row for row in rows]

    _change(collection.store, mark, always=True)


def _check_kept(row: Publication) -> None:
    if row.removed:
        raise NotFound(
            f"expected the tables of epoch {row.epoch} of {row.collection} (version {row.version} of {row.generation}), "
            f"found that they were removed on {row.removed[:10]} (retention in the spec, `maintain --erase` or `drop`)"
        )


def _there(store: Store, row: Publication) -> Publication:
    """`row`, identified. Raises NotFound if it is not there."""
    found = _found(store, row)
    if found is None:
        raise NotFound(
            f"expected version {row.version} of {row.generation} and version {row.chunk_version} of {row.chunk_table}, found them gone or "
            f"others in their place: were tables restored from an older copy? `revector apply {row.collection}` builds them anew, "
            f"`revector rollback {row.collection}` goes back to what is there"
        )
    return found


def _change(store: Store, change: Callable[[list[Publication]], list[Publication]], always: bool = False) -> None:
    """Swap the catalog for `change` of its rows, which changes nothing when it is done again; then it is swapped if `always`."""
    deadline, pause = time.monotonic() + PATIENCE_SECONDS, FIRST_PAUSE
    while True:
        catalog = _open(store) or _create(store)
        rows = _rows(catalog)
        changed = change(rows)
        if changed == rows and not always:
            return
        try:
            _swap(store, catalog, changed)
        except CommitConflictError:
            if time.monotonic() > deadline:
                raise Conflict(
                    f"expected to swap the catalog of {store.root} within {PATIENCE_SECONDS:.0f} s, found it busy with other publications: "
                    "nothing was published, run again"
                ) from None
            time.sleep(random.uniform(0, pause))  # noqa: S311  nothing secret
            pause = min(2 * pause, LONGEST_PAUSE)
            continue
        except OSError as error:
            if not set(changed) <= set(all_publications(store)):
                failure = store_failure(error) or error
                raise CommitUnknown(f"expected an answer from the catalog of {store.root}, found {failure}: run again") from error
        return


def _rows(catalog: LanceDataset) -> list[Publication]:
    """What this version knows of each row: a newer one may have made the catalog."""
    known = [name for name in catalog.schema.names if name in SCHEMA.names]
    return [Publication(**row) for row in catalog.to_table(columns=known).to_pylist()]


def _open(store: Store) -> LanceDataset | None:
    return store.open(CATALOG) if store.has(CATALOG) else None


def _create(store: Store) -> LanceDataset:
    return store.create(CATALOG, SCHEMA, {})


def _swap(store: Store, catalog: LanceDataset, rows: list[Publication]) -> None:
    """With all columns of today: a catalog that was made before has fewer."""
    schema = SCHEMA.with_metadata(catalog.schema.metadata)
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)
    fragments = write_fragments(table, store.uri(CATALOG), schema=schema, mode="overwrite", storage_options=store.options)
    overwrite = Transaction(catalog.version, LanceOperation.Overwrite(schema, fragments))
    LanceDataset.commit(store.uri(CATALOG), overwrite, storage_options=store.options, max_retries=0)


def _tag(store: Store, new: Publication) -> None:
    """Keep both versions from clean-up. A tag bears its version in its name, so two publishers cannot disagree about it."""
    for table, version in new.versions:
        tags = store.open(table).tags
        name = f"published-{version}"
        if name in tags.list():
            continue
        try:
            tags.create(name, version)
        except ValueError:
            if name not in tags.list():  # else another publisher was faster
                raise
