"""Text in, vectors out: a sentence-transformers model, and the stand-in. Knows nothing of Ray, tables or shards.

torch and sentence-transformers are imported when a real model is loaded, not before.
"""

from pipelines.spaces.space import STAND_IN, Model
from workers.encoders.encoder import Encoder
from workers.encoders.hashing import HashEncoder
from workers.encoders.machine import PROCESSOR, Machine


def load_encoder(model: Model, machine: Machine = PROCESSOR) -> Encoder:
    """Load `model` onto a device of `machine`, from its folder and without a network.

    Raises ModelError if the folder does not hold what `model` says.
    """
    if model.spec.name == STAND_IN:
        return HashEncoder(model)
    from workers.encoders.text.sentence import SentenceEncoder

    return SentenceEncoder(model, machine)
