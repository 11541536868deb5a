"""Brings a chunk table up to what the corpus says."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from pipelines.chunking.tokens import ModelTokenizer
from pipelines.content.chunks import chunk_schema
from pipelines.errors import Conflict
from pipelines.logs import log
from storage.tables.chunk_table import keep_tokenizer
from workers.cluster.connection import start_ray
from workers.ingest.corpus_pass import CorpusPass, Step
from workers.ingest.source_shard import Ingested
from workers.ingest.tasks import ingest_on_ray, run_inline
from workers.observing.costs import MachineTime
from workers.planning.plan import begin_pass
from workers.planning.state import TableState
from workers.planning.target import Target
from workers.runs.session import Session

RAY_BYTES = 192 << 20
"""Of source files, above which reading them is worth starting Ray for (7 s)."""


@dataclass(frozen=True)
class CurrentChunks:
    """A chunk table that says what the corpus says."""

    corpus: CorpusPass
    version: int


def ingest_corpus(session: Session, state: TableState) -> CurrentChunks:
    """Bring a chunk table up to the corpus, in as many commits as it takes. What is large is read by Ray's tasks, else in this process."""
    target, table = state.target, state.target.chunk_table
    corpus, shards = begin_pass(state, stage=True)
    version = state.version
    if version is None:
        version = _create_chunk_table(target, corpus)
    large = sum(file.size for file in state.files.read) > RAY_BYTES
    label = target.spec.workers.label
    done = ingest_on_ray(start_ray(session.closing), corpus.ingest, shards, label) if large else run_inline(corpus.ingest, shards)

    def counted() -> Iterator[Ingested]:
        for ingested in done:
            session.account.documents += len(ingested.seen)
            session.account.tasks += MachineTime(ingested.seconds if large else 0.0)
            session.account.tell("read")
            yield ingested

    def write(version: int, step: Step) -> int:
        session.fence.check()
        table.write_files(version, target.reading, step.records, session.fence.token, target.spec.source.uri)
        return session.commit(table.name, version, step.change)

    with session.account.profile.stage("read"):
        for step in corpus.inserts(shards, counted()):
            version = write(version, step)
    with session.account.profile.stage("settle"):
        last = corpus.settle(version)
        if not last.change.empty:
            version = write(version, last)
    corpus.end()
    log("corpus read", table=table.name, version=version, **asdict(corpus.summary()))
    if not state.files.empty:
        session.fence.check()
        table.write_files(version, target.reading, corpus.records, session.fence.token, target.spec.source.uri)
    return CurrentChunks(corpus, version)


def _create_chunk_table(target: Target, corpus: CorpusPass) -> int:
    """With the tokenizer that its chunks are counted with: a table without it could not be kept current under another model."""
    target.chunk_table.forget_files()  # of a table of that name that was dropped
    tokenizer = getattr(target.chunker, "tokenizer", None)
    if isinstance(tokenizer, ModelTokenizer):
        keep_tokenizer(target.collection, tokenizer.identity, tokenizer.content)
    made = target.store.create(target.chunk_table.name, chunk_schema(corpus.ingest.metadata), target.chunks_meta())
    if rows := made.count_rows():
        raise Conflict(f"expected no rows in {target.chunk_table.name}, which was not there a moment ago, found {rows:,}: run again")
    return int(made.version)
