"""Loads the encoder of a model. The extension point for kinds of encoders is LOADERS.

torch and sentence-transformers are imported when a real model is loaded, not before.
"""

from collections.abc import Callable

from pipelines.errors import ModelError
from pipelines.spaces.resolving import as_hashed
from pipelines.spaces.space import STAND_IN, Model
from workers.encoders.encoder import Encoder
from workers.encoders.hashing import HashEncoder
from workers.encoders.machine import PROCESSOR, Machine

LOADS = 2
"""How often a model is loaded whose files are touched meanwhile, and found to be the same."""
Loader = Callable[[Model, Machine], Encoder | None]
"""Loads a model onto a machine; None: it is not of the kind that this one loads. Raises ModelError."""


def load_encoder(model: Model, machine: Machine = PROCESSOR) -> Encoder:
    """Load `model` onto the device of `machine`, from its folder and without a network: what is loaded is what was hashed.

    Raises ModelError if the folder does not hold what `model` says, before, or when it was loaded.
    """
    for _ in range(LOADS):
        model = as_hashed(model)
        encoder = next(encoder for loader in LOADERS if (encoder := loader(model, machine)) is not None)
        if as_hashed(model) is model:
            return encoder
        del encoder  # of files that were touched meanwhile: they may have been others, for a moment
    raise ModelError(f"{model.folder}: expected files that stay as they are while they are loaded, found them touched again: run again")


def _stand_in(model: Model, _: Machine) -> Encoder | None:
    return HashEncoder(model) if model.spec.name == STAND_IN else None


def _sentence_transformers(model: Model, machine: Machine) -> Encoder:
    from workers.encoders.text.sentence import SentenceEncoder

    return SentenceEncoder(model, machine)


LOADERS: tuple[Loader, ...] = (_stand_in, _sentence_transformers)
"""In the order in which they are asked. The last one takes every model."""
