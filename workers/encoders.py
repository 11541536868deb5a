"""Text in, vectors out: a sentence-transformers model, and the stand-in. Knows nothing of Ray, tables or shards.

torch and sentence-transformers are imported when a real model is loaded, not before.
"""

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ModelError
from pipelines.models import STAND_IN, Model, Space
from workers.batching import encode_with_halving, is_out_of_memory, token_budget_batches

SMALLEST_NORM = 1e-6
"""A vector shorter than this has no direction that float32 arithmetic can be trusted with."""

HASH_BLOCK_BYTES = 1 << 17
"""Random bytes that the stand-in makes at a time: they stay in the processor's cache."""


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

    def encode(self, texts: Sequence[str]) -> Encoded:
        """The vectors of documents, with the document prompt. A text that fails alone is in `failed`; any other trouble raises."""
        ...

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """The vector of a query, (dimension,), with the query prompt. Raises ModelError if it has none."""
        ...


def load_encoder(model: Model, *, device: str = "cpu", batch_tokens: int = 4096, threads: int | None = None) -> Encoder:
    """Load `model` onto `device` (torch's name for it), from its folder and without a network.

    `batch_tokens` bounds a forward pass, padding counted; `threads` are torch's on a processor (None: torch decides). Neither they
    nor the device change a vector by more than rounding in float32. Raises ModelError if the folder does not hold what `model` says.
    """
    if model.spec.name == STAND_IN:
        return HashEncoder(model)
    return SentenceEncoder(model, device, batch_tokens, threads)


class SentenceEncoder:
    """A sentence-transformers model in float32: tokenised once, sorted by true length, batched by tokens."""

    def __init__(self, model: Model, device: str, batch_tokens: int, threads: int | None) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self.model = model
        self._batch_tokens = batch_tokens
        self._stack = _load_stack(model, device)
        self._prompt_lengths = {prompt: _prompt_length(self._stack, prompt) for prompt in (model.space.prompt, model.query_prompt)}

    def encode(self, texts: Sequence[str]) -> Encoded:
        return self._encode(texts, self.model.space.prompt)

    def encode_query(self, text: str) -> NDArray[np.float32]:
        encoded = self._encode([text], self.model.query_prompt)
        if encoded.failed:
            raise ModelError(f"expected a vector of the query, found none ({encoded.failed[0]}): ask in other words")
        vector: NDArray[np.float32] = encoded.vectors[0]
        return vector

    def _encode(self, texts: Sequence[str], prompt: str) -> Encoded:
        tokenized = self._tokenize(texts, prompt)
        lengths = np.fromiter(map(len, tokenized["input_ids"]), np.int64, len(texts))
        present = np.flatnonzero(lengths)
        vectors = np.zeros((len(texts), self.model.space.dimension), np.float32)
        failed = dict.fromkeys(np.flatnonzero(lengths == 0).tolist(), "no tokens")
        tokens, started = 0, time.perf_counter()
        for batch in token_budget_batches(lengths[present], self._batch_tokens):
            for part, outcome in encode_with_halving(present[batch], partial(self._forward, tokenized, prompt), is_out_of_memory):
                if isinstance(outcome, Exception):
                    failed |= dict.fromkeys(part.tolist(), "out of memory")
                else:
                    vectors[part] = outcome
                    tokens += int(lengths[part].sum())
        seconds = time.perf_counter() - started
        failed = _without_direction(vectors) | failed
        vectors[list(failed)] = 0
        if self.model.space.normalize:
            _normalize(vectors)
        return Encoded(vectors, tokens, failed, seconds)

    def _tokenize(self, texts: Sequence[str], prompt: str) -> dict[str, list[list[int]]]:
        """Token ids, and what else the model takes beside them, cut at the longest input and not padded."""
        if not texts:
            return {"input_ids": []}
        return dict(self._stack.tokenizer([prompt + text for text in texts], truncation=True, return_attention_mask=False))

    def _forward(self, tokenized: dict[str, list[list[int]]], prompt: str, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """The vectors of `rows`, (rows, dimension), padded to the longest of them, before normalisation."""
        import torch

        picked = {name: [values[row] for row in rows] for name, values in tokenized.items()}
        features = dict(self._stack.tokenizer.pad(picked, return_tensors="pt").to(self._stack.device))
        if (length := self._prompt_lengths[prompt]) is not None:
            features["prompt_length"] = length  # for pooling that leaves the prompt out
        with torch.inference_mode():
            whole = self._stack(features)["sentence_embedding"]
            vectors: NDArray[np.float32] = whole[:, : self.model.space.dimension].float().cpu().numpy()
        return vectors


def _load_stack(model: Model, device: str) -> Any:
    """The SentenceTransformer without its final Normalize, which comes after the cut to the space's dimension."""
    if model.folder is None or not Path(model.folder).is_dir():
        raise ModelError(f"expected the model at {model.folder}, found none: resolve it on the machine that loads it")
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of loading weights: it would break into what a person reads

    stack = SentenceTransformer(
        model.folder,
        device=device,
        local_files_only=True,
        trust_remote_code=model.spec.trust_remote_code,
        model_kwargs={"use_safetensors": True, "dtype": torch.float32},
    )
    stack.truncate_dim = None
    width = stack.get_embedding_dimension()
    if width < model.space.dimension or (model.spec.dimensions is None and width != model.space.dimension):
        raise ModelError(f"{model.spec.name}: expected vectors of {model.space.dimension}, found {width}: its configs disagree")
    if "message" in stack.modalities:
        raise ModelError(f"{model.spec.name}: expected a model that takes plain text, found one that takes chat messages")
    if isinstance(stack[-1], Normalize):
        del stack[-1]
    stack.max_seq_length = model.space.max_tokens
    return stack.eval()


def _prompt_length(stack: Any, prompt: str) -> int | None:
    """The tokens of a prompt as sentence-transformers counts them; None without a prompt."""
    length: int | None = stack.preprocess([""], prompt=prompt).get("prompt_length")
    return length


def _without_direction(vectors: NDArray[np.float32]) -> dict[int, str]:
    """The rows that cannot be compared with anything, and why."""
    norms = np.linalg.norm(vectors, axis=1)
    zero, infinite = np.flatnonzero(norms < SMALLEST_NORM), np.flatnonzero(~np.isfinite(norms))
    return dict.fromkeys(zero.tolist(), "zero vector") | dict.fromkeys(infinite.tolist(), "not finite")


def _normalize(vectors: NDArray[np.float32]) -> None:
    """Scale rows to unit length, in place; zero rows stay zero."""
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(SMALLEST_NORM))


class HashEncoder:
    """The stand-in: vectors that depend on the content alone and mean nothing, as fast as a test of scale needs them.

    The same text has the same bits on every machine and in every batch: all sums are of integers, and exact.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Tokens are counted by spaces."""
        started = time.perf_counter()
        space = self.model.space
        vectors = np.empty((len(texts), space.dimension), np.float32)
        rows = max(1, HASH_BLOCK_BYTES // (2 * space.dimension))
        for start in range(0, len(texts), rows):
            vectors[start : start + rows] = _hash_vectors([space.prompt + text for text in texts[start : start + rows]], space)
        tokens = sum(text.count(" ") + 1 for text in texts)
        return Encoded(vectors, tokens, {}, time.perf_counter() - started)

    def encode_query(self, text: str) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = _hash_vectors([self.model.query_prompt + text], self.model.space)[0]
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
