"""Which of the models at hand made the vectors of a space, wherever its files lie by now."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from pipelines.errors import ModelError, SpecError
from pipelines.spaces.resolving import resolve_model
from pipelines.spaces.space import Model
from pipelines.spec.declared import ModelSpec


def known_models(specs: Iterable[ModelSpec]) -> Iterator[Model]:
    """Those of `specs` that this machine has, resolved one by one."""
    for spec in specs:
        with suppress(ModelError, SpecError):
            yield resolve_model(spec)


def model_of(space: str, recorded: ModelSpec, known: Iterable[Model]) -> Model:
    """The model of a space, with the query prompt that is `recorded`: one of `known`, wherever it lies by now, or where it was.

    Code that comes with a model is run if the reader's own spec allows it, never because the store says so. Raises ModelError if the
    model is not there any more.
    """
    for model in known:
        if model.space.id == space:
            same = model.spec.query_prompt == recorded.query_prompt
            return model if same else resolve_model(model.spec.model_copy(update={"query_prompt": recorded.query_prompt}))
    model = resolve_model(recorded.model_copy(update={"trust_remote_code": False}))
    if model.space.id != space:
        raise ModelError(
            f"expected the model of space {space} ({model.spec.name}), found one of {model.space.id}: were its files replaced?"
        )
    return model
