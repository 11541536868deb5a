"""What a spec means on this machine: the model found, the chunker made, the tables named. Nothing is read or written yet."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipelines.chunking import Chunker, make_chunker
from pipelines.documents import Corpus
from pipelines.errors import SpecError
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
    corpus: Corpus

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
    """Raises SpecError, ModelError, SourceError."""
    collection, declared = spec.collection(name)
    with naming(collection):
        model = resolve_model(declared.model)
        return Target(Store(spec.store), collection, declared, model, _chunker(declared, model), open_corpus(declared.source))


@contextmanager
def naming(collection: str) -> Iterator[None]:
    """A SpecError about a key of the collection names the whole key."""
    try:
        yield
    except SpecError as error:
        raise SpecError(f"collections.{collection}.{error}") from None


def _chunker(declared: CollectionSpec, model: Model) -> Chunker:
    tokenizer: Tokenizer = ModelTokenizer(model.tokenizer_file) if model.tokenizer_file else WordTokenizer()
    prompt = model.space.prompt
    prompt_tokens = len(tokenizer.offsets([prompt])[0]) if prompt else 0
    window = model.space.max_tokens if model.tokenizer_file else None
    return make_chunker(declared.chunking, tokenizer, window, prompt_tokens)
