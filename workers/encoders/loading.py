"""Text in, vectors out: a sentence-transformers model, and the stand-in. Knows nothing of Ray, tables or shards.

torch and sentence-transformers are imported when a real model is loaded, not before.
"""

from pipelines.spaces.space import STAND_IN, Model
from pipelines.spec.running import Precision
from workers.encoders.encoder import Encoder
from workers.encoders.hashing import HashEncoder


def load_encoder(
    model: Model, *, device: str = "cpu", batch_tokens: int | None = None, threads: int | None = None, precision: Precision = "auto"
) -> Encoder:
    """Load `model` onto `device` (torch's name for it), from its folder and without a network.

    `batch_tokens` bounds a forward pass, padding counted (None: what suits the device); `threads` are torch's on a processor (None:
    torch decides). `precision` is that of the matrix products: "auto" takes bfloat16 where the device has it natively and the model's
    vectors stay the same within tolerance. Nothing else changes a vector by more than rounding in float32. Raises ModelError if the
    folder does not hold what `model` says.
    """
    if model.spec.name == STAND_IN:
        return HashEncoder(model)
    from workers.encoders.text.sentence import SentenceEncoder

    return SentenceEncoder(model, device, batch_tokens, threads, precision)
