"""What a command is about: which collection, by which spec, in which store."""

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING

from pipelines.errors import ModelError
from pipelines.spec.declared import CollectionSpec, Spec
from pipelines.spec.parsing import load_spec

if TYPE_CHECKING:
    from storage.store.lance import Store
    from workers.planning.target import Target

Config = str | PathLike[str] | None


@dataclass(frozen=True)
class Request:
    """The three that every command takes. The spec is read when it is first needed; what needs it raises SpecError."""

    name: str | None = None
    """Of the collection; None: the spec's only one."""
    config: Config = None
    """The spec's file; None: $REVECTOR_CONFIG, or revector.toml here."""
    store: str | None = None
    """A folder or `s3://` URI, instead of the environment's and the spec's."""

    @cached_property
    def spec(self) -> Spec:
        return load_spec(self.config, self.store)

    @property
    def collection(self) -> str:
        return self.spec.collection(self.name)[0]

    @property
    def declared(self) -> CollectionSpec:
        return self.spec.collection(self.name)[1]

    @property
    def opened(self) -> "Store":
        from storage.store.lance import Store

        return Store(self.spec.store)

    @property
    def target(self) -> "Target":
        """Raises ModelError and SourceError, too."""
        from workers.planning.target import resolve_target

        return resolve_target(self.spec, self.name)

    @property
    def chunk_table(self) -> str | None:
        """The chunk table that the spec declares; None where its model, whose tokenizer may have a part in it, is not at hand."""
        try:
            return self.target.chunk_table.name
        except ModelError:
            return None
