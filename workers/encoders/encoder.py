"""What an encoder is: texts in, vectors of one space out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.spaces.space import Model


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Texts, ready for the model."""

    ids: NDArray[np.int32]
    """Token ids of all texts one after another, (sum of lengths,); empty for the stand-in."""
    lengths: NDArray[np.int64]
    """Tokens of each text, (n,): cut at the longest input, special tokens included."""
    prompt: str
    """What was put before every text."""
    texts: Sequence[str] = ()
    """The texts without the prompt, for what tokenises by itself; else empty."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The vectors of some texts."""

    vectors: NDArray[np.float32]
    """(n, dimension), in the order of the texts. Rows of failed texts are zero."""
    tokens: int
    """Through the model: special tokens included, padding not."""
    failed: dict[int, str]
    """The index of a text that has no vector, and the reason. Never holds the text."""
    seconds: float
    """In the model."""


class Encoder(Protocol):
    """A loaded model."""

    model: Model
    """Whose vectors these are."""
    how: str
    """How it runs, in a line for people: "packed, float32"."""

    def tokenize(self, texts: Sequence[str]) -> Tokenized:
        """What `forward` takes of documents, with the document prompt. May run in other threads beside `forward`."""
        ...

    def forward(self, tokenized: Tokenized) -> Encoded:
        """The vectors of tokenised texts. A text that fails alone is in `failed`; any other trouble raises. One thread at a time."""
        ...

    def encode(self, texts: Sequence[str]) -> Encoded:
        """`forward(tokenize(texts))`."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of queries, (n, dimension), with the query prompt. Raises ModelError if one has none."""
        ...

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """The vector of a query, (dimension,)."""
        ...
