"""The single steps of upkeep, each of which finds by itself what there is to do: after a crash they go on where they were."""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pipelines.spec.declared import RetentionSpec
from storage.collection import Collection, is_chunk_table, is_generation, own_part
from storage.history.built import find_built, forget_built, keep_built
from storage.history.catalog import Publication, current, give_up, identified, is_there, publications, publish, published, retire
from storage.history.fence import forget
from storage.reports.kept_reports import carry_reports, forget_reports
from storage.reports.report_table import generation_of
from storage.tables.chunk_table import ChunkTable
from storage.tables.generations import generations
from storage.tables.index import index_is_due, renew_index
from storage.upkeep.maintenance import (
    WORN,
    Freed,
    check_erased,
    compact,
    compaction_is_due,
    old_versions,
    remove_all_else,
    remove_table,
    remove_versions,
    unchanged,
)
from storage.upkeep.old_reports import all_reports, idle_atlases, idle_report_tables, idle_reports, remove_idle, report_versions
from storage.upkeep.records import check_names, forget_names
from storage.upkeep.retention import (
    given_up,
    idle_lists,
    idle_tags,
    idle_tokens,
    missing_tags,
    needed_versions,
    old_receipts,
    old_runs,
    rewritable,
    tables_of,
    tag_again,
    unused_chunk_tables,
    was_interrupted,
)
from storage.who import now, whoami
from workers.runs.session import Session


@dataclass(frozen=True, slots=True)
class TableUpkeep:
    """A table that was written anew: its version, fragments and parts of the index, before and after."""

    table: str
    versions: tuple[int, int]
    fragments: tuple[int, int]
    index_parts: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What `maintain`, its `--erase`, or `drop` did."""

    collection: str
    status: Literal["maintained", "erased", "dropped", "nothing"]
    run_id: str | None = None
    """None: there was nothing to do, and no run was begun."""
    tables: list[TableUpkeep] = field(default_factory=list)
    published: int | None = None
    """The epoch under which readers got what was written anew."""
    given_up: list[int] = field(default_factory=list)
    """Epochs that can no longer be rolled back to."""
    removed: list[str] = field(default_factory=list)
    """Tables that are no more."""
    freed: Freed = field(default_factory=Freed)
    checked: int | None = None
    """Files that an erasure found in the store, all of them of what is kept."""
    seconds: dict[str, float] = field(default_factory=lambda: {"total": 0.0})


class Steps:
    """The steps of upkeep, in an order in which a crash after any of them loses nothing."""

    def __init__(
        self, collection: Collection, retention: RetentionSpec, young: timedelta, chunk_table: str | None, worn: float = WORN
    ) -> None:
        """`young`: how long what nothing refers to stays. `chunk_table`: stays whatever refers to it; None: all do."""
        self._collection = collection
        self._store = collection.store
        self._retention = retention
        self._young = young
        self._chunk_table = chunk_table
        self._worn = worn
        self._at = datetime.now(UTC)
        self._tables: list[TableUpkeep] = []
        self._published: int | None = None
        self._given_up: list[int] = []
        self._removed: list[str] = []
        self._freed = Freed()
        self._checked: int | None = None

    def due(self) -> bool:
        """Whether there is anything to do. Touches nothing."""
        collection = self._collection
        needed, finished = needed_versions(collection)
        tables, reports = tables_of(collection), all_reports(collection)
        reported = report_versions(reports)
        return bool(
            given_up(self._history(), self._retention, self._at)
            or was_interrupted(collection)
            or self._unused()
            or collection.remains()
            or idle_lists(collection)
            or next(idle_reports(collection, _together(needed, finished)), None)
            or idle_report_tables(collection, reported, self._young)
            or idle_atlases(collection, reports)
            or next(old_receipts(collection), None)
            or next(idle_tokens(collection), None)
            or next(old_runs(collection), None)
            or any(self._to_tend(table) or self._to_clean(table, needed[table], finished[table] | reported[table]) for table in tables)
        )

    def begin(self, session: Session) -> None:
        self._session = session

    def tend(self) -> None:
        """Write tables anew that have many small or worn fragments, and bring the indexes up to date. The rows stay the same."""
        self._session.account.tell("compact")
        for table in filter(self._to_tend, tables_of(self._collection)):
            dataset = self._store.open(table)
            before = _shape(dataset)  # now: a commit moves the handle along
            self._session.fence.check()
            if is_generation(table):
                dataset = renew_index(dataset)
            dataset = compact(dataset, self._session.fence.check, self._worn)
            if is_chunk_table(table):
                ChunkTable(self._collection, own_part(table)).carry_files(before[0], int(dataset.version))
            self._tables.append(TableUpkeep(table, *zip(before, _shape(dataset), strict=True)))

    def move(self) -> None:
        """Let what was finished, and what readers have, be the same rows in their new versions."""
        for generation in generations(self._collection):
            if built := find_built(self._collection, generation.name):
                moved = self._moved(built.publication)
                if moved != built.publication:
                    self._session.fence.check()
                    self._carry(built.publication, moved)
                    keep_built(self._store, replace(built, publication=moved))
        here = current(self._collection)
        if here is not None and (moved := self._moved(here)) != here:
            self._session.account.tell("publish")
            self._session.fence.check()
            self._carry(here, moved)
            new = replace(
                moved,
                epoch=here.epoch + 1,
                action="maintenance",
                restores=here.origin,
                run_id=self._session.run.run_id,
                at=now(),
                who=whoami(),
                why="maintenance",
            )
            self._published = publish(self._store, new).epoch

    def give_up(self) -> None:
        """Record which publications need not stay: those that are beyond the retention by now."""
        self._give_up(given_up(self._history(), self._retention, datetime.now(UTC)))

    def clean(self, all_else: bool = False) -> None:
        """Give up publications, and remove what only they needed. `all_else`: and every file that no version refers to."""
        self._session.account.tell("clean up")
        store = self._store
        self.give_up()
        needed, finished = needed_versions(self._collection)
        reported = report_versions(remove_idle(self._collection, _together(needed, finished)))
        for table in tables_of(self._collection):
            for version in missing_tags(store, table, needed[table]):
                tag_again(store, table, version)
            tags = store.open(table).tags
            for name in idle_tags(store, table, needed[table], self._young, self._at):
                tags.delete(name)
            self._session.fence.check()
            dataset = store.open(table)
            kept = needed[table] | finished[table] | reported[table]
            self._freed += remove_versions(dataset, old_versions(dataset, kept, self._young))
            if all_else:
                self._freed += remove_all_else(dataset)
        self.remove_tables()
        if all_else:
            self._session.fence.check()
            forget_names(self._collection)
        for run in old_receipts(self._collection):
            store.objects.remove(run.key("shards"))
        for token in idle_tokens(self._collection):
            forget(self._collection, token)
        for run in old_runs(self._collection):
            run.forget()

    def drop(self, generation: str) -> None:
        """Remove a generation. Its publications are given up first, so that none is pointed to while it goes."""
        self._session.fence.check()
        forget_built(self._collection, generation)
        going = {row.epoch for row in self._history() if row.generation == generation and not row.removed}
        retire(self._collection, generation)
        self._given_up = sorted({*self._given_up, *going})
        self._remove(generation)
        self.forget_reports(generation)

    def forget_reports(self, generation: str) -> None:
        """Remove all that reports said of a generation. Records first: none may stand on a table that is gone."""
        self._session.fence.check()
        forget_reports(self._collection, generation)
        for table in self._collection.tables("reports"):
            if generation_of(self._collection, table) == generation:
                self._remove(table)

    def remove_tables(self) -> None:
        """Remove chunk tables that nothing needs, and what is left of tables that were removed."""
        reported = report_versions(all_reports(self._collection))
        for table in [*self._unused(), *idle_report_tables(self._collection, reported, self._young)]:
            self._remove(table)
        for table in self._collection.remains():
            self._freed += remove_table(self._store, table)
        for chunks in idle_lists(self._collection):
            chunks.forget_files()

    def check(self) -> None:
        """Raises StorageError unless the tables' folders hold what is kept, and nothing else, and the records no names of what is not."""
        self._session.account.tell("check")
        needed, finished = needed_versions(self._collection)
        check_names(self._collection)
        self._checked = sum(check_erased(self._store, table, needed[table] | finished[table]) for table in tables_of(self._collection))
        here = published(self._collection)
        self._store.open(here.generation, here.version)

    def end(self, status: Literal["maintained", "erased", "dropped"]) -> Upkeep:
        """Gives what was done, and keeps it as the record of the run."""
        session = self._session
        seconds = {"total": time.monotonic() - session.account.began}
        done = Upkeep(
            collection=self._collection.name,
            status=status,
            run_id=session.run.run_id,
            tables=self._tables,
            published=self._published,
            given_up=self._given_up,
            removed=self._removed,
            freed=self._freed,
            checked=self._checked,
            seconds=seconds,
        )
        session.run.write("result.json", {**asdict(done), "at": now()})
        return done

    def _history(self) -> list[Publication]:
        return publications(self._collection)

    def _to_tend(self, table: str) -> bool:
        dataset = self._store.open(table)
        if not rewritable(self._history(), table, int(dataset.version)):
            return False
        return compaction_is_due(dataset, self._worn) or (is_generation(table) and index_is_due(dataset))

    def _to_clean(self, table: str, needed: set[int], finished: set[int]) -> bool:
        store = self._store
        return bool(
            missing_tags(store, table, needed)
            or idle_tags(store, table, needed, self._young, self._at)
            or old_versions(store.open(table), needed | finished, self._young)
        )

    def _moved(self, row: Publication) -> Publication:
        if not is_there(self._store, row):
            return row
        version, chunk_version = self._now(row.generation, row.version), self._now(row.chunk_table, row.chunk_version)
        if (version, chunk_version) == (row.version, row.chunk_version):
            return row
        return identified(self._store, replace(row, version=version, chunk_version=chunk_version))

    def _carry(self, row: Publication, moved: Publication) -> None:
        """What reports say of the rows holds of them in their new version."""
        if moved.version != row.version:
            carry_reports(self._collection, row.generation, row.version, moved.version)

    def _now(self, table: str, version: int) -> int:
        """The latest version of a table if it holds the same rows as `version`, else that."""
        if not self._store.has(table):
            return version
        latest = int(self._store.open(table).version)
        return latest if unchanged(self._store, table, version, latest) else version

    def _unused(self) -> list[str]:
        if self._chunk_table is None:
            return []
        return [table for table in unused_chunk_tables(self._collection) if table != self._chunk_table]

    def _give_up(self, epochs: set[int]) -> None:
        if epochs:
            self._session.fence.check()
            give_up(self._collection, epochs)
            self._given_up = sorted({*self._given_up, *epochs})

    def _remove(self, table: str) -> None:
        self._session.fence.check()
        self._freed += remove_table(self._store, table)
        self._removed.append(table)
        if is_chunk_table(table):
            ChunkTable(self._collection, own_part(table)).forget_files()


def _together(*versions: Mapping[str, set[int]]) -> Mapping[str, set[int]]:
    """Versions by table, in any of several such."""
    merged = defaultdict[str, set[int]](set)
    for one in versions:
        for table, numbers in one.items():
            merged[table] |= numbers
    return merged


def _shape(dataset: Any) -> tuple[int, int, int]:
    """Version, fragments, parts of the index."""
    parts = sum(len(index.segments) for index in dataset.describe_indices())
    return int(dataset.version), len(dataset.get_fragments()), parts
