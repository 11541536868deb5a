"""One state of a generation, open: its two tables, each at a version, and the model that made its vectors."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines.spaces.known import model_of
from pipelines.spaces.space import STAND_IN_ALGORITHM, Model
from pipelines.spec.declared import ModelSpec
from storage.collection import Collection
from storage.store.lance import table_meta


@dataclass(frozen=True)
class Version:
    """A version of a generation, and of the chunk table that it follows."""

    collection: Collection
    generation: str
    number: int
    """Of the vectors table."""
    chunk_table: str
    chunk_version: int
    recorded: ModelSpec
    """The model, as it was called when the version was made."""
    known: tuple[Model, ...] = ()
    """Models at hand, which go before the one that is recorded: it may lie elsewhere by now."""

    def __str__(self) -> str:
        return f"version {self.number} of {self.generation}"

    @cached_property
    def vectors(self) -> Any:
        """The vectors table, a LanceDataset at the version."""
        return self.collection.store.open(self.generation, self.number)

    @cached_property
    def chunks(self) -> Any:
        """The chunk table, a LanceDataset at the version."""
        return self.collection.store.open(self.chunk_table, self.chunk_version)

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
        """The model of the version's space. Raises ModelError if it is not at hand."""
        return model_of(str(self.space["id"]), self.recorded, self.known)
