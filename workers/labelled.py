"""Queries that people have labelled with the documents that answer them, and how well a version ranks these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.errors import SpecError
from pipelines.fingerprint import digests
from pipelines.quality import TOP, rank_quality
from storage.evaluations import keep_queries, kept_queries
from storage.neighbourhoods import DEPTH, Hit, hits, locate
from storage.neighbours import searched
from storage.objects import Objects
from workers.encoding import Encoding
from workers.subject import Subject


@dataclass(frozen=True, slots=True)
class Labelled:
    """One line of the file."""

    query: str
    relevant: frozenset[str]
    """Ids of the documents that answer it."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """How a version answers labelled queries."""

    found: list[list[Hit]]
    """The nearest documents of each query, at most 10, best first."""
    quality: dict[int, dict[str, float]]
    """`ndcg` and `recall` of each query that has a relevant document here, by its place among the queries."""

    def mean(self, measure: str) -> float:
        """Of `measure` over the queries that can be judged, at least one."""
        return float(np.mean([quality[measure] for quality in self.quality.values()]))


def load_labelled(uri: str) -> list[Labelled]:
    """The queries in a file of JSON lines. Raises SpecError that names the file and the line."""
    path = PurePosixPath(uri.removeprefix("s3://"))
    scheme = "s3://" if uri.startswith("s3://") else ""
    content = Objects(f"{scheme}{path.parent}").get(path.name)
    if content is None:
        raise SpecError(f"gates.queries: expected a file of JSON lines at {uri}, found none")
    lines = [(number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    if not lines:
        raise SpecError(f"gates.queries: expected queries in {uri}, found none")
    return [_labelled(line, f"{uri}:{number}") for number, line in lines]


def _labelled(line: bytes, place: str) -> Labelled:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise SpecError(f"gates.queries: {place}: expected a JSON object, found {error.msg}") from None
    fields = record if isinstance(record, dict) else {}
    query, relevant = fields.get("query"), fields.get("relevant")
    if not isinstance(query, str) or not query.strip():
        raise SpecError(f'gates.queries: {place}: expected a text under "query", found {_found(query)}')
    if not isinstance(relevant, list) or not relevant or not all(isinstance(each, str | int) for each in relevant):
        raise SpecError(f'gates.queries: {place}: expected a list of document ids under "relevant", found {_found(relevant)}')
    return Labelled(query, frozenset(map(str, relevant)))


def _found(value: object) -> str:
    return "none" if value is None else orjson.dumps(value).decode()[:80]


def query_vectors(subject: Subject, queries: Sequence[str], encoding: Encoding) -> NDArray[np.float32]:
    """Their vectors in the subject's space, (n, d). Those that were made before are kept in the store; `encoding` makes the others.

    Raises ModelError if the model is not at hand.
    """
    prompt, space = subject.model.query_prompt, str(subject.space["id"])
    keys = [bytes(key) for key in digests(pa.array([prompt] * len(queries)), pa.array(queries)).to_pylist()]
    kept = kept_queries(subject.store, subject.collection, space)
    missing = {key: query for key, query in zip(keys, queries, strict=True) if key not in kept}
    if missing:
        kept |= dict(zip(missing, encoding.queries(list(missing.values())), strict=True))
        keep_queries(subject.store, subject.collection, space, {key: kept[key] for key in keys})
    return np.stack([kept[key] for key in keys])


def held_labels(subject: Subject, labelled: Sequence[Labelled]) -> dict[int, frozenset[str]]:
    """The relevant documents that the version holds, for each query that has some, by its place."""
    held = locate(subject.vectors, "doc_id", {document for each in labelled for document in each.relevant}).keys()
    return {place: found for place, each in enumerate(labelled) if (found := each.relevant & held)}


def rank(subject: Subject, labelled: Sequence[Labelled], labels: Mapping[int, frozenset[str]], encoding: Encoding) -> Ranking:
    """Search for each query as a reader does, and hold the documents that are found against `labels`."""
    vectors = query_vectors(subject, [each.query for each in labelled], encoding)
    found = [each[:TOP] for each in hits(subject.vectors, searched(subject.vectors, vectors, DEPTH), "doc_id")]
    documents = {str(place): [str(hit.key) for hit in found[place]] for place in labels}
    quality = rank_quality({str(place): relevant for place, relevant in labels.items()}, documents)
    return Ranking(found, {place: quality[str(place)] for place in labels})
