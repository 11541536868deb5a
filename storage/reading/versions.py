"""Versions of a generation by name: what readers have, and what runs have finished."""

from collections.abc import Sequence

from pipelines.errors import NotFound
from pipelines.spaces.space import Model
from pipelines.spec.declared import ModelSpec
from storage.collection import Collection, own_part
from storage.history.built import built_there, find_built
from storage.history.catalog import Publication, is_there, kept_publications, published_there
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
    return _latest(collection, generation, known)


def _latest(collection: Collection, generation: str, known: tuple[Model, ...]) -> Version:
    """What a run that did not finish left."""
    store = collection.store
    vectors = store.open(generation)
    meta = table_meta(vectors)
    chunk_table, recorded = str(meta["chunk_table"]), ModelSpec(**meta["model"])
    return Version(collection, generation, vectors.version, chunk_table, store.open(chunk_table).version, recorded, known)


def finished_versions(collection: Collection, generation: str) -> list[Publication]:
    """The versions of a generation that were published and are there, oldest first, and then the one that a run finished last."""
    built = built_there(collection, generation)
    rows = [row for row in kept_publications(collection) if row.generation == generation]
    return [*rows, built.publication] if built else rows


def choose_version(collection: Collection, history: Sequence[Publication], name: str = PUBLISHED) -> Version:
    """What readers have (PUBLISHED), the newest version of a generation (by its name), or a certain one: `4988a594c857@105`.

    `history`: the publications of the collection, oldest first. Only what is chosen is looked for in the store, however long that is.
    Raises NotFound.
    """
    part, certain, number = name.partition("@")
    if name == PUBLISHED:
        rows = list(history[-1:])
    else:
        generation = _generation(collection, history, part)
        built = find_built(collection, generation)
        finished = [row for row in history if row.generation == generation and not row.removed] + ([built.publication] if built else [])
        rows = [row for row in finished if not certain or str(row.version) == number]
        if not rows and not certain:
            return _latest(collection, generation, ())
    newest = max(rows, key=lambda row: row.version, default=None)
    if newest is None or not is_there(collection.store, newest):
        raise NotFound(f"expected a version of {collection} that is in the store, found none for {name[:100]!r}")
    return version_of(collection.store, newest)


def version_name(generation: str, number: int) -> str:
    """By which `choose_version` finds it."""
    return f"{own_part(generation)}@{number}"


def _generation(collection: Collection, history: Sequence[Publication], name: str) -> str:
    published = {row.generation for row in history}
    tables = () if name in published else (generation.name for generation in generations(collection))
    return named(collection, published.union(tables), name)
