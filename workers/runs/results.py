"""What a run leaves: its result, and that of a run which had nothing to do."""

from pipelines.measures.gate import Gate
from storage.history.built import Built
from workers.ingest.corpus_pass import CorpusSummary
from workers.observing.account import Tally
from workers.observing.telling import BuiltGeneration, Result, Role, Status
from workers.planning.plan import begin_pass, counts, notes
from workers.planning.state import State
from workers.planning.target import Target

DEAD_LETTERS_KEPT = 10_000
"""In the record of a run; the count is exact."""
NOTHING = {"contents": 0, "chunks": 0, "tokens": 0}


def nothing_to_do(state: State) -> Result:
    """The result of an apply that began no run. What could not be embedded, and still cannot, is counted in each of them."""
    target = state.live.subject
    corpus, _ = begin_pass(state.table(target), stage=False)
    documents, chunks, _ = counts(corpus.summary())
    built = state.built[target.generation.name]
    dead = built.publication.dead_letters if built else 0
    return Result(
        collection=target.collection.name,
        generation=target.generation.name,
        space=target.model.space.id,
        change="none",
        documents=documents,
        chunks=chunks,
        embed=NOTHING,
        reuse={"chunks": 0},
        run_id=None,
        status="partial" if dead else "nothing",
        version=state.vectors[target.generation.name],
        dead_letters=dead,
        seconds={"total": 0.0, "model": 0.0},
        tokens_per_second=0.0,
        gates=_gates(built),
        notes=notes(state),
        pin=state.pin,
        failed=failures(corpus.summary(), built.lost if built else None),
        ignored=dict(state.table(target).listed.ignored),
    )


def failures(summary: CorpusSummary, lost: tuple[int, int] | None) -> dict[str, int]:
    """As a Result has them. `lost`: counted with those that could not be embedded."""
    documents, total = lost or (summary.failed, summary.total)
    return {"documents": documents, "stale": summary.stale, "of": total}


def _gates(built: Built | None) -> list[Gate]:
    return [Gate(**gate) for gate in built.gates] if built else []


def built_generation(target: Target, role: Role, status: Status, built: Built, tally: Tally) -> BuiltGeneration:
    return BuiltGeneration(
        generation=target.generation.name,
        model=target.model.spec.name,
        space=target.model.space.id,
        role=role,
        status=status,
        version=built.publication.version,
        embed={"contents": tally.contents, "chunks": tally.embedded, "tokens": tally.tokens},
        reuse={"chunks": tally.reused},
        tokens_per_second=tally.tokens / tally.seconds if tally.seconds else 0.0,
        code_points_a_token=tally.code_points / tally.tokens if tally.tokens else None,
        gates=_gates(built),
        lacking=built.lacking,
        unread=tally.unread,
    )
