"""A version held against all of its gates, by a person who asks. Takes no fence: nothing that readers have is touched."""

from pipelines.measures.gate import Gate
from pipelines.spec.declared import CollectionSpec, Spec
from storage.history.built import find_built
from storage.history.catalog import current, publications
from storage.history.evaluations import Evaluation, keep_evaluation
from storage.history.ledger import Run
from storage.reading.versions import PUBLISHED, finished_versions
from storage.store.lance import Store
from workers.embedding.encoding import Encoding
from workers.judging.gates import Judgement
from workers.judging.shape import SAMPLE, drift_between, shape
from workers.observing.telemetry import observe
from workers.planning.known_models import Subject, find_subject, known_models, published_subject


def evaluate(spec: Spec, name: str | None, generation: str = PUBLISHED, run_id: str | None = None) -> Evaluation:
    """All gates in full, and what the vectors are like; of what readers have, or of the newest finished version of a generation.

    What they found is kept, under the `run_id` of whoever submitted it. Raises NotFound if there is no such version, ModelError if its
    model is not at hand.
    """
    collection, declared = spec.collection(name)
    store = Store(spec.store)
    if generation != PUBLISHED:
        return _evaluate(store, collection, declared, generation, run_id)
    with observe("evaluate", collection, declared.schedule) as observer:  # what readers do not have is of interest to who asks only
        made = _evaluate(store, collection, declared, generation, run_id)
        return observer.ended(made, "passed" if made.passed else "gate failed")


def _evaluate(store: Store, collection: str, declared: CollectionSpec, generation: str, run_id: str | None) -> Evaluation:
    known = tuple(known_models((declared.model, *declared.candidates)))
    subject = find_subject(store, declared, collection, generation, known)
    here = current(store, collection)
    served = published_subject(store, declared, here, known) if here else None
    failed, dead = _dead_letters(subject)
    with Encoding(subject) as encoding:
        gates = Judgement(subject, served, encoding, None, failed, dead).gates()
    gates += [*_shape(subject), _drift(subject)]
    return keep_evaluation(store, subject.generation, subject.version, subject.chunk_version, str(subject.space["id"]), gates, run_id)


def _dead_letters(subject: Subject) -> tuple[frozenset[str], int]:
    """The chunks that the run which made the version could not embed, and all its dead letters."""
    built = find_built(subject.store, subject.collection, subject.generation)
    if built and built.publication.version == subject.version:
        return frozenset(built.failed), built.publication.dead_letters
    rows = [row for row in finished_versions(subject.store, subject.collection, subject.generation) if row.version == subject.version]
    if not rows or not rows[-1].dead_letters:
        return frozenset(), 0
    result = Run(subject.store.objects, subject.collection, rows[-1].run_id).read("result.json") or {}
    return frozenset(letter["id"] for letter in result.get("dead", []) if letter["stage"] == "chunk"), rows[-1].dead_letters


def _shape(subject: Subject) -> list[Gate]:
    found, few = shape(subject), "not measured: fewer than two contents"
    sampled = f"a sample of at most {SAMPLE} contents"
    measures = [
        ("duplicates", found.duplicates, f"share of {found.rows:,} rows whose content is that of another row before"),
        ("effective rank", found.effective_rank, f"dimensions that {sampled} uses, of {subject.space['dimension']}"),
        ("anisotropy", found.anisotropy, f"mean cosine of two of {sampled}"),
    ]
    return [Gate(name, "information", value, None, True, few if value is None else detail) for name, value, detail in measures]


def _drift(subject: Subject) -> Gate:
    """From what readers had last of the same space, other than this version."""
    earlier = [
        row
        for row in publications(subject.store, subject.collection)
        if row.space == subject.space["id"] and (row.generation, row.version) != (subject.generation, subject.version)
    ]
    before = published_subject(subject.store, subject.spec, earlier[-1], subject.known) if earlier else None
    found = drift_between(before, subject) if before else None
    if before is None or found is None:
        return Gate("drift", "information", None, None, True, "not measured: no other version of this space was published")
    detail = f"MMD² to version {before.version} of {before.generation}, p {found.p:.3f}"
    return Gate("drift", "information", found.distance, None, True, detail)
