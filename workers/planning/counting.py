"""By what chunks are counted: the tokenizer that the loaded model has."""

import importlib.metadata
from pathlib import Path

from pipelines.chunking.tokens import ModelTokenizer, Tokenizer, WordTokenizer
from pipelines.fingerprint import fingerprint
from pipelines.spaces.model_weights import sha256_of
from pipelines.spaces.space import Model
from storage.collection import Collection
from storage.tables.chunk_table import keep_loaded, keep_tokenizer, kept_tokenizer, loaded_identity

AS_IT_LIES = frozenset({"2250fd526432cdb3dde5f5561f1a0edc"})
"""Files of models, as `_files` names them, whose `tokenizer.json` was seen to be what is loaded: those of the default model."""
LIBRARIES = ("tokenizers", "transformers", "sentence-transformers")
"""What loads a tokenizer: another version may load another one."""


def tokenizer_of(model: Model) -> Tokenizer:
    """The one in the model's folder; words for the stand-in, which has none."""
    return ModelTokenizer.at(model.tokenizer_file) if model.tokenizer_file else WordTokenizer()


class Counting:
    """The tokenizers of the models of a collection as they are loaded. What it took to load them is done once for a collection."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._looks: dict[str, ModelTokenizer] = {}

    def tokenizer(self, model: Model) -> Tokenizer:
        """That of `model`: the one in its folder, if that counts alike. Raises ModelError if it cannot be loaded."""
        lying = tokenizer_of(model)
        if model.tokenizer_file is None or not isinstance(lying, ModelTokenizer):
            return lying
        files = _files(Path(model.tokenizer_file).parent)
        if files in AS_IT_LIES:
            return lying
        key = fingerprint({"files": files, **{library: importlib.metadata.version(library) for library in LIBRARIES}})
        return self._looks.get(key) or self._kept(key, lying) or self._look(key, model, lying)

    def _kept(self, key: str, lying: ModelTokenizer) -> ModelTokenizer | None:
        identity = loaded_identity(self._collection, key)
        if identity in (None, lying.identity):
            return lying if identity else None
        content = kept_tokenizer(self._collection, str(identity))
        return ModelTokenizer(content) if content else None

    def _look(self, key: str, model: Model, lying: ModelTokenizer) -> ModelTokenizer:
        from workers.encoders.text.loaded_tokenizer import tokenizer_as_loaded  # takes seconds

        content = tokenizer_as_loaded(model, lying.content)
        self._looks[key] = lying if content == lying.content else ModelTokenizer(content)
        return self._looks[key]

    def keep(self) -> None:
        """Spare the next run the look."""
        for key, tokenizer in self._looks.items():
            keep_tokenizer(self._collection, tokenizer.identity, tokenizer.content)
            keep_loaded(self._collection, key, tokenizer.identity)


def _files(folder: Path) -> str:
    """A hash of the small files beside the weights: any of them may tell a loader how to tokenise."""
    kinds = {".json", ".txt", ".model", ".py"}
    files = [file for file in sorted(folder.iterdir()) if file.suffix in kinds and not file.name.endswith(".index.json")]
    return fingerprint({file.name: sha256_of(file) for file in files if file.is_file()})
