"""One version of a generation as something to be judged: its two tables, and the model that made it."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines.errors import ModelError, SpecError
from pipelines.spaces.resolving import resolve_model
from pipelines.spaces.space import STAND_IN_ALGORITHM, Model
from pipelines.spec.declared import CollectionSpec, ModelSpec
from storage.history.catalog import Publication, published
from storage.reading.versions import PUBLISHED, finished_versions
from storage.store.lance import Store, table_meta
from storage.tables.generations import generations, named


@dataclass(frozen=True)
class Subject:
    """A version of a generation, and of the chunk table that it follows."""

    store: Store
    spec: CollectionSpec
    """Gates and workers of the collection, as they are declared now."""
    generation: str
    version: int
    chunk_table: str
    chunk_version: int
    known: tuple[Model, ...] = ()
    """Models at hand, which go before the one that is declared: it may lie elsewhere by now."""
    declared: dict[str, Any] | None = None
    """The model as a ModelSpec; None: as the generation's table names it."""

    @property
    def collection(self) -> str:
        return self.generation.partition(".")[0]

    @cached_property
    def vectors(self) -> Any:
        """The vectors table, a LanceDataset at the version."""
        return self.store.open(self.generation, self.version)

    @cached_property
    def chunks(self) -> Any:
        """The chunk table, a LanceDataset at the version."""
        return self.store.open(self.chunk_table, self.chunk_version)

    @cached_property
    def space(self) -> dict[str, Any]:
        """As the table records it: `id`, `normalize`, `weights_sha256` ..."""
        return dict(table_meta(self.vectors)["space"])

    @property
    def meaningless(self) -> bool:
        """Whether the vectors are the stand-in's."""
        return bool(self.space["weights_sha256"] == STAND_IN_ALGORITHM)

    @cached_property
    def model(self) -> Model:
        """Raises ModelError if it is not at hand."""
        return model_of(str(self.space["id"]), ModelSpec(**(self.declared or table_meta(self.vectors)["model"])), self.known)


def published_subject(store: Store, spec: CollectionSpec, row: Publication, known: tuple[Model, ...]) -> Subject:
    """What a publication points to."""
    return Subject(store, spec, row.generation, row.version, row.chunk_table, row.chunk_version, known, row.model_spec())


def find_subject(store: Store, spec: CollectionSpec, collection: str, name: str, known: tuple[Model, ...]) -> Subject:
    """What readers have (PUBLISHED), or the newest finished version of the generation called `name`; if none was, its newest of all.

    `name`: as `status` lists it, or a beginning of its last part. Raises NotFound.
    """
    if name == PUBLISHED:
        return published_subject(store, spec, published(store, collection), known)
    generation = named(collection, [generation.name for generation in generations(store, collection)], name)
    finished = finished_versions(store, collection, generation)
    if finished:
        return published_subject(store, spec, max(finished, key=lambda row: row.version), known)
    vectors = store.open(generation)
    chunk_table = str(table_meta(vectors)["chunk_table"])
    return Subject(store, spec, generation, vectors.version, chunk_table, store.open(chunk_table).version, known)


def known_models(specs: Iterable[ModelSpec]) -> Iterator[Model]:
    """Those of `specs` that this machine has, found one by one."""
    for each in specs:
        with suppress(ModelError, SpecError):
            yield resolve_model(each)


def model_of(space: str, recorded: ModelSpec, known: Iterable[Model]) -> Model:
    """The model of a space, with the query prompt that is `recorded`: one of `known`, wherever it lies by now, or where it was.

    Code that comes with a model is run if the reader's own spec allows it, never because the store says so. Raises ModelError if the
    model is not there any more.
    """
    for model in known:
        if model.space.id == space:
            same = model.spec.query_prompt == recorded.query_prompt
            return model if same else resolve_model(model.spec.model_copy(update={"query_prompt": recorded.query_prompt}))
    model = resolve_model(recorded.model_copy(update={"trust_remote_code": False}))
    if model.space.id != space:
        raise ModelError(
            f"expected the model of space {space} ({model.spec.name}), found one of {model.space.id}: were its files replaced?"
        )
    return model
