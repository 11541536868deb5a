"""From a version to an atlas of its generation."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.content.chunks import metadata_type
from pipelines.errors import NotFound
from pipelines.measures.quality import unit
from storage.reading.neighbours import sample, vectors_at
from storage.reports.atlas import Atlas, find_atlas, forget_atlas, keep_atlas, newest_atlas
from storage.reports.kept_reports import reported_generations
from storage.store.lance import ROW_ADDRESS, take
from storage.tables.checksums import commit_of
from storage.tables.version import Version
from workers.observing.telling import Progress, Report
from workers.reports.atlas.communities import communities, kept_numbers
from workers.reports.atlas.graph import K, Near, graph
from workers.reports.atlas.layout import PERPLEXITY, layout
from workers.reports.atlas.naming import cluster_names

LANDMARKS = 25_000
SHARED = 0.5
"""Of the landmarks that must have a place in the map of another generation, if theirs is to begin from there."""
LAID = 3 * PERPLEXITY
"""Neighbours that the places hang on."""


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
    """Of a sample of the contents of `version`. `before`: whose places, clusters and names are kept as far as its landmarks are there.

    Where there is none before, places begin from those of another generation, so that two models can be seen on one map.
    """
    rows = sample(version.vectors, LANDMARKS)
    vectors = unit(vectors_at(version.vectors, rows[ROW_ADDRESS].to_numpy()))
    usable = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
    rows, vectors = rows.filter(usable), vectors[usable].astype(np.float16).astype(np.float32)
    hashes = rows["content_hash"].combine_chunks()
    _, clusters = _earlier(before, hashes)
    places, _ = _earlier(before or _another(version, hashes), hashes)
    near = graph(vectors, LAID)
    closest = Near(near.places[:, :K], near.cosines[:, :K])
    found = communities(closest, clusters if before else None)
    numbers = kept_numbers(found, clusters, number)
    said = take(
        version.vectors, rows[ROW_ADDRESS].to_numpy(), [name for name in ("text", "metadata") if name in version.vectors.schema.names]
    )
    fields = {field.name: pc.struct_field(said["metadata"], [field.name]).to_pylist() for field in metadata_type(said.schema) or ()}
    names = cluster_names(said["text"].to_pylist(), fields, found.tolist(), _kept_names(numbers, before))
    return Atlas(
        number=number,
        version=version.number,
        ids=tuple(rows["chunk_id"].to_pylist()),
        hashes=hashes,
        vectors=vectors,
        neighbours=closest.places,
        cosines=closest.cosines,
        places=layout(vectors, near, places),
        clusters=np.array([numbers[cluster] for cluster in found.tolist()], np.int32),
        names={numbers[cluster]: name for cluster, name in names.items()},
    )


def _another(version: Version, hashes: pa.Array) -> Atlas | None:
    """The atlas of another generation that has most of the contents, if that is half of them."""
    collection, wanted = version.collection, set(hashes.to_pylist())
    others = [newest_atlas(collection, name) for name in reported_generations(collection) if name != version.generation]
    shared = [(len(wanted.intersection(atlas.hashes.to_pylist())), -place) for place, atlas in enumerate(others) if atlas]
    most, place = max(shared, default=(0, 0))
    return others[-place] if wanted and most >= SHARED * len(wanted) else None


def _earlier(before: Atlas | None, hashes: pa.Array) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Places (n, 2) and clusters (n,) that contents had in an atlas; no number, and -1, where they were in none."""
    places, clusters = np.full((len(hashes), 2), np.nan, np.float32), np.full(len(hashes), -1, np.int32)
    if before is not None:
        where = {content: place for place, content in enumerate(before.hashes.to_pylist())}
        found = np.array([where.get(content, -1) for content in hashes.to_pylist()], np.int64)
        places[found >= 0], clusters[found >= 0] = before.places[found[found >= 0]], before.clusters[found[found >= 0]]
    return places, clusters


def _kept_names(numbers: Mapping[int, int], before: Atlas | None) -> dict[int, str]:
    """The names of clusters that have kept their numbers, by what they are in the new atlas."""
    return {cluster: before.names[number] for cluster, number in numbers.items() if before and number in before.names}
