"""What of a collection stays, and what nothing needs any more: publications, tags, versions, chunk tables, records of runs.

A publication stays while it is current, among the newest, or young; its two versions are tagged. The catalog says first which ones are
given up, so that nobody points to them again, then their tags go, and only then what the tags protected.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import pairwise

from pipelines.errors import NotFound
from pipelines.spec.declared import RetentionSpec
from storage.collection import Collection
from storage.history.built import built_there
from storage.history.catalog import Publication, kept_publications, publications
from storage.history.decisions import kept_back
from storage.history.fence import run_of, tokens
from storage.history.ledger import BROKEN_OFF, Run, newest_run, runs
from storage.store.lance import Store, table_meta
from storage.tables.chunk_table import ChunkTable
from storage.tables.generations import generations

KEPT_RECEIPTS = 5
"""Runs whose shard receipts stay: they are for whoever looks into what went wrong."""
KEPT_RUNS = 1000
"""Of a collection: what `history` shows, and what it cost."""
KEPT_TOKENS = 100
TAG = "published-"


def given_up(history: Sequence[Publication], retention: RetentionSpec, now: datetime) -> set[int]:
    """Epochs whose tables need not stay. `history`: all publications of a collection, oldest first."""
    kept = [row for row in history if not row.removed]
    ends = {row.epoch: after.at for row, after in pairwise(history)}
    since = now - timedelta(days=retention.days)
    # of publications with the same rows, by maintenance or a rollback, one goes back to the newest
    newest = sorted({row.origin: row.epoch for row in kept}.values())
    stay = set(newest[-retention.publications :])
    stay |= {row.epoch for row in kept if row.epoch not in ends or datetime.fromisoformat(ends[row.epoch]) > since}
    # what was published again, by a rollback, has the same tables
    tables = {row.tables for row in kept if row.epoch in stay}
    return {row.epoch for row in kept if row.tables not in tables}


def needed_versions(collection: Collection) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """By table: versions of publications that were not given up and are there, and those of what runs have finished."""
    published, finished = defaultdict[str, set[int]](set), defaultdict[str, set[int]](set)
    for row in kept_publications(collection):
        published[row.generation].add(row.version)
        published[row.chunk_table].add(row.chunk_version)
    history = publications(collection)
    for generation in generations(collection):
        if built := built_there(collection, generation.name):
            for row in filter(None, (built.publication, kept_back(built, history))):
                finished[row.generation].add(row.version)
                finished[row.chunk_table].add(row.chunk_version)
    return published, finished


def tables_of(collection: Collection) -> list[str]:
    """The names of all tables of the collection: chunk tables, then generations, then what reports say of them."""
    return [*collection.tables("chunks"), *collection.tables("vectors"), *collection.tables("reports")]


def idle_tags(store: Store, table: str, needed: set[int], young: timedelta, now: datetime) -> list[str]:
    """Tags that no publication needs: of those given up, or left by a crash between a tag and its publication."""
    tags = store.open(table).tags.list()
    return [
        name for name, tag in tags.items() if name.startswith(TAG) and tag["version"] not in needed and tag["created_at"] <= now - young
    ]


def missing_tags(store: Store, table: str, needed: set[int]) -> list[int]:
    """Versions of publications that bear no tag: it was taken for one that nobody needs a moment before they were published."""
    held = {tag["version"] for tag in store.open(table).tags.list().values()}
    return sorted(needed - held)


def rewritable(history: Sequence[Publication], table: str, latest: int) -> bool:
    """Whether it is of use to write the latest version of a table anew.

    Not if it was published, and readers have another one by now: for them nothing would change, and the old one must stay. That also
    leaves what readers were rolled back from as it is, so that the next run knows it again.
    """
    pinned = [row for row in history if not row.removed and latest in _versions_in(row, table)]
    if not pinned:
        return True
    here = history[-1]
    undone = [row for row in pinned if here.origin < row.epoch < here.epoch and row.origin != here.origin]
    return latest in _versions_in(here, table) and not undone


def _versions_in(row: Publication, table: str) -> set[int]:
    return {version for name, version in ((row.generation, row.version), (row.chunk_table, row.chunk_version)) if name == table}


def unused_chunk_tables(collection: Collection) -> list[str]:
    """Chunk tables that neither a generation nor a kept publication refers to."""
    used = {table_meta(collection.store.open(generation.name))["chunk_table"] for generation in generations(collection)}
    used |= {row.chunk_table for row in publications(collection) if not row.removed}
    return [table for table in collection.tables("chunks") if table not in used]


def was_interrupted(collection: Collection) -> bool:
    """Whether the last run was upkeep that did not come to its end."""
    run = newest_run(collection)
    if run is None or "upkeep" not in (run.read("intent.json") or {}):
        return False
    ended = run.read("result.json")
    return ended is None or ended["status"] in BROKEN_OFF


def idle_lists(collection: Collection) -> list[ChunkTable]:
    """File lists of chunk tables that are no more."""
    names = collection.objects.names(collection.key("files"))
    tables = (ChunkTable(collection, name) for name in names)
    return [table for table in tables if not collection.store.has(table.name)]


def old_receipts(collection: Collection) -> Iterator[Run]:
    """Runs whose shard receipts may go: ended, and not among the newest."""
    ended = [run for run in runs(collection) if run.exists("result.json")]
    for run in ended[:-KEPT_RECEIPTS]:
        if collection.objects.names(run.key("shards")):
            yield run


def idle_tokens(collection: Collection) -> Iterator[int]:
    """Fencing tokens that nobody asks for any more, but for the newest: a run looks for the token after its own, so one stays until the
    run before it, and its own, have ended for good. Oldest first, and to be removed in that order."""
    on_record = tokens(collection)
    ended_before = True
    for token in on_record[:-KEPT_TOKENS]:
        run = run_of(collection, token)
        ended = run is None or run.exists("result.json")
        if ended and ended_before:
            yield token
        ended_before = ended


def old_runs(collection: Collection) -> Iterator[Run]:
    """Runs whose record may go: ended, not among the newest, with no token on record, and none whose version is still kept."""
    older = runs(collection)[:-KEPT_RUNS]
    if not older:
        return
    kept = {row.run_id for row in publications(collection) if not row.removed}
    kept |= {run.run_id for token in tokens(collection) if (run := run_of(collection, token))}
    for run in older:
        if run.run_id not in kept and run.exists("result.json"):
            yield run


def tag_again(store: Store, table: str, version: int) -> None:
    """Tag a published version. Raises NotFound if it is gone."""
    name = f"{TAG}{version}"
    tags = store.open(table, version).tags
    with suppress(ValueError):  # somebody else was faster
        tags.create(name, version)
    if name not in tags.list():
        raise NotFound(f"expected to tag version {version} of {table}, found that it cannot be: run again")
