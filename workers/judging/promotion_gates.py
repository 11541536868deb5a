"""Promotion gates: a version finds what exact search finds, what readers found before, and what people say is right."""

from collections.abc import Iterator, Mapping, Sequence

from pipelines.errors import ModelError
from pipelines.measures.gate import Gate, unmeasured
from pipelines.measures.quality import TOP
from storage.reading.neighbourhoods import compare_neighbourhoods
from storage.reading.neighbours import sample, search_recall
from storage.sources.labelled import Labelled, load_labelled
from storage.store.lance import ROW_ADDRESS
from storage.tables.index import probes
from workers.embedding.encoding import Encoding
from workers.judging.case import Case
from workers.reports.ranking import Ranking, held_labels, rank

INDEX_QUERIES = 100
MEANINGLESS = "not measured: the stand-in's vectors mean nothing"
NDCG, RECALL = f"ndcg@{TOP}", f"recall@{TOP}"


def index_recall(case: Case) -> Iterator[Gate]:
    """A reader's search against exact search."""
    least, vectors = case.spec.gates.min_index_recall, case.version.vectors
    if why := _index_unmeasured(case):
        yield unmeasured("index recall", "promotion", least, why)
        return
    places = sample(vectors, INDEX_QUERIES)[ROW_ADDRESS].to_numpy()
    recall = search_recall(vectors, places, TOP)
    detail = f"recall@{TOP} {recall:.3f} against exact search, of {len(places)} stored vectors; at least {least:g}"
    yield _promotion("index recall", recall, least, detail)


def _index_unmeasured(case: Case) -> str:
    """Why the index is not measured; nothing if it must be."""
    if probes(case.version.vectors) is None:
        return "not measured: there is no index, every search is exact"
    if case.version.meaningless:
        return MEANINGLESS
    return case.settled if case.settled and probes(case.passed) is not None else ""


def overlap(case: Case) -> Iterator[Gate]:
    """Nearest neighbours in common with what readers have."""
    limits, served = case.spec.gates, case.served
    why = _not_comparable(case) or case.settled
    if why or served is None:
        yield unmeasured("overlap", "promotion", None, why)
        return
    both = compare_neighbourhoods(served.vectors, case.version.vectors)
    same = served.space["id"] == case.version.space["id"] and both.by == "content_hash"
    least = limits.min_overlap if same else limits.min_overlap_changed
    if both.mean is None:
        yield unmeasured("overlap", "promotion", least, f"not measured: nothing is shared with {served.generation}")
        return
    what = "contents" if both.by == "content_hash" else "documents"
    detail = f"overlap@{TOP} {both.mean:.3f} with {served}, of {len(both.neighbourhoods)} {what}; at least {least:g}"
    yield _promotion("overlap", both.mean, least, detail)


def _not_comparable(case: Case) -> str:
    """Why there are no neighbourhoods to compare; nothing if there are."""
    if case.served is None:
        return "not measured: nothing is published to compare with"
    if case.served.generation == case.version.generation:
        return "not measured: readers have this generation already"
    if case.served.meaningless or case.version.meaningless:
        return MEANINGLESS
    return ""


def labelled_queries(case: Case) -> Iterator[Gate]:
    """How labelled queries are answered, beside how they are answered now."""
    limits = case.spec.gates
    if limits.queries is None:
        yield unmeasured(NDCG, "promotion", limits.min_ndcg, "not measured: gates.queries names no labelled queries")
        return
    labelled = load_labelled(limits.queries)
    labels = held_labels(case.version, labelled)
    if not labels:
        why = f"not measured: the version holds no document that {limits.queries} names"
        yield unmeasured(NDCG, "promotion", limits.min_ndcg, why)
        return
    ranking, before = rank(case.version, labelled, labels, case.encoding), _before(case, labelled, labels)
    allowed = None if isinstance(before, str) else before.mean("ndcg") - limits.max_ndcg_drop
    least = max((bound for bound in (limits.min_ndcg, allowed) if bound is not None), default=None)
    ndcg, recall = ranking.mean("ndcg"), ranking.mean("recall")
    which = f" of the {len(labels):,} of {len(labelled):,} labelled queries that have a relevant document here; "
    yield Gate(NDCG, "promotion", ndcg, least, least is None or ndcg >= least, f"{ndcg:.3f}{which}{_beside(before, 'ndcg')}")
    yield Gate(RECALL, "information", recall, None, True, f"{recall:.3f}{which}{_beside(before, 'recall')}")


def _before(case: Case, labelled: Sequence[Labelled], labels: Mapping[int, frozenset[str]]) -> Ranking | str:
    """How what readers have answers the same, or why that is not known."""
    served = case.served
    if served is None:
        return "nothing is published to compare with"
    if (served.generation, served.number) == (case.version.generation, case.version.number):
        return "readers have this version"
    try:
        with Encoding(served, case.spec.workers) as encoding:
            return rank(served, labelled, labels, encoding)
    except ModelError as error:
        return f"what readers have was not measured: {error}"


def _beside(before: Ranking | str, measure: str) -> str:
    return before if isinstance(before, str) else f"what readers have: {before.mean(measure):.3f}"


def _promotion(name: str, value: float, least: float, detail: str) -> Gate:
    return Gate(name, "promotion", float(value), least, bool(value >= least), detail)
