"""From a version to an atlas of its generation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import NotFound
from pipelines.measures.quality import unit
from storage.reading.neighbours import sample, vectors_at
from storage.reports.atlas import Atlas, find_atlas, forget_atlas, keep_atlas, newest_atlas
from storage.store.lance import ROW_ADDRESS, take
from storage.tables.checksums import commit_of
from storage.tables.version import Version
from workers.observing.telling import Progress, Report
from workers.reports.atlas.graph import K, graph

LANDMARKS = 25_000


def fit_atlas(version: Version, report: Report) -> Atlas:
    """A new atlas of the version's generation, kept. Raises NotFound if the version was taken away meanwhile: its vectors must not outlive
    an erasure."""
    collection, generation = version.collection, version.generation
    before = newest_atlas(collection, generation)
    report(Progress("map"))
    number = before.number + 1 if before else 1
    commit = commit_of(version.vectors)
    keep_atlas(collection, generation, make_atlas(version, number, before))
    try:
        still = commit_of(collection.store.open(generation, version.number)) == commit
    except NotFound:
        still = False
    if not still:
        forget_atlas(collection, generation, number)
        raise NotFound(f"expected {version} to stay while it was read, found it gone: run again")
    kept = find_atlas(collection, generation, number)  # as everybody will read it: numbers are rounded, and another may have been faster
    if kept is None:
        raise NotFound(f"expected atlas {number} of {generation}, found it gone: run again")
    return kept


def make_atlas(version: Version, number: int, before: Atlas | None) -> Atlas:
    """Of a sample of the contents of `version`. `before`: whose places, clusters and names are kept as far as its landmarks are there."""
    rows = sample(version.vectors, LANDMARKS)
    vectors = unit(vectors_at(version.vectors, rows[ROW_ADDRESS].to_numpy()))
    usable = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
    rows, vectors = rows.filter(usable), vectors[usable].astype(np.float16).astype(np.float32)
    texts = take(version.vectors, rows[ROW_ADDRESS].to_numpy(), ["text"])["text"].to_pylist()
    near = graph(vectors)
    clusters = np.zeros(len(rows), np.int32)
    return Atlas(
        number=number,
        version=version.number,
        ids=tuple(rows["chunk_id"].to_pylist()),
        hashes=rows["content_hash"].combine_chunks(),
        vectors=vectors,
        neighbours=_padded(near.places, -1),
        cosines=_padded(near.cosines, 0),
        places=_plane(vectors),
        clusters=clusters,
        names={0: "all"} if texts else {},
    )


def _padded(columns: NDArray[Any], with_: int) -> NDArray[Any]:
    """With K columns, where there are fewer landmarks than that."""
    return np.pad(columns, ((0, 0), (0, K - columns.shape[1])), constant_values=with_)


def _plane(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The two main directions. (For now.)"""
    centred = vectors - vectors.mean(axis=0) if len(vectors) else vectors
    _, directions = np.linalg.eigh(centred.T @ centred)
    return np.asarray(centred @ directions[:, :-3:-1], np.float32)
