"""Text in, vectors out: a sentence-transformers model, and the stand-in. Knows nothing of Ray, tables or shards.

torch and sentence-transformers are imported when a real model is loaded, not before.
"""

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.models import STAND_IN, Model, Space
from pipelines.spec import Precision

HASH_BLOCK_BYTES = 1 << 17
"""Random bytes that the stand-in makes at a time: they stay in the processor's cache."""


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
    from workers.sentence import SentenceEncoder

    return SentenceEncoder(model, device, batch_tokens, threads, precision)


class HashEncoder:
    """The stand-in: vectors that depend on the content alone and mean nothing, as fast as a test of scale needs them.

    The same text has the same bits on every machine and in every batch: all sums are of integers, and exact.
    """

    how = "stand-in"

    def __init__(self, model: Model) -> None:
        self.model = model

    def tokenize(self, texts: Sequence[str]) -> Tokenized:
        """Tokens are counted by spaces."""
        lengths = np.fromiter((text.count(" ") + 1 for text in texts), np.int64, len(texts))
        return Tokenized(np.empty(0, np.int32), lengths, self.model.space.prompt, texts)

    def forward(self, tokenized: Tokenized) -> Encoded:
        started = time.perf_counter()
        space, texts = self.model.space, tokenized.texts
        vectors = np.empty((len(texts), space.dimension), np.float32)
        rows = max(1, HASH_BLOCK_BYTES // (2 * space.dimension))
        for start in range(0, len(texts), rows):
            vectors[start : start + rows] = _hash_vectors([tokenized.prompt + text for text in texts[start : start + rows]], space)
        return Encoded(vectors, int(tokenized.lengths.sum()), {}, time.perf_counter() - started)

    def encode(self, texts: Sequence[str]) -> Encoded:
        return self.forward(self.tokenize(texts))

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return _hash_vectors([self.model.query_prompt + text for text in texts], self.model.space)

    def encode_query(self, text: str) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = self.encode_queries([text])[0]
        return vector


def _hash_vectors(texts: Sequence[str], space: Space) -> NDArray[np.float32]:
    """A vector a text, (n, dimension): 16-bit numbers of the text's random stream, made odd so that none is zero, then scaled."""
    seeds = np.frombuffer(b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts), "<u8")
    stream = _splitmix64(seeds, math.ceil(space.dimension / 4))
    vectors = stream.astype("<u8", copy=False).view("<i2")[:, : space.dimension].astype(np.float32) * np.float32(2) + np.float32(1)
    scale = np.full(len(texts), 1 << 16, np.float64)
    if space.normalize:
        # a sum of squares below 2^53 is exact in float64, in whatever order a processor adds them up
        scale = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    vectors /= scale.astype(np.float32)[:, None]
    return vectors


def _splitmix64(seeds: NDArray[np.uint64], count: int) -> NDArray[np.uint64]:
    """The first `count` outputs of SplitMix64 for each seed, (n, count). Steele, Lea and Flood, OOPSLA 2014."""
    state = seeds[:, None] + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state
