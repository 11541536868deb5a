"""Two versions side by side: measures, neighbourhoods, labelled queries, and the queries that changed most."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.measures.quality import Drift, overlap
from pipelines.spec.declared import CollectionSpec, Spec
from storage.reading.neighbourhoods import Hit, compare_neighbourhoods
from storage.sources.labelled import load_labelled
from storage.store.lance import Store, table_meta, take
from workers.embedding.encoding import Encoding
from workers.judging.ranking import Ranking, held_labels, rank
from workers.judging.shape import Shape, drift_between, shape
from workers.planning.known_models import Subject, find_subject, known_models

CHANGED = 5
"""Queries that are told in full."""
TEXT = 200
"""Characters of a text that are told."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the versions."""

    generation: str
    version: int
    chunk_version: int
    model: str
    space: str
    """The space's id."""
    dimension: int
    shape: Shape
    ndcg: float | None
    """nDCG@10 of the labelled queries; None without any."""
    recall: float | None
    """Their recall@10."""


@dataclass(frozen=True, slots=True)
class Found:
    """One result of a query."""

    chunk_id: str
    doc_id: str
    score: float
    """Cosine."""
    text: str
    """Its beginning."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A query that the versions answer in different ways."""

    query: str
    """A labelled query, or the beginning of a chunk's text."""
    overlap: float
    """Of the nearest 10 documents or contents."""
    a: list[Found]
    b: list[Found]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions side by side."""

    collection: str
    a: Side
    b: Side
    overlap: float | None
    """The mean share of 10 nearest neighbours in common; None if the versions share nothing."""
    compared: int
    """Queries that this is the mean of."""
    compared_by: str
    """"content_hash", or "doc_id" where documents were cut in different ways."""
    labelled: int
    """Labelled queries that have a relevant document in both."""
    drift: Drift | None
    """Between samples of both; None where the spaces are two."""
    changed: list[Changed]
    """Most first: labelled queries where there are any, else stored contents."""


@dataclass(frozen=True, slots=True)
class _Answers:
    """What both versions have for some queries."""

    queries: list[str]
    a: list[list[Hit]]
    b: list[list[Hit]]


def compare(spec: Spec, name: str | None, a: str, b: str) -> Comparison:
    """Two generations, each by its name, a beginning of the last part of it, or "published".

    Raises NotFound if there is no such thing, ModelError if there are labelled queries and a model is not at hand.
    """
    collection, declared = spec.collection(name)
    known = tuple(known_models((declared.model, *declared.candidates)))
    first, second = (find_subject(Store(spec.store), declared, collection, each, known) for each in (a, b))
    pairs = compare_neighbourhoods(first.vectors, second.vectors)
    queries, rankings = _rankings(declared, first, second)
    if rankings is None:
        texts = _texts(first, [pair.address for pair in pairs.each])
        answers = _Answers(texts, [pair.first for pair in pairs.each], [pair.second for pair in pairs.each])
    else:
        answers = _Answers(queries, rankings[0].found, rankings[1].found)
    sides = [_side(each, ranking) for each, ranking in zip((first, second), rankings or (None, None), strict=True)]
    return Comparison(
        collection=collection,
        a=sides[0],
        b=sides[1],
        overlap=pairs.mean,
        compared=len(pairs.each),
        compared_by=pairs.by,
        labelled=len(rankings[0].quality) if rankings else 0,
        drift=drift_between(first, second),
        changed=_most_changed(first, second, answers),
    )


def _rankings(declared: CollectionSpec, first: Subject, second: Subject) -> tuple[list[str], tuple[Ranking, Ranking] | None]:
    """The labelled queries, and how both versions answer them, by the documents that both hold; None if there are none."""
    labelled = load_labelled(declared.gates.queries) if declared.gates.queries else []
    held = [held_labels(each, labelled) for each in (first, second)]
    labels = {place: common for place, found in held[0].items() if (common := found & held[1].get(place, frozenset()))}
    if not labels:
        return [], None
    rankings = []
    for subject in (first, second):
        with Encoding(subject) as encoding:
            rankings.append(rank(subject, labelled, labels, encoding))
    return [each.query for each in labelled], (rankings[0], rankings[1])


def _side(subject: Subject, ranking: Ranking | None) -> Side:
    return Side(
        generation=subject.generation,
        version=subject.version,
        chunk_version=subject.chunk_version,
        model=str(table_meta(subject.vectors)["model"]["name"]),
        space=str(subject.space["id"]),
        dimension=int(subject.space["dimension"]),
        shape=shape(subject),
        ndcg=ranking.mean("ndcg") if ranking else None,
        recall=ranking.mean("recall") if ranking else None,
    )


def _most_changed(first: Subject, second: Subject, answers: _Answers) -> list[Changed]:
    """The queries with the least overlap, those that are the same left out."""
    shares = [overlap([hit.key for hit in a], [hit.key for hit in b]) for a, b in zip(answers.a, answers.b, strict=True)]
    order = sorted((share, place) for place, share in enumerate(shares) if share is not None and share < 1)
    return [
        Changed(answers.queries[place], share, _found(first, answers.a[place]), _found(second, answers.b[place]))
        for share, place in order[:CHANGED]
    ]


def _found(subject: Subject, hits: Sequence[Hit]) -> list[Found]:
    if not hits:
        return []
    rows = take(subject.vectors, _addresses([hit.address for hit in hits]), ["chunk_id", "doc_id", "text"]).to_pylist()
    return [Found(row["chunk_id"], row["doc_id"], round(hit.score, 6), row["text"][:TEXT]) for row, hit in zip(rows, hits, strict=True)]


def _texts(subject: Subject, places: Sequence[int]) -> list[str]:
    """The beginnings of the texts at some addresses."""
    if not places:
        return []
    return [text[:TEXT] for text in take(subject.vectors, _addresses(places), ["text"])["text"].to_pylist()]


def _addresses(places: Sequence[int]) -> np.ndarray:
    return np.array(places, dtype=np.uint64)
