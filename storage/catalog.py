"""What is published: one small Lance table, swapped whole by a strict overwrite, which is a compare-and-swap.

Each row is one publication. A collection's current one is that with the highest epoch; the others are its history.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import orjson
import pyarrow as pa
from lance import LanceDataset, LanceOperation, Transaction
from lance.commit import CommitConflictError
from lance.fragment import write_fragments

from pipelines.errors import CommitUnknown, Conflict, NotFound
from storage.ledger import now, whoami
from storage.tables import Store

CATALOG = "_revector/catalog"
ATTEMPTS = 20
"""Races are only with publications of other collections, each of which is a moment."""

_ARROW = {str: pa.string(), int: pa.int64()}
Action = Literal["publish", "promote", "rollback"]


@dataclass(frozen=True, slots=True)
class Publication:
    """One row of the catalog."""

    collection: str
    epoch: int
    """Counts the publications of a collection, from 1."""
    action: str
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
    """The epoch whose tables a rollback points to again; 0 for others, also for a promotion: it is a new state."""
    run_id: str
    at: str
    who: str
    why: str

    def model_spec(self) -> dict[str, Any]:
        return dict(orjson.loads(self.model))


SCHEMA = pa.schema([(field.name, _ARROW[field.type]) for field in fields(Publication)])  # type: ignore[index]


def publications(store: Store, collection: str | None = None) -> list[Publication]:
    """All publications, oldest first."""
    catalog = _open(store)
    rows = [Publication(**row) for row in catalog.to_table().to_pylist()] if catalog else []
    return sorted((row for row in rows if collection in (None, row.collection)), key=lambda row: (row.collection, row.epoch))


def current(store: Store, collection: str) -> Publication | None:
    """What readers of `collection` get; None before the first publication."""
    history = publications(store, collection)
    return history[-1] if history else None


def published(store: Store, collection: str) -> Publication:
    """`current`, or NotFound."""
    found = current(store, collection)
    if found is None:
        known = ", ".join(sorted({row.collection for row in publications(store)}))
        raise NotFound(f"expected a published collection {collection!r}, found {known or 'none'}: run `revector apply {collection}`")
    return found


def publish(store: Store, new: Publication) -> Publication:
    """Swap the pointer. `new.epoch` must follow the current epoch of its collection, else Conflict.

    Tags both tables first, so that a reader who resolves the pointer always finds what it points to.
    """
    _tag(store, new)
    for _ in range(ATTEMPTS):
        catalog = _open(store) or _create(store)
        rows = [Publication(**row) for row in catalog.to_table().to_pylist()]
        last = max((row.epoch for row in rows if row.collection == new.collection), default=0)
        if new in rows:  # an earlier attempt whose reply was lost
            return new
        if last != new.epoch - 1:
            raise Conflict(f"expected {new.collection} at epoch {new.epoch - 1}, found {last}: another run has published, run again")
        try:
            _swap(store, catalog, [*rows, new])
        except CommitConflictError:
            continue
        except OSError as error:
            if new not in publications(store, new.collection):
                raise CommitUnknown(f"expected an answer from the catalog of {store.root}, found {error}: run again") from error
        return new
    raise CommitUnknown(f"expected to swap the catalog of {store.root} within {ATTEMPTS} attempts, found it busy: run again")


def repoint(store: Store, here: Publication, target: Publication, action: Action, why: str) -> Publication:
    """Publish the tables of an earlier publication again, under the epoch that follows `here`. Raises Conflict if `here` is not current."""
    restores = (target.restores or target.epoch) if action == "rollback" else 0
    values = asdict(target) | {"epoch": here.epoch + 1, "action": action, "restores": restores, "at": now(), "who": whoami(), "why": why}
    return publish(store, Publication(**values))


def rollback(store: Store, collection: str, why: str = "") -> Publication:
    """Point back to what readers had before the current state was published or promoted. Nothing is rewritten.

    Again and again it goes further back; what was rolled back before the current state was published is not met again.
    Raises NotFound if there is nothing before.
    """
    here = published(store, collection)
    origin = here.restores or here.epoch
    before = [row for row in publications(store, collection) if row.epoch < origin]
    if not before:
        raise NotFound(f"expected a publication of {collection} before epoch {origin}, found none")
    return repoint(store, here, before[-1], "rollback", why)


def promote(store: Store, collection: str, generation: str, why: str = "") -> Publication:
    """Point to the version of `generation` that readers had last. Raises NotFound if it was never published."""
    here = published(store, collection)
    versions = [row for row in publications(store, collection) if row.generation == generation]
    if not versions:
        known = sorted({row.generation for row in publications(store, collection)})
        raise NotFound(f"expected a published generation of {collection} ({', '.join(known) or 'none'}), found {generation!r}")
    return repoint(store, here, versions[-1], "promote", why)


def _open(store: Store) -> LanceDataset | None:
    return store.open(CATALOG) if store.has(CATALOG) else None


def _create(store: Store) -> LanceDataset:
    return store.create(CATALOG, SCHEMA, {})


def _swap(store: Store, catalog: LanceDataset, rows: list[Publication]) -> None:
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=catalog.schema)
    fragments = write_fragments(table, store.uri(CATALOG), schema=catalog.schema, mode="append", storage_options=store.options)
    overwrite = Transaction(catalog.version, LanceOperation.Overwrite(catalog.schema, fragments))
    LanceDataset.commit(store.uri(CATALOG), overwrite, storage_options=store.options, max_retries=0)


def _tag(store: Store, new: Publication) -> None:
    """Keep both versions from clean-up. A tag bears its version in its name, so two publishers cannot disagree about it."""
    for table, version in ((new.generation, new.version), (new.chunk_table, new.chunk_version)):
        tags = store.open(table).tags
        name = f"published-{version}"
        if name in tags.list():
            continue
        try:
            tags.create(name, version)
        except ValueError:
            if name not in tags.list():  # else another publisher was faster
                raise
