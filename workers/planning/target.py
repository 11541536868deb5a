"""What a spec means on this machine: the models found, the chunker made, the tables named. Nothing of the corpus is read yet."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.chunking.chunker import Chunker
from pipelines.chunking.making import VERSION, make_chunker, restore_chunker
from pipelines.chunking.tokens import ModelTokenizer, Tokenizer, identity_of
from pipelines.content.source import Source
from pipelines.errors import SpecError
from pipelines.fingerprint import fingerprint
from pipelines.spaces.resolving import resolve_model
from pipelines.spaces.space import Model
from pipelines.spec.declared import CollectionSpec, ModelSpec, Spec
from storage.collection import Collection
from storage.history.catalog import publications
from storage.sources.opening import open_source
from storage.store.lance import Store, table_meta
from storage.tables.chunk_table import ChunkTable, kept_tokenizer
from storage.tables.generations import Generation
from workers.planning.counting import Counting, tokenizer_of


@dataclass(frozen=True)
class Target:
    """One generation of a collection, resolved."""

    collection: Collection
    spec: CollectionSpec
    model: Model
    chunker: Chunker
    corpus: Source
    counting: Counting = field(compare=False)
    """Of the collection: finds the tokenizers that its models have once they are loaded."""
    candidates: tuple[Model, ...] = ()
    """Of the collection: models of generations that are kept beside the spec's main one."""

    @property
    def store(self) -> Store:
        return self.collection.store

    def allowing_removal(self) -> "Target":
        """The same, where a person has confirmed that any number of documents may go."""
        gates = self.spec.gates.model_copy(update={"max_removed": 1.0})
        return replace(self, spec=self.spec.model_copy(update={"gates": gates}))

    @property
    def reading(self) -> str:
        """Identity of how files become documents: when it changes, every file must be read again.

        The place is part of it: a file of the same name, size and times elsewhere is another file.
        """
        source = self.spec.source.model_dump(include={"id", "text", "metadata", "format", "duplicates"}, mode="json")
        # Only where they are declared: they came later, and nothing is read again for that.
        source |= self.spec.source.model_dump(include={"delimiter", "encoding"}, exclude_defaults=True, mode="json")
        return fingerprint({**source, "limits": self.spec.limits.model_dump(mode="json"), "place": self.spec.source.uri})

    @property
    def chunking(self) -> str:
        """Identity of how documents become chunk rows."""
        return _chunking(self.chunker, self.spec)

    @property
    def chunk_table(self) -> ChunkTable:
        return ChunkTable(self.collection, self.chunking)

    @property
    def generation(self) -> Generation:
        return _generation(self.collection, self.chunking, self.model)

    def chunks_meta(self) -> dict[str, Any]:
        """What the chunk table records of itself."""
        return {
            "chunker": self.chunker.identity,
            "declared": self.spec.chunking.model_dump(mode="json"),
            **self.spec.source.model_dump(include={"metadata"}, mode="json"),
        }

    def generation_meta(self) -> dict[str, Any]:
        """What the generation's table records of itself."""
        space = {"id": self.model.space.id, **self.model.space.to_dict()}
        return {
            "space": space,
            "model": self.model.spec.model_dump(mode="json"),
            "chunking": self.chunking,
            "chunk_table": self.chunk_table.name,
            "chunker": self.chunker.identity,
        }


def resolve_target(spec: Spec, name: str | None) -> Target:
    """The generation that the spec declares. Raises SpecError, ModelError, SourceError."""
    name, declared = spec.collection(name)
    collection = Collection(Store(spec.store), name)
    with naming(name):
        model = resolve_model(declared.model)
        candidates = tuple(_candidate(number, candidate) for number, candidate in enumerate(declared.candidates))
        counting = Counting(collection)
        tokenizer = tokenizer_of(model) if declared.chunking.by == "document" else counting.tokenizer(model)
        chunker = _kept_chunker(collection, declared, model, tokenizer) or _new_chunker(declared, model, tokenizer)
        for candidate in candidates:
            _check_window(chunker, candidate, counting)
        return Target(collection, declared, model, chunker, open_source(declared.source, declared.limits), counting, candidates)


def _candidate(number: int, spec: ModelSpec) -> Model:
    try:
        return resolve_model(spec)
    except SpecError as error:
        raise SpecError(f"candidates.{number}.{str(error).removeprefix('model.')}") from None


@contextmanager
def naming(collection: str) -> Iterator[None]:
    """A SpecError about a key of the collection names the whole key."""
    try:
        yield
    except SpecError as error:
        raise SpecError(f"collections.{collection}.{error}") from None


def _new_chunker(declared: CollectionSpec, model: Model, tokenizer: Tokenizer) -> Chunker:
    window = model.space.max_tokens if model.tokenizer_file else None
    return make_chunker(declared.chunking, tokenizer, window, _prompt_tokens(model, tokenizer))


def _kept_chunker(collection: Collection, declared: CollectionSpec, model: Model, tokenizer: Tokenizer) -> Chunker | None:
    """The chunker of published chunks that were declared alike: their borders and ids stay when the model changes.

    Of several the newest that has vectors of this model, else the newest. None if there are none, or a chunk with what `model` adds might
    not fit its window: also where they were counted by the file of its tokenizer, which counts otherwise than the loaded model does.
    """
    store, fitting = collection.store, []
    mistaken = {identity_of(Path(model.tokenizer_file).read_bytes())} - {tokenizer.identity} if model.tokenizer_file else set()
    for table in dict.fromkeys(row.chunk_table for row in reversed(publications(collection))):
        meta = table_meta(store.open(table)) if store.has(table) else {}
        if meta.get("declared") == declared.chunking.model_dump(mode="json") and meta["chunker"].get("tokenizer") not in mistaken:
            chunker = restored_chunker(collection, meta["chunker"], tokenizer)
            if chunker and _fits(chunker, model, tokenizer):
                fitting.append(chunker)
    embedded = (chunker for chunker in fitting if _generation(collection, _chunking(chunker, declared), model).version is not None)
    return next(embedded, next(iter(fitting), None))


def _chunking(chunker: Chunker, declared: CollectionSpec) -> str:
    metadata = declared.source.model_dump(include={"metadata"}, mode="json")
    return fingerprint({"chunker": chunker.identity, **metadata})


def _generation(collection: Collection, chunking: str, model: Model) -> Generation:
    identity = fingerprint({"chunking": chunking, "space": model.space.id})
    return Generation(collection, collection.table("vectors", identity[:12]))


def restored_chunker(collection: Collection, identity: dict[str, Any], tokenizer: Tokenizer) -> Chunker | None:
    """The chunker of that identity, with the model's `tokenizer` or the one that was kept; None if it cannot be had."""
    if identity["version"] != VERSION:
        return None
    if identity.get("tokenizer") in (None, tokenizer.identity):
        return restore_chunker(identity, tokenizer)
    content = kept_tokenizer(collection, identity["tokenizer"]) if isinstance(tokenizer, ModelTokenizer) else None
    return restore_chunker(identity, ModelTokenizer(content)) if content else None


def _prompt_tokens(model: Model, tokenizer: Tokenizer) -> int:
    prompt = model.space.prompt
    return len(tokenizer.offsets([prompt])[0]) if prompt else 0


def _fits(chunker: Chunker, model: Model, tokenizer: Tokenizer) -> bool:
    """Whether `model` reads the chunks whole, with its special tokens and its prompt."""
    size: int = chunker.identity.get("size", 0)  # whole documents are cut by the model, as they always were
    return not size or size + tokenizer.special_tokens + _prompt_tokens(model, tokenizer) <= model.space.max_tokens


def _check_window(chunker: Chunker, candidate: Model, counting: Counting) -> None:
    size = chunker.identity.get("size")
    if not size:
        return
    tokenizer = counting.tokenizer(candidate)
    if not _fits(chunker, candidate, tokenizer):
        added = tokenizer.special_tokens + _prompt_tokens(candidate, tokenizer)
        raise SpecError(
            f"candidates: expected models that read chunks of {size} tokens and what they add themselves ({added}), found "
            f"{candidate.spec.name} with a window of {candidate.space.max_tokens}"
        )
