"""A version held against all of its gates, by a person who asks. Takes no fence: nothing that readers have is touched."""

from dataclasses import replace
from itertools import chain
from typing import Any

from pipelines.measures.gate import Gate
from pipelines.spaces.known import known_models
from pipelines.spec.declared import CollectionSpec, Spec
from storage.collection import Collection
from storage.history.built import built_there
from storage.history.catalog import Publication, current, is_there
from storage.history.evaluations import Evaluation, keep_evaluation
from storage.history.ledger import Run
from storage.marts.handing import leave
from storage.reading.versions import PUBLISHED, find_version, finished_versions, version_of
from storage.store.lance import Store
from storage.tables.version import Version
from workers.embedding.encoding import Encoding
from workers.judging.case import Case
from workers.judging.gates import judge
from workers.observing.telemetry import observe
from workers.reports.analysis import Measure
from workers.reports.shape import drift_measure, shape_measures

MEASURES: tuple[Measure, ...] = (shape_measures, drift_measure)
"""What is told beside the gates."""


def evaluate(spec: Spec, name: str | None, generation: str = PUBLISHED, run_id: str | None = None) -> Evaluation:
    """All gates in full, and what the vectors are like; of what readers have, or of the newest finished version of a generation.

    What they found is kept, under the `run_id` of whoever submitted it. Raises NotFound if there is no such version, ModelError if its
    model is not at hand.
    """
    name, declared = spec.collection(name)
    collection = Collection(Store(spec.store), name)
    if generation != PUBLISHED:
        made = _evaluate(collection, declared, generation, run_id)
        leave(collection, marts=declared.marts)
        return made
    with observe(
        "evaluate", collection, declared.schedule, declared.marts
    ) as observer:  # what readers do not have is of interest to who asks only
        made = _evaluate(collection, declared, generation, run_id)
        return observer.ended(made, "passed" if made.passed else "gate failed")


def _evaluate(collection: Collection, declared: CollectionSpec, generation: str, run_id: str | None) -> Evaluation:
    known = tuple(known_models((declared.model, *declared.candidates)))
    version = find_version(collection, generation, known)
    here = current(collection)
    served = version_of(collection.store, here, known) if here and is_there(collection.store, here) else None
    with Encoding(version, declared.workers) as encoding:
        gates = judge(replace(Case(version, declared, encoding, served), **_letters(version)))
    return keep_evaluation(version, [*gates, *_analysed(version)], run_id)


def _analysed(version: Version) -> list[Gate]:
    return list(chain.from_iterable(analysis(version) for analysis in MEASURES))


def _letters(version: Version) -> dict[str, Any]:
    """Of a Case, what the run that made the version left: `failed`, `excused` and `lost`."""
    built = built_there(version.collection, version.generation)
    if built and _is_of(built.publication, version):
        return {"failed": frozenset(built.failed), "excused": built.lacking, "lost": _lost(built.publication, built.lost)}
    rows = [row for row in finished_versions(version.collection, version.generation) if _is_of(row, version)]
    if not rows:
        return {}
    result = Run(version.collection, rows[-1].run_id).read("result.json") or {}
    failed = frozenset(letter["id"] for letter in result.get("dead", []) if letter["stage"] == "chunk")
    made = [
        one.get("lacking")
        for one in result.get("generations", [])
        if (one["generation"], one["version"]) == (version.generation, version.number)
    ]
    lost = result.get("failed") or {}
    return {
        "failed": failed,
        "excused": tuple(made[0]) if made and made[0] else None,
        "lost": _lost(rows[-1], (lost["documents"], lost["of"]) if lost else None),
    }


def _lost(row: Publication, counted: tuple[int, int] | None) -> tuple[int, int] | None:
    return (0, 0) if not row.dead_letters else counted


def _is_of(row: Publication, version: Version) -> bool:
    """A vectors table stays as it is while the corpus loses what it never had: both tables must be the version's."""
    return (row.version, row.chunk_table, row.chunk_version) == (version.number, version.chunk_table, version.chunk_version)
