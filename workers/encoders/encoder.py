"""What an encoder is: items in, vectors of one space out.

A new one is a class with these members, and a loader in `workers.encoders.loading.LOADERS`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ModelError
from pipelines.spaces.space import Model, Role

Items = Sequence[str]
"""What vectors are made of. Texts: the only kind of content that there is yet."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Items, ready for the model. What else is in it, only the encoder that prepared them knows."""

    units: NDArray[np.int64]
    """What each item costs the model, (n,): of a text its tokens, special ones included, cut at the longest input."""
    unread: NDArray[np.int64]
    """What of each item is beyond the longest input, (n,) in the same units: the vector says nothing of it."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The vectors of some items."""

    vectors: NDArray[np.float32]
    """(n, dimension), in the order of the items. Rows of failed items are zero."""
    units: int
    """Through the model, those of failed items and padding not counted."""
    failed: dict[int, str]
    """The index of an item that has no vector, and the reason. Never holds the item."""
    seconds: float
    """In the model."""


class Encoder(Protocol):
    """A loaded model."""

    model: Model
    """Whose vectors these are."""
    how: str
    """How it runs, in a line for people: "packed, float32"."""

    def prepare(self, items: Items, role: Role) -> Prepared:
        """What `forward` takes. May run in other threads beside `forward`."""
        ...

    def forward(self, prepared: Prepared) -> Encoded:
        """The vectors of what it prepared. An item that fails alone is in `failed`; any other trouble raises. One thread at a time."""
        ...


def encode(encoder: Encoder, items: Items, role: Role) -> Encoded:
    """The vectors of a few items, one step after the other. Raises ModelError if a query has none: nothing can be searched without."""
    encoded = encoder.forward(encoder.prepare(items, role))
    if role == "query" and encoded.failed:
        place, reason = next(iter(encoded.failed.items()))
        raise ModelError(f"expected a vector of query {place + 1}, found none ({reason}): ask in other words")
    return encoded
