"""What a model is: where it lies on this machine, and the embedding space that its bytes and the spec make. Loads nothing.

The extension point for where models come from is RESOLVERS.
"""

from collections.abc import Callable
from pathlib import Path

from pipelines.chunking.tokens import ModelTokenizer
from pipelines.errors import ModelError, SpecError
from pipelines.spaces.finding import PACKAGED, hub_snapshot, installed_package
from pipelines.spaces.model_folder import Contents, read_folder
from pipelines.spaces.seal import seal_of, touched
from pipelines.spaces.space import STAND_IN, Model, Space
from pipelines.spaces.stand_in import stand_in_model
from pipelines.spec.declared import ModelSpec

Resolver = Callable[[ModelSpec], Model | None]
"""Finds the model that a spec names and the space that it makes, in one kind of place; None: the spec names none there.

Raises ModelError if the model is missing, unsafe or not what its hash says, SpecError if the spec asks what it cannot do.
"""


def resolve_model(spec: ModelSpec) -> Model:
    """Find the model of `spec`, and the space that it makes: the stand-in, a folder by its absolute
    path, an installed package, or the hub.

    The same bytes and settings make the same space under any name and path. A folder or a package is read without a socket.
    Raises ModelError if the model is missing, unsafe or not what its hash says, SpecError if the spec asks what it cannot do.
    """
    model = next(model for resolver in RESOLVERS if (model := resolver(spec)) is not None)
    return _check_weights(model, spec.sha256)


def as_hashed(model: Model) -> Model:
    """`model`, if its files are those that its space was made of: hashed again where one was touched since then, else only looked at.

    Raises ModelError, which names the file, if they are others.
    """
    if model.folder is None:
        return model
    folder = Path(model.folder)
    if not folder.is_dir():
        raise ModelError(f"expected the model at {folder}, found none: resolve it on the machine that loads it")
    now = seal_of(folder)
    if now == model.seal:
        return model
    again = _from_folder(model.spec, folder, model.revision)
    if (again.space, again.query_prompt) != (model.space, model.query_prompt):
        name, *others = touched(model.seal, now) or ["."]
        more = f" and {len(others)} more" if others else ""
        raise ModelError(
            f"{folder / name}: expected it as it was when it was hashed, found it replaced since then{more}: "
            "run again, and give another model a folder of its own"
        )
    return again


def _stand_in(spec: ModelSpec) -> Model | None:
    return stand_in_model(spec) if spec.name == STAND_IN else None


def _folder(spec: ModelSpec) -> Model | None:
    folder = Path(spec.name)
    return _from_folder(spec, folder) if folder.is_absolute() else None


def _package(spec: ModelSpec) -> Model | None:
    package = PACKAGED.get(spec.name)
    # a package cannot tell which revision it was made of
    if package is None or spec.revision is not None or (folder := installed_package(package)) is None:
        return None
    return _check_weights(_from_folder(spec, folder), spec.sha256 or package.sha256)


def _hub(spec: ModelSpec) -> Model:
    """The last to be asked: whatever is found nowhere else is looked for there."""
    snapshot = hub_snapshot(spec, PACKAGED.get(spec.name))
    # the commit is pinned from here on: what is published must be found again after the hub has moved on
    pinned = spec.model_copy(update={"revision": snapshot.name})
    return _from_folder(pinned, snapshot, revision=snapshot.name)


RESOLVERS: tuple[Resolver, ...] = (_stand_in, _folder, _package, _hub)
"""In the order in which they are asked. The last one finds the model, or says why there is none."""


def _check_weights(model: Model, expected: str | None) -> Model:
    if expected and model.space.weights_sha256 != expected:
        raise ModelError(f"{model.spec.name}: expected weights of SHA-256 {expected}, found {model.space.weights_sha256}: do not use them")
    return model


def _from_folder(spec: ModelSpec, folder: Path, revision: str | None = None) -> Model:
    if not folder.is_dir():
        raise ModelError(f"expected a folder with a model at {folder}, found none: give another path, or a model's name")
    folder = folder.resolve()  # a link may lead elsewhere by the time that the model is loaded
    seal = seal_of(folder)  # before the first byte is read: what changes from here on is seen
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
        unused_prompts=tuple(contents.other_prompts) if spec.prompt is None and not contents.document_prompt else (),
        seal=seal,
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
