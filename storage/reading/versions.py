"""Versions of a generation by name: what readers have, and what runs have finished."""

from pipelines.spaces.space import Model
from pipelines.spec.declared import ModelSpec
from storage.collection import Collection
from storage.history.built import built_there
from storage.history.catalog import Publication, kept_publications, published_there
from storage.store.lance import Store, table_meta
from storage.tables.generations import generations, named
from storage.tables.version import Version

PUBLISHED = "published"
"""Names what readers have."""


def version_of(store: Store, row: Publication, known: tuple[Model, ...] = ()) -> Version:
    """What a publication points to. `known`: models at hand."""
    recorded = ModelSpec(**row.model_spec())
    return Version(Collection(store, row.collection), row.generation, row.version, row.chunk_table, row.chunk_version, recorded, known)


def find_version(collection: Collection, name: str, known: tuple[Model, ...]) -> Version:
    """What readers have (PUBLISHED), or the newest finished version of the generation called `name`; if none was, its newest of all.

    `name`: as `status` lists it, or a beginning of its last part. Raises NotFound.
    """
    store = collection.store
    if name == PUBLISHED:
        return version_of(store, published_there(collection), known)
    generation = named(collection, [generation.name for generation in generations(collection)], name)
    if finished := finished_versions(collection, generation):
        return version_of(store, max(finished, key=lambda row: row.version), known)
    vectors = store.open(generation)
    meta = table_meta(vectors)
    chunk_table, recorded = str(meta["chunk_table"]), ModelSpec(**meta["model"])
    return Version(collection, generation, vectors.version, chunk_table, store.open(chunk_table).version, recorded, known)


def finished_versions(collection: Collection, generation: str) -> list[Publication]:
    """The versions of a generation that were published and are there, oldest first, and then the one that a run finished last."""
    built = built_there(collection, generation)
    rows = [row for row in kept_publications(collection) if row.generation == generation]
    return [*rows, built.publication] if built else rows
