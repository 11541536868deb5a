"""From a target to a plan: read what changed, take the differences, estimate. Touches nothing."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipelines.chunks import metadata_type
from pipelines.diff import FileRecord, FilesDiff, diff_files
from pipelines.documents import SourceFile, SourceShard
from pipelines.errors import PlanStale, SourceMissing
from pipelines.fingerprint import fingerprint
from storage.catalog import Publication, publications
from storage.ledger import runs
from storage.promotion import Built, find_built
from storage.tables import table_meta
from workers.cluster import run_inline
from workers.corpus import CorpusPass, CorpusSummary
from workers.ingest import Ingest, Ingested
from workers.labelled import load_labelled
from workers.live import Live, live_generations
from workers.report import Change, Plan, PlannedGeneration, Progress, Report, silent
from workers.target import Target, naming
from workers.work import CODE_POINTS_A_TOKEN, find_work

SHARD_BYTES = 16 << 20
"""Of files as they are stored: Parquet may hold ten times as much text."""
CALIBRATION_RUNS = 20


@dataclass(frozen=True)
class TableState:
    """A chunk table before a run, and the corpus as listed."""

    target: Target
    """A generation over it: how it is read and cut."""
    files: FilesDiff
    listed: list[SourceFile]
    known: dict[str, FileRecord]
    version: int | None
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

    @property
    def current(self) -> Publication | None:
        """What readers have."""
        return self.history[-1] if self.history else None

    @property
    def epoch(self) -> int:
        """Of the current publication; 0 before the first."""
        return self.history[-1].epoch if self.history else 0

    def table(self, target: Target) -> TableState:
        return self.tables[target.chunk_table.name]

    def announced(self, target: Target) -> Publication | None:
        """The newest publication but for rollbacks, if readers have the generation, and it is of exactly these tables and query prompt.

        Then readers have had, or have, all there is: a rollback since then stands until there is something new.
        """
        name = target.generation.name
        if self.current is None or self.current.generation != name:
            return None
        last = next(
            (row for row in reversed(self.history) if row.generation == name and row.action != "rollback" and not row.removed), None
        )
        return last if last and _same_state(last, self._tables(target)) and _same_queries(last, target) else None

    def finished(self, target: Target) -> bool:
        """Whether a run has brought it to its end as it is now, published or not."""
        built = self.built[target.generation.name]
        return built is not None and _same_state(built.publication, self._tables(target))

    def at_rest(self, target: Target) -> bool:
        """Whether nothing of the generation is open, if the corpus did not change."""
        return self.finished(target) and (target in self.live.candidates or self.announced(target) is not None)

    @property
    def new_candidates(self) -> list[Target]:
        """Those that no run has begun yet."""
        return [target for target in self.live.candidates if self.vectors[target.generation.name] is None]

    @property
    def settled(self) -> bool:
        """Nothing to read, nothing to embed, nothing to try again: known without opening a table."""
        quiet = all(table.files.empty and not any(record.dead for record in table.known.values()) for table in self.tables.values())
        return quiet and all(self.at_rest(target) and self.complete(target) for target in self.live.targets)

    def complete(self, target: Target) -> bool:
        """Whether every row of the chunk table has its vector."""
        built = self.built[target.generation.name]
        return self.finished(target) and built is not None and not built.publication.dead_letters

    def _tables(self, target: Target) -> tuple[int | None, int | None]:
        return self.vectors[target.generation.name], self.table(target).version


def _same_state(row: Publication, tables: tuple[int | None, int | None]) -> bool:
    return (row.version, row.chunk_version) == tables


def _same_queries(row: Publication, target: Target) -> bool:
    return row.model_spec().get("query_prompt") == target.model.spec.query_prompt


def look(target: Target) -> State:
    """List the corpus and ask for the versions, of the generation that a spec declares and all that live beside it.

    Raises SourceError, and SpecError for labelled queries that cannot be read: not after hours of embedding.
    """
    if target.spec.gates.queries:
        with naming(target.collection):
            load_labelled(target.spec.gates.queries)
    history = publications(target.store, target.collection)
    live = live_generations(target, history)
    tables: dict[str, TableState] = {}
    for each in live.targets:
        if each.chunk_table.name not in tables:
            tables[each.chunk_table.name] = _look_at_table(each, building=live.predecessor is not None)
    names = [each.generation.name for each in live.targets]
    vectors = {each.generation.name: each.generation.version for each in live.targets}
    return State(
        live, tables, vectors, {name: find_built(target.store, target.collection, name) for name in names}, history, target.generation.name
    )


def _look_at_table(target: Target, building: bool) -> TableState:
    """`building`: a generation takes the place of another. For that, what is stored will do, if the corpus is gone."""
    version = target.chunk_table.version
    known = target.chunk_table.read_files(version, target.reading)
    missing = False
    try:
        with naming(target.collection):
            listed = target.corpus.files()
    except SourceMissing:
        missing = building and bool(known) and not any(record.retry for record in known.values())
        if not missing:
            raise
        listed = sorted(record.file for record in known.values())
    return TableState(target, diff_files(listed, known), listed, known, version, missing)


def begin_pass(state: TableState, *, stage: bool) -> tuple[CorpusPass, list[SourceShard]]:
    """A pass over what must be read, and its shards in the order in which they go."""
    target = state.target
    source = target.spec.source
    table, version = target.chunk_table, state.version
    again = {file.path for file in state.files.read} & state.known.keys()
    fragments = table.fragments_by_file(version, again) if version is not None and again else {}
    # All that a changed file adds may be duplicates: only rows that are known tell that nothing is new.
    narrow = not stage or version is not None
    ingest = Ingest(target.corpus, target.chunker, table, version, fragments, _metadata(state), stage, narrow)
    shards = list(target.corpus.shards(state.files.read, SHARD_BYTES))
    return CorpusPass(ingest, state.files, state.known, source.duplicates == "error", source.duplicates == "last"), shards


def _metadata(state: TableState) -> pa.StructType | None:
    """The type in the table once there is one; a corpus cannot change it under its readers."""
    target = state.target
    if state.version is None:
        return target.corpus.metadata_type(state.listed)
    return metadata_type(target.store.open(target.chunk_table.name, state.version).schema)


def make_plan(target: Target, report: Report = silent) -> Plan:
    """What `apply` would do now."""
    state = look(target)
    passes = {name: _dry_pass(table, report) for name, table in state.tables.items()}
    planned = [_plan_generation(state, each, passes[each.chunk_table.name]) for each in state.live.targets]
    summaries = {name: corpus.summary() for name, corpus in passes.items()}
    at_rest = all(state.at_rest(each) for each in state.live.targets)
    pending = not at_rest or any(summary.changed for summary in summaries.values()) or any(each.pending for each in planned)
    subject = state.live.subject
    change = classify_change(state, pending)
    seconds = [each.seconds for each in planned]
    return Plan(
        target.collection,
        subject.generation.name,
        subject.model.space.id,
        change.kind,
        change.reason,
        *counts(summaries[subject.chunk_table.name]),
        {name: sum(each.embed[name] for each in planned) for name in ("contents", "chunks", "tokens")},
        {"chunks": sum(each.reuse["chunks"] for each in planned)},
        len(passes[subject.chunk_table.name].dead),
        None if None in seconds else sum(each for each in seconds if each is not None),
        pinned(state),
        pending,
        change.identity,
        planned,
        [*state.live.notes, *missing_notes(state)],
    )


def _dry_pass(table: TableState, report: Report) -> CorpusPass:
    corpus, shards = begin_pass(table, stage=False)
    for _ in corpus.inserts(shards, reported(run_inline(corpus.ingest, shards), report)):
        pass
    corpus.settle(table.version)
    corpus.end()
    return corpus


def _plan_generation(state: State, target: Target, corpus: CorpusPass) -> PlannedGeneration:
    table = state.table(target)
    embed, reuse = {"contents": 0, "chunks": 0, "tokens": 0}, {"chunks": 0}
    calibration = calibrate(target)
    pending = False
    if not (table.files.empty and state.complete(target)):
        fragments = target.chunk_table.fragments(table.version)
        version = state.vectors[target.generation.name]
        work = find_work(target.generation, version, target.model.space, corpus.desired(table.version), fragments)
        pending = not work.empty
        if _derived(state.live, target):
            reuse = {"chunks": work.rows}
        else:
            tokens = int(work.code_points / calibration.code_points_a_token) + 2 * work.embed.rows
            embed = {"contents": work.embed.rows, "chunks": work.embed.rows + work.copies.rows, "tokens": tokens}
            reuse = {"chunks": work.reuse.rows}
    rate = calibration.tokens_per_second
    seconds = embed["tokens"] / rate if rate else (0.0 if not embed["tokens"] else None)
    names = (target.generation.name, target.model.spec.name, target.model.space.id)
    return PlannedGeneration(*names, state.live.role(target), embed, reuse, seconds, pending)


def _derived(live: Live, target: Target) -> bool:
    """Whether a generation that is filled before this one gives it all its vectors."""
    before = itertools.takewhile(lambda each: each != target, live.targets)
    return any(target.model.space.derives_from(each.model.space.to_dict()) for each in before if each.chunk_table == target.chunk_table)


def missing_notes(state: State) -> list[str]:
    return [
        f"{table.target.spec.source.uri} is not there any more: built from the {len(table.known):,} files as they were read last"
        for table in state.tables.values()
        if table.missing
    ]


def reported(done: Iterable[Ingested], report: Report) -> Iterator[Ingested]:
    """Pass shards through and tell of the documents in them."""
    documents = 0
    for found in done:
        documents += len(found.seen)
        report(Progress("read", documents=documents))
        yield found


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
        "listing": {name: _listing(table.listed) for name, table in tables.items()},
        "chunk table version": {name: table.version for name, table in tables.items()},
        "vectors version": state.vectors,
        "generation": state.live.subject.generation.name,
        "reading": {name: table.target.reading for name, table in tables.items()},
    }


def _listing(files: list[SourceFile]) -> str:
    return fingerprint({"files": [[file.path, file.size, file.etag] for file in files]})


def counts(summary: CorpusSummary) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Documents, chunks and files, as the contract has them."""
    values = asdict(summary)

    def part(prefix: str) -> dict[str, int]:
        return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}

    return part("documents_"), part("chunks_"), part("files_")


@dataclass(frozen=True, slots=True)
class ChangeFound:
    """What kind of change it is."""

    kind: Change
    reason: str
    """For a person."""
    identity: dict[str, list[Any]]
    """What differs from what readers have: its name, then before and after."""


def classify_change(state: State, changed: bool) -> ChangeFound:
    """Hold the subject against what is published. `changed`: there is something to do."""
    published = state.current
    if not changed:
        return ChangeFound("none", "everything is current" if published else "the corpus is empty", {})
    if published is None:
        return ChangeFound("data", "nothing is published yet", {})
    if published.generation == state.live.subject.generation.name:
        return _change_in_place(state, published)
    return _change_of_generation(state.live.subject, published)


def _change_in_place(state: State, published: Publication) -> ChangeFound:
    target = state.live.subject
    if state.finished(target) and not _same_queries(published, target):
        prompts = [published.model_spec().get("query_prompt"), target.model.spec.query_prompt]
        return _change("metadata", "queries are encoded in another way", {"query_prompt": prompts})
    if (new := state.new_candidates) and state.table(target).files.empty and state.at_rest(target):
        return ChangeFound("model", f"candidates to build: {', '.join(each.model.spec.name for each in new)}", {})
    return ChangeFound("data", "the corpus or the backlog", {})


def _change_of_generation(target: Target, published: Publication) -> ChangeFound:
    meta, own = table_meta(target.store.open(published.generation)), target.generation_meta()
    if meta["space"]["id"] != target.model.space.id:
        names = _differences(meta["model"], own["model"], ("name", "revision"))
        return _change("model", "another space", _differences(meta["space"], own["space"], target.model.space.to_dict()) | names)
    if meta["chunker"] != target.chunker.identity:
        return _change("chunking", "another way to cut", _differences(meta["chunker"], own["chunker"], own["chunker"]))
    before = metadata_type(target.store.open(published.chunk_table).schema) or []
    fields = {"fields": [[field.name for field in before], list(target.spec.source.metadata)]}
    return _change("metadata", "other metadata fields", fields)


def _change(kind: Change, reason: str, identity: dict[str, list[Any]]) -> ChangeFound:
    return ChangeFound(kind, f"{reason}: {', '.join(identity)}", identity)


def _differences(before: dict[str, Any], after: dict[str, Any], names: Iterable[str]) -> dict[str, list[Any]]:
    return {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}


@dataclass(frozen=True, slots=True)
class Calibration:
    """What earlier runs of this space measured."""

    tokens_per_second: float | None
    """Of a whole run."""
    code_points_a_token: float


def calibrate(target: Target) -> Calibration:
    """From the largest of the newest runs of this space: small ones measure the start-up."""
    newest = itertools.islice(reversed(runs(target.store.objects, target.collection)), CALIBRATION_RUNS)
    records = [record for run in newest if (record := run.read("result.json")) and "generations" in record]
    filled = [each for record in records for each in record["generations"] if each["space"] == target.model.space.id]
    largest = max(filled, key=lambda each: int(each["embed"]["tokens"]), default=None)
    if largest is None or not largest["embed"]["tokens"]:
        return Calibration(None, CODE_POINTS_A_TOKEN)
    return Calibration(largest["tokens_per_second"], largest["code_points_a_token"])
