"""Queries that people have labelled with the documents that answer them, and how well a version ranks these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.fingerprint import digests
from pipelines.measures.quality import TOP, rank_quality
from storage.history.evaluations import keep_queries, kept_queries
from storage.reading.neighbourhoods import DEPTH, Hit, hits, locate
from storage.reading.neighbours import searched
from storage.sources.labelled import Labelled
from storage.tables.version import Version
from workers.embedding.encoding import Encoding


@dataclass(frozen=True, slots=True)
class Ranking:
    """How a version answers labelled queries."""

    nearest: list[list[Hit]]
    """The nearest documents of each query, at most 10, best first."""
    quality: dict[int, dict[str, float]]
    """`ndcg` and `recall` of each query that has a relevant document here, by its place among the queries."""

    def mean(self, measure: str) -> float:
        """The mean of `measure` ("ndcg" or "recall", 0 to 1) over the queries that can be judged, of which there must be one."""
        return float(np.mean([quality[measure] for quality in self.quality.values()]))


def query_vectors(version: Version, queries: Sequence[str], encoding: Encoding) -> NDArray[np.float32]:
    """Their vectors in the version's space, (n, d). Those that were made before are kept in the store; `encoding` makes the others.

    Raises ModelError if the model is not at hand.
    """
    prompt, space = version.model.query_prompt, str(version.space["id"])
    keys = [bytes(key) for key in digests(pa.array([prompt] * len(queries)), pa.array(queries)).to_pylist()]
    kept = kept_queries(version.collection, space)
    missing = {key: query for key, query in zip(keys, queries, strict=True) if key not in kept}
    if missing:
        kept |= dict(zip(missing, encoding.encode(list(missing.values()), "query"), strict=True))
        keep_queries(version.collection, space, {key: kept[key] for key in keys})
    return np.stack([kept[key] for key in keys])


def held_labels(version: Version, labelled: Sequence[Labelled]) -> dict[int, frozenset[str]]:
    """The relevant documents that the version holds, for each query that has some, by its place."""
    held = locate(version.vectors, "doc_id", {document for query in labelled for document in query.relevant}).keys()
    return {place: relevant for place, query in enumerate(labelled) if (relevant := query.relevant & held)}


def rank(version: Version, labelled: Sequence[Labelled], labels: Mapping[int, frozenset[str]], encoding: Encoding) -> Ranking:
    """Search for each query as a reader does, and hold the documents that are found against `labels`."""
    vectors = query_vectors(version, [query.query for query in labelled], encoding)
    nearest = [documents[:TOP] for documents in hits(version.vectors, searched(version.vectors, vectors, DEPTH), "doc_id")]
    documents = {str(place): [str(hit.key) for hit in nearest[place]] for place in labels}
    quality = rank_quality({str(place): relevant for place, relevant in labels.items()}, documents)
    return Ranking(nearest, {place: quality[str(place)] for place in labels})
