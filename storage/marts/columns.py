"""The tables of the marts, column by column: the one place that says what there is. Documents, Postgres and pages are made from it.

Flat columns, times in UTC, no texts of documents. What is not known is null, which is not zero.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

ABOUT = b"about"
"""Where a field has what it means."""
TEXT, COUNT, REAL, YES, AT, DAY = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us", "UTC"), pa.date32()

Column = tuple[pa.DataType, str]


@dataclass(frozen=True)
class Mart:
    """One table."""

    name: str
    key: tuple[str, ...]
    """Columns that tell a row from all others."""
    about: str
    schema: pa.Schema
    """Each field with its meaning in its metadata."""

    def columns(self) -> Iterator[tuple[pa.Field, str]]:
        """Each with its meaning."""
        for field in self.schema:
            yield field, field.metadata[ABOUT].decode()


def _mart(name: str, key: tuple[str, ...], about: str, **columns: Column) -> Mart:
    fields = [pa.field(column, kind, nullable=column not in key, metadata={ABOUT: said}) for column, (kind, said) in columns.items()]
    return Mart(name, key, about, pa.schema(fields))


_COLLECTION = (TEXT, "The collection.")
_GENERATION = (TEXT, "The generation: the name of its table.")
_RUN = (TEXT, "The run: it begins with its time, UTC.")
_WHO = (TEXT, "The person or service account.")
_CURRENCY = (TEXT, "Of the amounts, as the spec names it.")

COLLECTIONS = _mart(
    "collections",
    ("collection",),
    "How each collection stands: one row, as the last run or evaluation left it.",
    collection=_COLLECTION,
    as_of=(AT, "When this row was written."),
    looked_at=(AT, "When a run last compared the source with what is stored, whether there was anything to do or not."),
    newest_source_at=(AT, "When a file of the source was last changed, as of that look."),
    documents=(COUNT, "Documents of the source, as of that look."),
    chunks=(COUNT, "Chunks that they were cut into."),
    generation=(TEXT, "The generation that readers have."),
    model=(TEXT, "Its model, by the name in the spec."),
    space=(TEXT, "The id of its space."),
    version=(COUNT, "The version that readers have."),
    epoch=(COUNT, "Counts the publications of the collection."),
    published_at=(AT, "Since when they have it."),
    published_by=_WHO,
    vectors=(COUNT, "Rows that they have."),
    pinned=(YES, "Whether a rollback holds."),
    pending=(COUNT, "Chunks that the generation that readers have has no vector of, in its newest version; null as in generations."),
    coverage=(REAL, "Of its chunks the share that it has a vector of, 0 to 1."),
    pending_elsewhere=(COUNT, "The same of the other generations that are kept current, together."),
    dead_letters=(COUNT, "Documents and chunks that the last run that ended could not read or embed."),
    failed_gates=(COUNT, "Gates that the newest version judged did not pass, of generations in use."),
    alarms=(COUNT, "Measures of reports of the published version that are beyond their limits."),
    waiting=(COUNT, "Candidates that passed their gates and wait for a person."),
    last_run=(TEXT, "The newest run."),
    last_what=(TEXT, "What it was for: apply, maintain, erase or drop."),
    last_status=(TEXT, "How it ended; unfinished: it has left no result."),
    last_began=(AT, "When it began."),
    last_ended=(AT, "When it ended."),
    last_error=(TEXT, "What ended it, in a line."),
    update_run=(TEXT, "The newest run that was to bring the collection up to date; upkeep may have come after it."),
    update_status=(TEXT, "How that ended, as last_status has it."),
    month_cost=(REAL, "What runs that began in the month of as_of, UTC, have cost; null without prices in the spec."),
    monthly_budget=(REAL, "What a month may cost, as the spec says."),
    currency=_CURRENCY,
    schedule=(TEXT, "The cron expression of its updates; null without one."),
    timezone=(TEXT, "Of the schedule."),
    paused=(YES, "Whether the schedule is paused."),
    token=(COUNT, "The fencing token of last_run; a higher one in the store: another has begun."),
)
GENERATIONS = _mart(
    "generations",
    ("collection", "generation"),
    "Each generation that is in the store: one row, as the last run left it.",
    collection=_COLLECTION,
    generation=_GENERATION,
    role=(TEXT, "published: readers have it. declared: the spec's, about to take its place. candidate: kept beside. left: no longer kept."),
    state=(TEXT, "published, built, gates failed, unfinished or superseded, as `revector status` says."),
    model=(TEXT, "Its model, by the name in the spec."),
    model_settings=(TEXT, "What else the spec says of it, as JSON; null: all is as usual."),
    space=(TEXT, "The id of its space."),
    dimension=(COUNT, "Numbers of a vector."),
    version=(COUNT, "Its latest version."),
    chunks=(COUNT, "Chunks that it should have vectors of."),
    vectors=(COUNT, "Rows that it has."),
    pending=(COUNT, "Chunks without a vector; null while an update of it is not finished: rows may be of chunks that are gone."),
    finished=(YES, "Whether a run brought its latest version to its end."),
    passed=(YES, "Whether the version that was finished last passed its gates."),
    bytes=(COUNT, "Of the files of its latest version."),
    fragments=(COUNT, "Files that its rows lie in."),
    index_type=(TEXT, "Of its vector index; null: every search is exact."),
    unindexed_rows=(COUNT, "Rows that the index does not have, and a search scans."),
)
VERSIONS = _mart(
    "versions",
    ("collection", "epoch"),
    "Each publication: what readers had from when on, by whom, and why.",
    collection=_COLLECTION,
    epoch=(COUNT, "Counts the publications of the collection, from 1."),
    action=(TEXT, "publish, update, promote, rollback, resume or maintenance."),
    generation=_GENERATION,
    version=(COUNT, "Of the vectors table."),
    chunk_version=(COUNT, "Of the chunk table."),
    space=(TEXT, "The id of the space."),
    model=(TEXT, "The model, by the name in the spec."),
    chunks=(COUNT, "Rows that readers got."),
    dead_letters=(COUNT, "Documents and chunks that it lacks."),
    restores=(COUNT, "The epoch whose rows it has again; null for a new state."),
    run_id=_RUN,
    published_at=(AT, "When it was published."),
    who=_WHO,
    why=(TEXT, "What the person said of it."),
    removed_at=(AT, "When its tables were given up; null while it can be rolled back to."),
)
RUNS = _mart(
    "runs",
    ("collection", "run_id"),
    "Each run: what it was for, what it did, what it took.",
    collection=_COLLECTION,
    run_id=_RUN,
    what=(TEXT, "apply, maintain, erase or drop."),
    began=(AT, "When it took the collection."),
    ended=(AT, "When it left its result; null: it has left none."),
    status=(TEXT, "published, partial, built, pinned, nothing, maintained, erased, dropped, failed, cancelled or unfinished."),
    change=(TEXT, "What differed: data, metadata, chunking, model or none."),
    reason=(TEXT, "What that was read off, or why it was not published."),
    who=_WHO,
    host=(TEXT, "Where its driver ran."),
    generation=(TEXT, "The generation that the spec declared."),
    version=(COUNT, "The version that it made or found."),
    documents_added=(COUNT, "Documents that are new."),
    documents_changed=(COUNT, "Documents with other content."),
    documents_removed=(COUNT, "Documents that are gone."),
    documents_unchanged=(COUNT, "Documents as they were."),
    chunks_added=(COUNT, "Chunk rows that were written."),
    chunks_removed=(COUNT, "Chunk rows that were taken away."),
    contents_embedded=(COUNT, "Distinct contents that went through a model."),
    chunks_written=(COUNT, "Vectors that were written, of all generations together."),
    chunks_reused=(COUNT, "Of these, those that took a stored vector or shared a forward pass."),
    reused_share=(REAL, "chunks_reused / chunks_written, 0 to 1; null where nothing was written."),
    tokens=(COUNT, "Tokens that went through a model."),
    tokens_per_second=(REAL, "While it embedded."),
    seconds=(REAL, "From its beginning to its end."),
    model_seconds=(REAL, "In which models computed, of all actors together."),
    cpu_hours=(REAL, "Core hours that it held, used or not."),
    gpu_hours=(REAL, "GPU hours that it held, used or not."),
    nodes=(COUNT, "Machines of a cluster that its actors ran on."),
    gpus=(COUNT, "GPUs of these."),
    cost=(REAL, "Of what it held, by the prices of the spec; null without prices."),
    currency=_CURRENCY,
    dead_letters=(COUNT, "Documents and chunks that it could not read or embed."),
    failed_gates=(COUNT, "Gates that did not pass."),
    error=(TEXT, "What ended it, in a line; null if its work did."),
    token=(COUNT, "Its fencing token: in this order runs came, whatever clocks and ids say; null: not on record."),
)
STAGES = _mart(
    "stages",
    ("collection", "run_id", "stage"),
    "Where the time of each run went.",
    collection=_COLLECTION,
    run_id=_RUN,
    stage=(TEXT, "Reading, embedding, indexing, judging ...; other: what is in none."),
    place=(COUNT, "In the order in which they began, from 0."),
    seconds=(REAL, "By the clock of the driver; null of what only held machines."),
    cpu_seconds=(REAL, "Core seconds held."),
    gpu_seconds=(REAL, "GPU seconds held."),
    cost=(REAL, "Of these, by the prices of the spec; null without prices."),
)
GATES = _mart(
    "gates",
    ("collection", "evaluation_id", "gate"),
    "Each gate that a version was held against, and what it found.",
    collection=_COLLECTION,
    evaluation_id=(TEXT, "The judgement: it begins with its time, UTC."),
    gate=(TEXT, "What was checked."),
    run_id=(TEXT, "The run that judged what it had built; null: a person asked."),
    generation=_GENERATION,
    version=(COUNT, "Of the vectors table."),
    judged_at=(AT, "When."),
    who=_WHO,
    kind=(TEXT, "hard: the version is broken. promotion: it is worse than it may be. information: nothing depends on it."),
    value=(REAL, "What was measured; null if it was not."),
    threshold=(REAL, "What the value was held against; null: against nothing."),
    passed=(YES, "Whether it let the version through; what was not measured does."),
    detail=(TEXT, "In a line."),
    failing_rows=(COUNT, "Chunks that it names, at most 20."),
)
DEAD_LETTERS = _mart(
    "dead_letters",
    ("collection", "stage", "file", "id"),
    "What the last run that ended could not read or embed. A later run takes away what it could.",
    collection=_COLLECTION,
    stage=(TEXT, "What it cost: file, document, value (of metadata) or chunk."),
    file=(TEXT, "The file, relative to the source; empty for a chunk."),
    id=(TEXT, "The document's or chunk's id, or the place in the file."),
    reason=(TEXT, "Why, without any text of the document."),
    inputs=(COUNT, "Inputs that it stands for."),
    run_id=(TEXT, "The run that said so."),
    first_seen=(AT, "When a run first said so, of those that say it without a break."),
)
COVERAGE_DAILY = _mart(
    "coverage_daily",
    ("collection", "generation", "day"),
    "How far each generation was at the end of each day on which a run looked, UTC.",
    collection=_COLLECTION,
    generation=_GENERATION,
    day=(DAY, "The day."),
    chunks=(COUNT, "Chunks that it should have vectors of."),
    vectors=(COUNT, "Rows that it had."),
    pending=(COUNT, "Chunks without a vector."),
    newest_source_at=(AT, "When a file of the source was last changed."),
)
COSTS_DAILY = _mart(
    "costs_daily",
    ("collection", "day", "currency"),
    "What the runs that began on a day took, UTC.",
    collection=_COLLECTION,
    day=(DAY, "The day."),
    currency=(TEXT, "Of the cost; empty where the spec has no prices."),
    runs=(COUNT, "Runs that began."),
    failed=(COUNT, "Of these, that failed or were stopped."),
    cost=(REAL, "What they cost; null without prices."),
    cpu_hours=(REAL, "Core hours held."),
    gpu_hours=(REAL, "GPU hours held."),
    tokens=(COUNT, "Tokens through a model."),
    contents_embedded=(COUNT, "Distinct contents through a model."),
    chunks_reused=(COUNT, "Chunks that needed none."),
    seconds=(REAL, "Seconds that they took."),
)
REPORTS = _mart(
    "reports",
    ("collection", "generation", "version", "kind", "identity", "measure"),
    "Each figure of each report of a version.",
    collection=_COLLECTION,
    generation=_GENERATION,
    version=(COUNT, "Of the vectors table."),
    kind=(TEXT, "map, clusters, outliers, duplicates, neighbours, balance, bias, tasks, drift or labels."),
    identity=(TEXT, "Of all that decides what it says."),
    measure=(TEXT, "What was measured."),
    value=(REAL, "What it is; null if it was not measured."),
    threshold=(REAL, "What it was held against; null: against nothing."),
    passed=(YES, "Whether it is within that."),
    reported_at=(AT, "When."),
    who=_WHO,
    run_id=(TEXT, "The run that made it; null: a person asked."),
    seconds=(REAL, "That the report took."),
)

MARTS = {
    mart.name: mart
    for mart in (COLLECTIONS, VERSIONS, GENERATIONS, RUNS, STAGES, GATES, DEAD_LETTERS, COVERAGE_DAILY, COSTS_DAILY, REPORTS)
}
"""By name."""
