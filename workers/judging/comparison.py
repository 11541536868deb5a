"""Two versions side by side: measures, neighbourhoods, labelled queries, and the queries that changed most."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.measures.quality import Drift, overlap
from pipelines.spaces.known import known_models
from pipelines.spec.declared import CollectionSpec, Spec
from storage.collection import Collection
from storage.reading.neighbourhoods import Hit, compare_neighbourhoods
from storage.reading.versions import find_version
from storage.sources.labelled import load_labelled
from storage.store.lance import Store, table_meta, take
from storage.tables.version import Version
from workers.embedding.encoding import Encoding
from workers.reports.ranking import Ranking, held_labels, rank
from workers.reports.shape import Shape, drift_between, shape

CHANGED = 5
"""Queries that are told in full."""
TEXT = 200
"""Characters of a text that are told."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions, and what is measured of it alone."""

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
class Answer:
    """A chunk that a version gives for a query."""

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
    a: list[Answer]
    b: list[Answer]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions side by side, `a` and `b` in the order in which they were asked for."""

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
    name, declared = spec.collection(name)
    collection = Collection(Store(spec.store), name)
    known = tuple(known_models((declared.model, *declared.candidates)))
    first, second = (find_version(collection, generation, known) for generation in (a, b))
    pairs = compare_neighbourhoods(first.vectors, second.vectors)
    queries, rankings = _rankings(declared, first, second)
    if rankings is None:
        texts = _texts(first, [pair.address for pair in pairs.neighbourhoods])
        answers = _Answers(texts, [pair.first for pair in pairs.neighbourhoods], [pair.second for pair in pairs.neighbourhoods])
    else:
        answers = _Answers(queries, rankings[0].nearest, rankings[1].nearest)
    sides = [_side(version, ranking) for version, ranking in zip((first, second), rankings or (None, None), strict=True)]
    return Comparison(
        collection=name,
        a=sides[0],
        b=sides[1],
        overlap=pairs.mean,
        compared=len(pairs.neighbourhoods),
        compared_by=pairs.by,
        labelled=len(rankings[0].quality) if rankings else 0,
        drift=drift_between(first, second),
        changed=_most_changed(first, second, answers),
    )


def _rankings(declared: CollectionSpec, first: Version, second: Version) -> tuple[list[str], tuple[Ranking, Ranking] | None]:
    """The labelled queries, and how both versions answer them, by the documents that both hold; None if there are none."""
    labelled = load_labelled(declared.gates.queries) if declared.gates.queries else []
    ours, theirs = held_labels(first, labelled), held_labels(second, labelled)
    labels = {place: common for place, documents in ours.items() if (common := documents & theirs.get(place, frozenset()))}
    if not labels:
        return [], None
    rankings = []
    for version in (first, second):
        with Encoding(version, declared.workers) as encoding:
            rankings.append(rank(version, labelled, labels, encoding))
    return [query.query for query in labelled], (rankings[0], rankings[1])


def _side(version: Version, ranking: Ranking | None) -> Side:
    return Side(
        generation=version.generation,
        version=version.number,
        chunk_version=version.chunk_version,
        model=str(table_meta(version.vectors)["model"]["name"]),
        space=str(version.space["id"]),
        dimension=int(version.space["dimension"]),
        shape=shape(version),
        ndcg=ranking.mean("ndcg") if ranking else None,
        recall=ranking.mean("recall") if ranking else None,
    )


def _most_changed(first: Version, second: Version, answers: _Answers) -> list[Changed]:
    """The queries with the least overlap, those that are the same left out."""
    shares = [overlap([hit.key for hit in a], [hit.key for hit in b]) for a, b in zip(answers.a, answers.b, strict=True)]
    order = sorted((share, place) for place, share in enumerate(shares) if share is not None and share < 1)
    return [
        Changed(answers.queries[place], share, _answers(first, answers.a[place]), _answers(second, answers.b[place]))
        for share, place in order[:CHANGED]
    ]


def _answers(version: Version, hits: Sequence[Hit]) -> list[Answer]:
    if not hits:
        return []
    rows = take(version.vectors, _addresses([hit.address for hit in hits]), ["chunk_id", "doc_id", "text"]).to_pylist()
    return [Answer(row["chunk_id"], row["doc_id"], round(hit.score, 6), row["text"][:TEXT]) for row, hit in zip(rows, hits, strict=True)]


def _texts(version: Version, places: Sequence[int]) -> list[str]:
    """The beginnings of the texts at some addresses."""
    if not places:
        return []
    return [text[:TEXT] for text in take(version.vectors, _addresses(places), ["text"])["text"].to_pylist()]


def _addresses(places: Sequence[int]) -> np.ndarray:
    return np.array(places, dtype=np.uint64)
