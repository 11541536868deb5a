"""An embedding space, and a model as it was found: what decides the vector of a text."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipelines.fingerprint import fingerprint
from pipelines.spaces.seal import Seal
from pipelines.spec.declared import ModelSpec

Role = Literal["document", "query"]
"""What an item is to a model: what is searched, or what is searched for. Many were trained with another prompt for each."""

STAND_IN = "hash"
"""The name of the model that needs none: its vectors are computed from the content alone."""

STAND_IN_ALGORITHM = "blake2b-splitmix64-int16"
"""Stands where the hash of the weights would. Another algorithm needs another name."""


@dataclass(frozen=True, slots=True)
class Space:
    """An embedding space: everything that decides the vector of an input, and nothing else. Vectors of two spaces never mix."""

    weights_sha256: str
    """SHA-256 of the safetensors file; of several, of the sorted lines "name sha256". The stand-in's algorithm."""
    tokenizer_sha256: str
    """SHA-256 of `tokenizer.json` and of the settings beside it that change tokens."""
    modules: str
    """Fingerprint of the architecture: the config of the model and of each module, and custom code where it is allowed."""
    pooling: str
    """How token vectors become one: "mean", "cls", "max", ..., several joined by "+"."""
    prompt: str
    """Put before every document."""
    max_tokens: int
    """The longest input, special tokens included; the rest is cut off."""
    normalize: bool
    """Whether vectors are scaled to unit length, after they were cut to `dimension`."""
    dimension: int
    """Numbers of a vector; fewer than the model's own are the first ones."""
    dtype: str
    """Of a number as stored: "float16" or "float32"."""

    def derives_from(self, other: Mapping[str, Any]) -> bool:
        """Whether vectors of the space `other` (of `to_dict`) become vectors of this one without the model: cut (Matryoshka; Kusupati et
        al., 2022), scaled or rounded."""
        own = self.to_dict()
        same = all(other.get(name) == own[name] for name in own.keys() - {"dimension", "normalize", "dtype"})
        finer = (other["dtype"], self.dtype) != ("float16", "float32")
        return same and finer and other["dimension"] >= self.dimension and (self.normalize or not other["normalize"])

    @property
    def id(self) -> str:
        """16 hexadecimal digits that name the space."""
        return fingerprint(self.to_dict())[:16]

    def to_dict(self) -> dict[str, Any]:
        """The literals that the id is the fingerprint of, and that generations keep."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Model:
    """A model that was found on this machine."""

    spec: ModelSpec
    """As it was asked for; of one from the hub with the commit that was found."""
    folder: str | None
    """Where its files are; None for the stand-in."""
    revision: str | None
    """The hub's commit, where it came from the hub."""
    space: Space
    query_prompt: str
    """Put before every query. Not in the space: no stored vector depends on it."""
    tokenizer_file: str | None
    """Its `tokenizer.json`; None for the stand-in."""
    unused_prompts: tuple[str, ...] = ()
    """Names of prompts that it declares for documents, and that are put before none, though the spec does not say so."""
    seal: Seal = field(default_factory=dict, compare=False, repr=False)
    """Of its folder, just before the hashes of the space were taken; empty for the stand-in."""

    @property
    def notes(self) -> list[str]:
        """For a person: what of the model is not used as one would expect."""
        names = " and ".join(map(repr, self.unused_prompts))
        said = f"declares a prompt {names} for documents that is not used: set model.prompt to its text, or to an empty one"
        return [f"{self.spec.name} {said}"] if names else []

    def prompt(self, role: Role) -> str:
        """What is put before a text."""
        return self.query_prompt if role == "query" else self.space.prompt
