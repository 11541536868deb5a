"""From a target to a plan: read what changed, take the differences, estimate. Touches nothing."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import pyarrow as pa

from pipelines.chunks import metadata_type
from pipelines.diff import FileRecord, FilesDiff, diff_files
from pipelines.documents import SourceFile, SourceShard
from pipelines.errors import PlanStale
from pipelines.fingerprint import fingerprint
from storage.catalog import Publication, current, publications
from storage.ledger import runs
from storage.tables import table_meta
from workers.cluster import run_inline
from workers.corpus import CorpusPass, CorpusSummary
from workers.ingest import Ingest, Ingested
from workers.report import Change, Plan, Progress, Report, silent
from workers.target import Target, naming
from workers.work import CODE_POINTS_A_TOKEN, Work, find_work

SHARD_BYTES = 16 << 20
"""Of files as they are stored: Parquet may hold ten times as much text."""
CALIBRATION_RUNS = 20


@dataclass(frozen=True)
class State:
    """What is there before a run: the corpus as listed, the tables as they are."""

    files: FilesDiff
    listed: list[SourceFile]
    known: dict[str, FileRecord]
    chunk_version: int | None
    vector_version: int | None
    published: Publication | None
    """The newest publication by a run, if it is of exactly these tables and this model: then readers have had, or have, all there is.

    A rollback or a promotion by a person since then stands until there is something new.
    """
    epoch: int
    """Of the collection's current publication; 0 before the first."""

    @property
    def settled(self) -> bool:
        """Nothing to read, nothing to embed, nothing to try again: known without opening a table."""
        clean = self.published is not None and not self.published.dead_letters and not any(record.dead for record in self.known.values())
        return clean and self.files.empty


def look(target: Target) -> State:
    """List the corpus and ask for the versions. Raises SourceError."""
    table, generation = target.chunk_table, target.generation
    chunk_version, vector_version = table.version, generation.version
    known = table.read_files(chunk_version, target.reading)
    with naming(target.collection):
        listed = target.corpus.files()
    history = publications(target.store, target.collection)
    tables = (generation.name, vector_version, chunk_version)
    last = next((row for row in reversed(history) if row.action == "publish"), None)
    model = target.model.spec.model_dump_json()
    same = last is not None and (last.generation, last.version, last.chunk_version, last.model) == (*tables, model)
    epoch = history[-1].epoch if history else 0
    return State(diff_files(listed, known), listed, known, chunk_version, vector_version, last if same else None, epoch)


def begin_pass(target: Target, state: State, *, stage: bool) -> tuple[CorpusPass, list[SourceShard]]:
    """A pass over what must be read, and its shards in the order in which they go."""
    source = target.spec.source
    table, version = target.chunk_table, state.chunk_version
    again = {file.path for file in state.files.read} & state.known.keys()
    fragments = table.fragments_by_file(version, again) if version is not None and again else {}
    # All that a changed file adds may be duplicates: only rows that are known tell that nothing is new.
    narrow = not stage or version is not None
    ingest = Ingest(target.corpus, target.chunker, table, version, fragments, _metadata(target, state), stage, narrow)
    shards = list(target.corpus.shards(state.files.read, SHARD_BYTES))
    return CorpusPass(ingest, state.files, state.known, source.duplicates == "error", source.duplicates == "last"), shards


def _metadata(target: Target, state: State) -> pa.StructType | None:
    """The type in the table once there is one; a corpus cannot change it under its readers."""
    if state.chunk_version is None:
        return target.corpus.metadata_type(state.listed)
    return metadata_type(target.store.open(target.chunk_table.name, state.chunk_version).schema)


def make_plan(target: Target, report: Report = silent) -> Plan:
    """What `apply` would do now."""
    state = look(target)
    corpus, shards = begin_pass(target, state, stage=False)
    for _ in corpus.inserts(shards, reported(run_inline(corpus.ingest, shards), report)):
        pass
    corpus.settle(state.chunk_version)
    corpus.end()
    summary = corpus.summary()
    if state.settled:
        work = None
        changed = False
    else:
        desired, fragments = corpus.desired(state.chunk_version), target.chunk_table.fragments(state.chunk_version)
        work = find_work(target.generation, state.vector_version, target.model.space.id, desired, fragments)
        changed = summary.changed or not work.empty or state.published is None
    return _plan(target, state, summary, work, changed, len(corpus.dead))


def reported(done: Iterable[Ingested], report: Report) -> Iterator[Ingested]:
    """Pass shards through and tell of the documents in them."""
    documents = 0
    for found in done:
        documents += len(found.seen)
        report(Progress("read", documents=documents))
        yield found


def check_saved(saved: Plan, target: Target, state: State) -> None:
    """Raises PlanStale if the corpus, the store or the spec is not as it was when `saved` was made."""
    now = _pinned(target, state)
    differing = [name for name in now if saved.pinned.get(name) != now[name]]
    if differing:
        raise PlanStale(f"expected the state that the plan was made for, found another {', '.join(differing)}: plan again")


def _pinned(target: Target, state: State) -> dict[str, object]:
    listing = fingerprint({"files": [[file.path, file.size, file.etag] for file in state.listed]})
    return {
        "listing": listing,
        "chunk table version": state.chunk_version,
        "vectors version": state.vector_version,
        "generation": target.generation.name,
        "reading": target.reading,
    }


def _plan(target: Target, state: State, summary: CorpusSummary, work: Work | None, changed: bool, dead: int) -> Plan:
    calibration = calibrate(target)
    embed = {"contents": 0, "chunks": 0, "tokens": 0}
    reuse = {"chunks": 0}
    if work is not None:
        tokens = int(work.code_points / calibration.code_points_a_token) + 2 * work.embed.rows
        embed = {"contents": work.embed.rows, "chunks": work.embed.rows + work.copies.rows, "tokens": tokens}
        reuse = {"chunks": work.reuse.rows}
    change, reason = classify_change(target, changed)
    rate = calibration.tokens_per_second
    seconds = embed["tokens"] / rate if rate else (0.0 if not embed["tokens"] else None)
    return Plan(
        target.collection,
        target.generation.name,
        target.model.space.id,
        change,
        reason,
        *counts(summary),
        embed,
        reuse,
        dead,
        seconds,
        _pinned(target, state),
        changed,
    )


def counts(summary: CorpusSummary) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Documents, chunks and files, as the contract has them."""
    values = asdict(summary)

    def part(prefix: str) -> dict[str, int]:
        return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}

    return part("documents_"), part("chunks_"), part("files_")


def classify_change(target: Target, changed: bool) -> tuple[Change, str]:
    """What kind of change the plan is, and what that was read off."""
    published = current(target.store, target.collection)
    if published is None:
        return ("data", "nothing is published yet") if changed else ("none", "the corpus is empty")
    if published.generation == target.generation.name or not changed:
        return ("data", "the corpus or the backlog") if changed else ("none", "everything is current")
    meta = table_meta(target.store.open(published.generation))
    if meta["space"]["id"] != target.model.space.id:
        now = target.model.space.to_dict()
        differing = [name for name, value in now.items() if meta["space"].get(name) != value]
        return "model", f"another space: {', '.join(differing)}"
    if meta["chunker"] != target.chunker.identity:
        return "chunking", "another way to cut"
    return "metadata", "other metadata fields"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What earlier runs of this space measured."""

    tokens_per_second: float | None
    """Of a whole run."""
    code_points_a_token: float


def calibrate(target: Target) -> Calibration:
    """From the largest of the newest runs of this space: small ones measure the start-up."""
    newest = itertools.islice(reversed(runs(target.store.objects, target.collection)), CALIBRATION_RUNS)
    results = [result for run in newest if (result := run.read("result.json")) and result.get("space") == target.model.space.id]
    largest = max(results, key=lambda result: int(result["embed"]["tokens"]), default=None)
    if largest is None or not largest["embed"]["tokens"]:
        return Calibration(None, CODE_POINTS_A_TOKEN)
    return Calibration(largest["tokens_per_second"], largest["code_points_a_token"])
