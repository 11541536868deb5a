"""From a target to a plan: read what changed, take the differences, estimate. Touches nothing."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict

import pyarrow as pa

from pipelines.content.chunks import metadata_type
from pipelines.content.documents import SourceShard, count_inputs, most_frequent
from pipelines.spec.running import PricesSpec
from workers.embedding.work import find_work
from workers.ingest.corpus_pass import CorpusPass, CorpusSummary
from workers.ingest.source_shard import Ingest, Ingested
from workers.ingest.tasks import run_inline
from workers.observing.costs import Cost, MachineTime, cost
from workers.observing.telling import ALL_READ, Plan, PlannedGeneration, Progress, Report, silent
from workers.planning.calibration import Calibration, calibrate
from workers.planning.changes import classify_change
from workers.planning.live import Live
from workers.planning.objections import objections
from workers.planning.state import State, TableState, pinned, read_state
from workers.planning.target import Target

SHARD_BYTES = 16 << 20
"""Of files as they are stored: Parquet may hold ten times as much text."""
REASONS_SHOWN = 3


def begin_pass(state: TableState, *, stage: bool) -> tuple[CorpusPass, list[SourceShard]]:
    """A pass over what must be read, and its shards in the order in which they go."""
    target = state.target
    table, version = target.chunk_table, state.version
    again = {file.path for file in state.files.read} & state.known.keys()
    fragments = table.fragments_by_file(version, again) if version is not None and again else {}
    # All that a changed file adds may be duplicates: only rows that are known tell that nothing is new.
    narrow = not stage or version is not None
    ingest = Ingest(target.corpus, target.chunker, table, version, fragments, _metadata(state), stage, narrow)
    shards = list(target.corpus.shards(state.files.read, SHARD_BYTES))
    return CorpusPass(ingest, state.files, state.known, state.earlier, target.spec.source), shards


def _metadata(state: TableState) -> pa.StructType | None:
    """The type in the table once there is one; a corpus cannot change it under its readers."""
    target = state.target
    if state.version is None:
        return target.corpus.metadata_type(state.listed.files)
    return metadata_type(target.store.open(target.chunk_table.name, state.version).schema)


def make_plan(target: Target, report: Report = silent) -> Plan:
    """What `apply` would do now, by a pass over what changed. Touches nothing. Raises what `read_state` and reading the corpus raise."""
    state = read_state(target)
    passes = {name: _dry_pass(table, report) for name, table in state.tables.items()}
    targets, subject = state.live.targets, state.live.subject
    measured = [calibrate(one) for one in targets]
    planned = [_plan_generation(state, one, passes[one.chunk_table.name], speed) for one, speed in zip(targets, measured, strict=True)]
    summaries = {name: corpus.summary() for name, corpus in passes.items()}
    unsure = [one for one, generation in zip(targets, planned, strict=True) if generation.embed["contents"] and not _reads_whole(one)]
    at_rest = all(state.at_rest(one) for one in targets)
    pending = not at_rest or any(summary.changed for summary in summaries.values()) or any(generation.pending for generation in planned)
    against = list(objections(state, state.table(subject), passes[subject.chunk_table.name]))
    pending = pending or bool(against and not state.settled)  # a run begins, and a gate fails
    change = classify_change(state, pending)
    main = summaries[subject.chunk_table.name]
    documents, chunks, files = counts(main)
    dead = passes[subject.chunk_table.name].dead
    return Plan(
        collection=target.collection.name,
        generation=subject.generation.name,
        space=subject.model.space.id,
        change=change.kind,
        reason=change.reason,
        documents=documents,
        chunks=chunks,
        files=files,
        embed={unit: sum(generation.embed[unit] for generation in planned) for unit in ("contents", "chunks", "tokens")},
        reuse={"chunks": sum(generation.reuse["chunks"] for generation in planned)},
        dead_letters=count_inputs(dead),
        reasons=most_frequent(dead, REASONS_SHOWN),
        seconds=_together([generation.seconds for generation in planned]),
        pinned=pinned(state),
        pending=pending,
        pin=state.pin,
        ignored=dict(state.table(subject).listed.ignored),
        identity=change.identity,
        generations=planned,
        failed={"documents": main.failed, "stale": main.stale, "of": main.total},
        notes=[
            *notes(state),
            *against,
            *_stopped(state),
            *map(_may_exceed, unsure),
        ],
        unread=None if unsure else dict(ALL_READ),
        cost=_estimate(planned, measured, subject.spec.prices),
    )


def _together(seconds: list[float | None]) -> float | None:
    """None if one is not known: the sum of the others would be taken for that of all."""
    known = [one for one in seconds if one is not None]
    return sum(known) if len(known) == len(seconds) else None


def _estimate(planned: list[PlannedGeneration], measured: list["Calibration"], prices: PricesSpec) -> Cost | None:
    """What earlier runs held for as many tokens, by the prices of today."""
    held: dict[str, MachineTime] = {}
    for generation, calibration in zip(planned, measured, strict=True):
        tokens = generation.embed["tokens"]
        if tokens and calibration.held is None:
            return None
        for stage, used in (calibration.held or {}).items():
            held[stage] = held.get(stage, MachineTime()) + used.times(tokens)
    return cost(held, prices)


def _dry_pass(table: TableState, report: Report) -> CorpusPass:
    corpus, shards = begin_pass(table, stage=False)
    for _ in corpus.inserts(shards, reported(run_inline(corpus.ingest, shards), report)):
        pass
    corpus.settle(table.version)
    corpus.end()
    return corpus


def _plan_generation(state: State, target: Target, corpus: CorpusPass, calibration: "Calibration") -> PlannedGeneration:
    table = state.table(target)
    embed, reuse = {"contents": 0, "chunks": 0, "tokens": 0}, {"chunks": 0}
    pending = False
    if not (state.settled or (table.files.empty and state.complete(target))):
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
    before = itertools.takewhile(lambda other: other != target, live.filled)
    alike = (other for other in before if other.chunk_table == target.chunk_table)
    return any(target.model.space.derives_from(other.model.space.to_dict()) for other in alike)


def _reads_whole(target: Target) -> bool:
    """Whether no chunk is longer than what the model reads: they were counted by its own tokenizer."""
    model, counted_by = target.model, target.chunker.identity.get("tokenizer")
    return model.tokenizer_file is None or (counted_by is not None and counted_by == target.counting.tokenizer(model).identity)


def _may_exceed(target: Target) -> str:
    model = target.model
    return f"what of a text is beyond the {model.space.max_tokens:,} tokens that {model.spec.name} reads is counted when it is embedded"


def notes(state: State) -> list[str]:
    """For a person: what is not as the spec and the corpus alone would have it."""
    missing = [
        f"{table.target.spec.source.uri} is not there any more, or empty: built from the {len(table.known):,} files as they were read last"
        for table in state.tables.values()
        if table.missing
    ]
    moved = [
        f"documents were read from {table.place} until now, and are from {table.target.spec.source.uri} from here on: "
        "all files are read again"
        for table in state.tables.values()
        if table.place and table.place != table.target.spec.source.uri
    ]
    ignored = [
        f"of no known format, and ignored: {table.listed.left_out} (source.format, or a narrower source.uri, tells what they are)"
        for table in [state.table(state.live.subject)]
        if table.listed.ignored
    ]
    pinned = [f"{state.pin.summary}: `revector resume {state.live.subject.collection}` releases it"] if state.pin else []
    models = dict.fromkeys(note for target in state.live.targets for note in target.model.notes)
    return [*pinned, *state.live.notes, *moved, *missing, *ignored, *models]


def _stopped(state: State) -> list[str]:
    """What keeps a finished version from being published."""
    built = state.built[state.live.subject.generation.name]
    if built is None or not state.finished(state.live.subject):
        return []
    return [f"built before, and stopped by {gate['name']}: {gate['detail']}" for gate in built.gates if not gate["passed"]]


def reported(done: Iterable[Ingested], report: Report) -> Iterator[Ingested]:
    """Pass shards through and tell of the documents in them."""
    documents = 0
    for ingested in done:
        documents += len(ingested.seen)
        report(Progress("read", documents=documents))
        yield ingested


def counts(summary: CorpusSummary) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Documents, chunks and files, as the contract has them."""
    values = asdict(summary)

    def part(prefix: str) -> dict[str, int]:
        return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}

    return part("documents_"), part("chunks_"), part("files_")
