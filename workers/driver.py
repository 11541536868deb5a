"""A run: from what the corpus says to a published version. The only committer of its collection."""

import time
from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import Any, Literal

from pipelines.chunks import chunk_schema, metadata_type, vector_schema
from pipelines.documents import DeadLetter
from pipelines.errors import RevectorError
from storage.catalog import Publication, publish
from storage.index import update_index
from storage.ledger import Heartbeat, Run, new_run_id, now, take_fence, whoami
from workers.cluster import ingest_on_ray, run_inline, start_ray
from workers.corpus import CorpusPass, Step
from workers.filling import Filling
from workers.planning import State, begin_pass, calibrate, check_saved, classify_change, counts, look
from workers.report import Plan, Report, Result, silent
from workers.session import Session
from workers.target import Target

DEAD_LETTERS_KEPT = 10_000
"""In the record of a run; the count is exact."""
RAY_BYTES = 192 << 20
"""Of source files, above which reading them is worth starting Ray for (7 s)."""


def apply(target: Target, saved: Plan | None = None, report: Report = silent) -> Result:
    """Bring the collection up to date and publish it. Resumes what was interrupted: the tables are the checkpoint.

    Raises Conflict while another run has the collection, PlanStale if `saved` no longer holds.
    """
    state = look(target)
    if saved is not None:
        check_saved(saved, target, state)
    if state.settled:
        return _settled(target, state)
    objects = target.store.objects
    run = Run(objects, target.collection, new_run_id())
    fence = take_fence(objects, target.collection, run.run_id)
    try:
        with Heartbeat(run), ExitStack() as closing:
            state = look(target)
            if saved is not None:
                check_saved(saved, target, state)  # again, now that nobody else can change it
            return _perform(Session(target, run, fence, report, closing), state)
    except BaseException as error:
        with suppress(OSError):  # a store that is away must not hide why
            if not objects.exists(run.key("result.json")):
                run.write("result.json", {"run_id": run.run_id, "status": "failed", "error": _describe(error), "at": now()})
        raise


def _describe(error: BaseException) -> str:
    """Only our own messages are known to hold neither texts nor secrets."""
    return f"{type(error).__name__}: {error}" if isinstance(error, RevectorError) else type(error).__name__


def _settled(target: Target, state: State) -> Result:
    corpus, _ = begin_pass(target, state, stage=False)
    documents, chunks, _ = counts(corpus.summary())
    return Result(
        collection=target.collection,
        generation=target.generation.name,
        space=target.model.space.id,
        change="none",
        documents=documents,
        chunks=chunks,
        embed={"contents": 0, "chunks": 0, "tokens": 0},
        reuse={"chunks": 0},
        run_id=None,
        status="nothing",
        version=state.vector_version,
        dead_letters=0,
        seconds={"total": 0.0, "model": 0.0},
        tokens_per_second=0.0,
    )


def _perform(session: Session, state: State) -> Result:
    target = session.target
    session.change, reason = classify_change(target, True)
    session.run.write(
        "intent.json",
        {
            "run_id": session.run.run_id,
            "collection": target.collection,
            "generation": target.generation.name,
            "space": target.model.space.id,
            "change": session.change,
            "reason": reason,
            "chunk_version": state.chunk_version,
            "vector_version": state.vector_version,
            "token": session.fence.token,
            "at": now(),
            "who": whoami(),
            "spec": target.spec.model_dump(mode="json"),
        },
    )
    corpus, chunk_version = _ingest(session, state)
    version = _fill(session, chunk_version)
    version = _index(session, version)
    return _finish(session, state, corpus, chunk_version, version)


def _ingest(session: Session, state: State) -> tuple[CorpusPass, int]:
    """Bring the chunk table up to the corpus. Gives the version that says what the corpus says."""
    target, table = session.target, session.target.chunk_table
    corpus, shards = begin_pass(target, state, stage=True)
    version = state.chunk_version
    if version is None:
        version = target.store.create(table.name, chunk_schema(corpus.ingest.metadata), {"chunker": target.chunker.identity}).version
    large = sum(file.size for file in state.files.read) > RAY_BYTES
    done = ingest_on_ray(start_ray(session.closing), corpus.ingest, shards) if large else run_inline(corpus.ingest, shards)

    def told() -> Any:
        for found in done:
            session.tally.documents += len(found.seen)
            session.tell("read")
            yield found

    def write(version: int, step: Step) -> int:
        session.fence.check()
        table.write_files(version, target.reading, step.records)
        return session.commit(table.name, version, step.change)

    with session.profile.stage("read"):
        for step in corpus.inserts(shards, told()):
            version = write(version, step)
    with session.profile.stage("settle"):
        last = corpus.settle(version)
        if not last.change.empty:
            version = write(version, last)
    corpus.end()
    if not state.files.empty:
        session.fence.check()
        table.write_files(version, target.reading, corpus.records)
    return corpus, version


def _fill(session: Session, chunk_version: int) -> int:
    """Bring the vectors up to the chunk table. Gives the version of the vectors."""
    target = session.target
    space = target.model.space
    metadata = metadata_type(target.store.open(target.chunk_table.name, chunk_version).schema)
    schema = vector_schema(metadata, space.dimension, space.dtype)
    version = target.store.create(target.generation.name, schema, target.generation_meta()).version
    return Filling(session, chunk_version, version).perform(calibrate(target))


def _index(session: Session, version: int) -> int:
    session.tell("index")
    session.fence.check()
    with session.profile.stage("index"):
        return int(update_index(session.target.store.open(session.target.generation.name, version)).version)


def _finish(session: Session, state: State, corpus: CorpusPass, chunk_version: int, version: int) -> Result:
    """Judge what was built, publish it, and leave the record."""
    target, tally = session.target, session.tally
    session.tell("publish")
    dead = [*corpus.dead, *(DeadLetter("chunk", "", chunk_id, reason) for chunk_id, reason in tally.failed.items())]
    chunks, vectors = target.chunk_table.count(chunk_version), target.generation.count(version)
    objection = _objection(target, chunks, vectors, len(tally.failed), len(dead))
    before = state.published
    status: Literal["published", "partial", "built", "nothing"]
    if before is not None and (before.version, before.chunk_version) == (version, chunk_version):
        session.change = "none"
    if objection:
        status = "built"
    elif before is not None and session.change == "none" and (before.dead_letters == len(dead) or before.epoch != state.epoch):
        # Only a count of dead letters is new, or nothing: no reason to undo a rollback.
        status = "partial" if dead else "nothing"
    else:
        session.fence.check()
        with session.profile.stage("publish"):
            _publish(session, state.epoch + 1, chunk_version, version, vectors, len(dead))
        status = "partial" if dead else "published"
    result = _result(session, corpus, version, status, len(dead), objection)
    session.run.write(
        "result.json",
        {
            **asdict(result),
            "chunk_version": chunk_version,
            "at": now(),
            "dead": [asdict(letter) for letter in dead[:DEAD_LETTERS_KEPT]],
            "code_points_a_token": tally.code_points / tally.tokens if tally.tokens else None,
        },
    )
    return result


def _objection(target: Target, chunks: int, vectors: int, failed: int, dead: int) -> str:
    """Why the version must not be published, or nothing."""
    if vectors != chunks - failed:
        return f"expected {chunks - failed} vectors, found {vectors}"
    share = dead / (chunks + dead) if dead else 0.0
    allowed = target.spec.gates.max_failed
    if share > allowed:
        return f"expected at most {allowed:.2%} dead letters (gates.max_failed), found {dead} of {chunks + dead}: {share:.2%}"
    return ""


def _publish(session: Session, epoch: int, chunk_version: int, version: int, vectors: int, dead: int) -> Publication:
    """Raises Conflict if somebody moved the pointer since the run began: a rollback must not be overridden by who did not know of it."""
    target = session.target
    return publish(
        target.store,
        Publication(
            collection=target.collection,
            epoch=epoch,
            action="publish",
            generation=target.generation.name,
            version=version,
            chunk_table=target.chunk_table.name,
            chunk_version=chunk_version,
            space=target.model.space.id,
            model=target.model.spec.model_dump_json(),
            chunks=vectors,
            dead_letters=dead,
            restores=0,
            run_id=session.run.run_id,
            at=now(),
            who=whoami(),
            why="",
        ),
    )


def _result(session: Session, corpus: CorpusPass, version: int, status: Any, dead: int, objection: str) -> Result:
    target, tally = session.target, session.tally
    documents, chunks, _ = counts(corpus.summary())
    total = time.monotonic() - session.began
    return Result(
        collection=target.collection,
        generation=target.generation.name,
        space=target.model.space.id,
        change=session.change,
        documents=documents,
        chunks=chunks,
        embed={"contents": tally.contents, "chunks": tally.embedded, "tokens": tally.tokens},
        reuse={"chunks": tally.reused},
        run_id=session.run.run_id,
        status=status,
        version=version,
        dead_letters=dead,
        seconds={"total": total, "model": sum(worker["model"] for worker in session.profile.workers.values())},
        tokens_per_second=tally.tokens / total,
        reason=objection,
        profile=session.profile.to_dict(),
    )
