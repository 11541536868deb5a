"""What a command is about: which collection, by which spec, in which store."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import ModelError, SpecError
from pipelines.spec.declared import CollectionSpec, Spec
from pipelines.spec.keys import nearest
from pipelines.spec.parsing import DEFAULT_CONFIG, check_name, chosen_store, load_spec, spec_file
from pipelines.spec.running import MartsSpec

if TYPE_CHECKING:
    from storage.collection import Collection
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

    @cached_property
    def opened(self) -> "Store":
        """No spec is needed where the store is named without one: what is published does not depend on what is declared."""
        from storage.store.lance import Store

        return Store(chosen_store(self.store) or self.spec.store)

    @property
    def declared(self) -> CollectionSpec:
        return self.spec.collection(self.name)[1]

    def marts_of(self, collection: str) -> MartsSpec:
        """Where else its marts go. Nowhere without a spec, or with one that is wrong: who moves a pointer needs none."""
        try:
            declared = self.collections.get(collection)
        except SpecError:
            declared = None
        return declared.marts if declared else MartsSpec()

    @property
    def collections(self) -> Mapping[str, CollectionSpec]:
        """All that are declared; none where the store is named, and there is no spec, nor the name of one."""
        unnamed = self.config is None and spec_file() == Path(DEFAULT_CONFIG)
        nowhere = unnamed and chosen_store(self.store) and not spec_file().exists()
        return {} if nowhere else self.spec.collections

    @property
    def collection(self) -> str:
        """Whatever may be called so, there or not; without a name the only one of the spec."""
        return check_name(self.name) if self.name is not None else self.spec.collection(None)[0]

    @property
    def stored(self) -> "Collection":
        """The same, in its store."""
        from storage.collection import Collection

        return Collection(self.opened, self.collection)

    @property
    def known(self) -> "Collection":
        """The same, of one that is there: in the store, or in the spec. Raises SpecError for another."""
        from storage.collection import collections

        name, stored = self.collection, [collection.name for collection in collections(self.opened)]
        if name not in stored and name not in self.collections:
            names = sorted({*self.collections, *stored})
            raise SpecError(f"expected one of {', '.join(names) or 'none'}, found {name!r}{nearest(name, names)}")
        return self.stored

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
