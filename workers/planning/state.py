"""What is there before a run: the corpus as listed, the tables as they are, what earlier runs finished, and what readers have."""

from dataclasses import dataclass, replace
from typing import Any

from pipelines.content.diff import FileRecord, FilesDiff, diff_files
from pipelines.content.documents import SourceFile
from pipelines.content.source import Listing
from pipelines.errors import NotFound, PlanStale, SourceMissing
from pipelines.fingerprint import fingerprint
from pipelines.spec.reports import ReportKind, ReportOptions
from storage.collection import own_part
from storage.history.built import Built, built_there
from storage.history.catalog import Publication, is_there, publications
from storage.history.decisions import Pin, find_pin
from storage.sources.labelled import load_labelled, option_files
from storage.tables.chunk_table import ChunkTable, FileList
from workers.observing.telling import Plan
from workers.planning.live import Live, live_generations
from workers.planning.target import Target, naming

TRIES = 3
"""Runs that try to embed what fails, while nothing changes: what made it fail may pass, but no run is begun for it for ever."""


@dataclass(frozen=True)
class TableState:
    """A chunk table before a run, and the corpus as listed."""

    target: Target
    """A generation over it: how it is read and cut."""
    files: FilesDiff
    listed: Listing
    known: dict[str, FileRecord]
    version: int | None
    place: str | None
    """Where the files were when they were read last; None if nothing says that."""
    earlier: dict[str, FileRecord]
    """What is known of files by the chunk table that readers have, where this one is new."""
    missing: bool
    """There is no corpus any more: what is stored stands for it."""


@dataclass(frozen=True)
class State:
    """What is there before a run."""

    live: Live
    tables: dict[str, TableState]
    """By name: those of all live generations."""
    vectors: dict[str, int | None]
    """The latest version of each live generation, by name."""
    built: dict[str, Built | None]
    """What earlier runs finished of them."""
    history: list[Publication]
    """Of the collection, oldest first."""
    declared: str
    """The generation that the spec declares, whatever a person chose since."""
    there: bool
    """Whether what readers have is in the store: tables may have been restored from an older copy."""
    pin: Pin | None
    """What a rollback keeps readers on, whatever is built."""

    @property
    def current(self) -> Publication | None:
        """What readers have; None before the first publication."""
        return self.history[-1] if self.history else None

    @property
    def epoch(self) -> int:
        """Of the current publication; 0 before the first."""
        return self.history[-1].epoch if self.history else 0

    def table(self, target: Target) -> TableState:
        return self.tables[target.chunk_table.name]

    def announced(self, target: Target) -> Publication | None:
        """What readers have, if it is the generation, and of exactly these tables and query prompt."""
        here = self.current
        if here is None or not self.there or here.generation != target.generation.name:
            return None
        return here if _same_state(here, self._tables(target)) and same_queries(here, target) else None

    def finished(self, target: Target) -> bool:
        """Whether a run has brought it to its end as it is now, published or not."""
        built = self.built[target.generation.name]
        return built is not None and _is_finished(built, *self._tables(target)) and same_queries(built.publication, target)

    def at_rest(self, target: Target) -> bool:
        """Whether nothing of the generation is open, if the corpus did not change."""
        if target in self.live.candidates:
            built = self.built[target.generation.name]
            return self.finished(target) and built is not None and _judged_by(built, thresholds(target))
        return self.finished(target) and (self._served(target) or self._withheld(target))

    def _served(self, target: Target) -> bool:
        """Whether readers have it, and it passed its gates, or a person gave it to them although it did not."""
        here, built = self.announced(target), self.built[target.generation.name]
        return here is not None and built is not None and (built.passed or here.action == "promote")

    def _withheld(self, target: Target) -> bool:
        """Whether a rollback alone keeps readers from what was finished."""
        built = self.built[target.generation.name]
        return self.pin is not None and built is not None and built.passed

    @property
    def settled(self) -> bool:
        """Nothing to read, nothing to embed, nothing to try again: known without opening a table."""
        return all(table.files.empty for table in self.tables.values()) and all(
            self.at_rest(target) and (self.complete(target) or self._in_vain(target)) for target in self.live.targets
        )

    def complete(self, target: Target) -> bool:
        """Whether every row of the chunk table has its vector. A run that has begun for any reason tries again what failed."""
        built = self.built[target.generation.name]
        return self.finished(target) and built is not None and not built.failed

    def _in_vain(self, target: Target) -> bool:
        """Whether what failed was tried so often that no run is begun for it alone."""
        built = self.built[target.generation.name]
        return built is not None and built.tries >= TRIES

    def _tables(self, target: Target) -> tuple[int | None, int | None]:
        return self.vectors[target.generation.name], self.table(target).version


def _judged_by(built: Built, now: dict[str, Any]) -> bool:
    """Whether the thresholds of `now` cannot change what came of it. A removal that was confirmed once needs no look afterwards."""
    then, now = _set(built.thresholds), _set(now)
    return then == now or (built.passed and {**then, "max_removed": None} == {**now, "max_removed": None})


def _set(thresholds: dict[str, Any]) -> dict[str, Any]:
    """Without those that are not set: a key that was not known when a version was judged was not set."""
    return {key: value for key, value in thresholds.items() if value is not None}


def thresholds(target: Target) -> dict[str, Any]:
    """What its versions are held against, as JSON literals; where limits are set to what reports measure, what they look at, too."""
    options = {kind: found.model_dump(mode="json") for kind, found in _looked_at(target).items()}
    return target.spec.gates.model_dump(mode="json") | ({"reports": options} if options else {})


def _looked_at(target: Target) -> dict[ReportKind, ReportOptions]:
    """What gates look at that measure what reports do, where the spec sets their limits."""
    gates, reports = target.spec.gates, target.spec.reports
    limits: dict[ReportKind, bool] = {
        "bias": gates.max_bias is not None,
        "balance": gates.max_imbalance is not None,
        "tasks": gates.min_accuracy is not None or gates.min_spearman is not None,
    }
    return {kind: reports.options(kind) for kind, judged in limits.items() if judged}


def _same_state(row: Publication, tables: tuple[int | None, int | None]) -> bool:
    return (row.version, row.chunk_version) == tables


def same_queries(row: Publication, target: Target) -> bool:
    """Whether queries are encoded as `row` says."""
    return row.model_spec().get("query_prompt") == target.model.spec.query_prompt


def read_state(target: Target, before: State | None = None) -> State:
    """List the corpus and ask for the versions, of the generation that a spec declares and all that live beside it.

    `before`: read a moment ago. Its listing serves again if all chunk tables are as they were then, so that a run lists the corpus once.
    Where another run came between, the corpus is listed anew: that run may have seen a newer one.

    Raises SourceError, and SpecError for files of gates that cannot be read: not after hours of embedding.
    """
    if target.spec.gates.queries:
        with naming(target.collection.name):
            load_labelled(target.spec.gates.queries)
    for kind, options in _looked_at(target).items():
        with naming(target.collection.name):
            option_files(kind, options)
    history = publications(target.collection)
    here = history[-1] if history else None
    there = here is not None and is_there(target.store, here)
    stands = here is not None and (there or all(target.store.has(table) for table, _ in here.versions))
    live = live_generations(target, history if stands else [])
    vectors = {one.generation.name: one.generation.version for one in live.targets}
    built = {name: built_there(target.collection, name) for name in vectors}
    versions = {one.chunk_table.name: one.chunk_table.version for one in live.targets}
    latest = [(one.generation.name, versions[one.chunk_table.name]) for one in live.targets]
    building = any(not _is_finished(built[name], vectors[name], chunks) for name, chunks in latest)
    known = {one.chunk_table.name: one.chunk_table.read_files(versions[one.chunk_table.name], one.reading) for one in live.targets}
    listings = _still_listed(before, versions, known)
    tables: dict[str, TableState] = {}
    for one in reversed(live.targets):
        name = one.chunk_table.name
        held = bool(history and history[-1].chunks) or any(record.documents or record.retry for record in known[name].records.values())
        read = _read_table(one, versions[name], known[name], building, listings, held)
        tables[name] = read if read.known or here is None else replace(read, earlier=_earlier(one, here))
    pin = find_pin(target.collection, history)
    return State(live, tables, vectors, built, history, target.generation.name, there, pin)


def _is_finished(built: Built | None, version: int | None, chunk_version: int | None) -> bool:
    return built is not None and _same_state(built.publication, (version, chunk_version))


Listings = dict[str, Listing]
"""What was listed, by the place of the source."""


def _still_listed(before: State | None, versions: dict[str, int | None], known: dict[str, FileList]) -> Listings:
    """The listings of `before`, if no chunk table has moved since then."""
    earlier = before.tables if before else {}
    if earlier.keys() != known.keys() or any(
        (earlier[name].version, earlier[name].known) != (versions[name], known[name].records) for name in known
    ):
        return {}
    return {table.target.corpus.place: table.listed for table in earlier.values() if not table.missing}


def _read_table(target: Target, version: int | None, files: FileList, building: bool, listings: Listings, held: bool) -> TableState:
    """`building`: a generation is not finished. For that, what is stored will do, if the corpus is gone. `listings`: so far, added to.
    `held`: the collection has documents."""
    place, known, nowhere = target.corpus.place, files.records, ""
    listed = Listing([])
    try:
        with naming(target.collection.name):
            listings[place] = listed = listings[place] if place in listings else target.corpus.listing()
    except SourceMissing:
        if not held:
            raise
        nowhere = "for there is no such place, "
    missing = bool(nowhere) or (held and not listed.files and target.spec.gates.max_removed < 1)
    if missing and not (building and known and not any(record.retry for record in known.values())):
        raise SourceMissing(
            f"expected documents at {place}, found none, {nowhere}where {target.collection} has some: is it mounted, and does the pattern "
            "still match? If they are all meant to go: a place that is there and empty, and `--allow-removal` (or gates.max_removed = 1)"
        )
    if missing:
        listed = Listing(sorted(record.file for record in known.values()))
    return TableState(target, diff_files(listed.files, known), listed, known, version, files.place, {}, missing)


def _earlier(target: Target, here: Publication) -> dict[str, FileRecord]:
    """The file list of the chunk table that readers have."""
    try:
        return ChunkTable(target.collection, own_part(here.chunk_table)).read_files(here.chunk_version, target.reading).records
    except NotFound:  # it is gone, and nothing says which commits came after the list
        return {}


def check_saved(saved: Plan, state: State) -> None:
    """Raises PlanStale if the corpus, the store or the spec is not as it was when `saved` was made."""
    now = pinned(state)
    differing = [name for name in now if saved.pinned.get(name) != now[name]]
    if differing:
        raise PlanStale(f"expected the state that the plan was made for, found another {', '.join(differing)}: plan again")


def pinned(state: State) -> dict[str, Any]:
    """What a plan holds for, in JSON literals."""
    tables = state.tables
    return {
        "listing": {name: _listing(table.listed.files) for name, table in tables.items()},
        "chunk table version": {name: table.version for name, table in tables.items()},
        "vectors version": state.vectors,
        "generation": state.live.subject.generation.name,
        "published epoch": state.epoch,
        "query prompt": [target.model.spec.query_prompt for target in state.live.targets],
        "reading": {name: table.target.reading for name, table in tables.items()},
    }


def _listing(files: list[SourceFile]) -> str:
    return fingerprint({"files": [[file.path, file.size, file.etag] for file in files]})
