"""What a spec means on this machine: the model found, the chunker made, the tables named. Nothing is read or written yet."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines.chunking import Chunker, make_chunker
from pipelines.documents import Corpus
from pipelines.fingerprint import fingerprint
from pipelines.models import Model, resolve_model
from pipelines.spec import CollectionSpec, Spec
from pipelines.tokens import ModelTokenizer, Tokenizer, WordTokenizer
from storage.chunks import ChunkTable
from storage.corpus import open_corpus
from storage.tables import Store
from storage.vectors import Generation


@dataclass(frozen=True)
class Target:
    """One collection, resolved."""

    store: Store
    collection: str
    spec: CollectionSpec
    model: Model
    chunker: Chunker

    @cached_property
    def corpus(self) -> Corpus:
        return open_corpus(self.spec.source)

    @property
    def reading(self) -> str:
        """Identity of how files become documents: when it changes, every file must be read again."""
        return fingerprint(self.spec.source.model_dump(include={"id", "text", "metadata", "format", "duplicates"}, mode="json"))

    @property
    def chunking(self) -> str:
        """Identity of how documents become chunk rows."""
        return fingerprint({"chunker": self.chunker.identity, "metadata": list(self.spec.source.metadata)})

    @property
    def chunk_table(self) -> ChunkTable:
        return ChunkTable(self.store, self.collection, self.chunking)

    @property
    def generation(self) -> Generation:
        identity = fingerprint({"chunking": self.chunking, "space": self.model.space.id})
        return Generation(self.store, f"{self.collection}.vectors.{identity[:12]}")

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
    """Raises SpecError, ModelError."""
    collection, declared = spec.collection(name)
    model = resolve_model(declared.model)
    tokenizer: Tokenizer = ModelTokenizer(model.tokenizer_file) if model.tokenizer_file else WordTokenizer()
    prompt = model.space.prompt
    prompt_tokens = len(tokenizer.offsets([prompt])[0]) if prompt else 0
    window = model.space.max_tokens if model.tokenizer_file else None
    chunker = make_chunker(declared.chunking, tokenizer, window, prompt_tokens)
    return Target(Store(spec.store), collection, declared, model, chunker)
