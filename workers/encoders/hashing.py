"""The stand-in's encoder: vectors from the content alone, as fast as a test of scale needs them."""

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.spaces.space import Model, Role, Space
from workers.encoders.encoder import Encoded, Items, Prepared

HASH_BLOCK_BYTES = 1 << 17
"""Random bytes that the stand-in makes at a time: they stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Texts(Prepared):
    """Texts as they are: the stand-in takes them whole."""

    prompt: str
    """Not yet put before them."""
    texts: Sequence[str]


class HashEncoder:
    """The stand-in: vectors that depend on the content alone and mean nothing, as fast as a test of scale needs them.

    The same text has the same bits on every machine and in every batch: all sums are of integers, and exact.
    """

    how = "stand-in"

    def __init__(self, model: Model) -> None:
        self.model = model

    def prepare(self, items: Items, role: Role) -> Prepared:
        """Tokens are counted by spaces."""
        units = np.fromiter((text.count(" ") + 1 for text in items), np.int64, len(items))
        return Texts(units, np.zeros_like(units), self.model.prompt(role), items)

    def forward(self, prepared: Prepared) -> Encoded:
        assert isinstance(prepared, Texts)
        started = time.perf_counter()
        space, texts = self.model.space, prepared.texts
        vectors = np.empty((len(texts), space.dimension), np.float32)
        rows = max(1, HASH_BLOCK_BYTES // (2 * space.dimension))
        for start in range(0, len(texts), rows):
            vectors[start : start + rows] = _hash_vectors([prepared.prompt + text for text in texts[start : start + rows]], space)
        return Encoded(vectors, int(prepared.units.sum()), {}, time.perf_counter() - started)


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
