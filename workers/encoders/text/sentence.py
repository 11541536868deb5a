"""A sentence-transformers model: tokenised once, batched by tokens, packed where its architecture allows it."""

import time
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.spaces.space import Model, Role
from workers.encoders.batching import encode_with_halving, equal_batches, is_out_of_memory, packed_batches, token_budget_batches
from workers.encoders.encoder import Encoded, Items, Prepared
from workers.encoders.machine import Machine
from workers.encoders.text.stack import BatchLayout, Stack, Tokenized, load_stack

SMALLEST_NORM = 1e-6
"""A vector shorter than this has no direction that float32 arithmetic can be trusted with."""

CPU_BATCH_TOKENS, CPU_PADDED_BATCH_TOKENS, GPU_BATCH_TOKENS = 4096, 1024, 32768
"""What suits a device. A processor's caches hold no more (docs/benchmarks.md), and padding grows with the batch; a GPU idles with less."""

_FILL = {
    BatchLayout.PACKED: packed_batches,
    BatchLayout.PADDED: token_budget_batches,
    BatchLayout.LIBRARY: equal_batches,  # what comes right that way alone may look at padding
}


class SentenceEncoder:
    """A sentence-transformers model. Norms, pooling and normalisation are in float32, whatever the precision of the products."""

    def __init__(self, model: Model, machine: Machine) -> None:
        self._threads = machine.threads
        self._use_threads()
        self.model = model
        self._stack: Stack = load_stack(model, machine)
        self._batch_tokens = machine.batch_tokens or _batch_tokens(self._stack)
        self.how = self._stack.how

    def prepare(self, items: Items, role: Role) -> Prepared:
        return self._stack.tokenize(items, self.model.prompt(role))

    def _use_threads(self) -> None:
        """OpenMP keeps their number for each calling thread."""
        if self._threads is not None:
            torch.set_num_threads(self._threads)

    def forward(self, prepared: Prepared) -> Encoded:
        assert isinstance(prepared, Tokenized)
        self._use_threads()
        lengths = prepared.units
        failed = dict.fromkeys(np.flatnonzero(lengths == 0).tolist(), "no tokens")
        done: list[tuple[NDArray[np.intp], torch.Tensor]] = []
        started = time.perf_counter()
        for batch in self._batches(lengths):
            for part, outcome in encode_with_halving(batch, partial(self._stack.vectors, prepared), is_out_of_memory):
                if isinstance(outcome, Exception):
                    failed |= dict.fromkeys(part.tolist(), "out of memory")
                else:
                    done.append((part, outcome))
        vectors = self._collect(done, len(lengths))
        seconds = time.perf_counter() - started
        tokens = sum(int(lengths[part].sum()) for part, _ in done)
        failed = _without_direction(vectors) | failed
        vectors[list(failed)] = 0
        if self.model.space.normalize:
            _normalize(vectors)
        return Encoded(vectors, tokens, failed, seconds)

    def _batches(self, lengths: NDArray[np.int64]) -> list[NDArray[np.intp]]:
        """Places of the texts that have tokens, as many at a time as the token budget takes."""
        present = np.flatnonzero(lengths)
        return [present[batch] for batch in _FILL[self._stack.layout](lengths[present], self._batch_tokens)]

    def _collect(self, done: list[tuple[NDArray[np.intp], torch.Tensor]], count: int) -> NDArray[np.float32]:
        """(count, dimension), cut. Only here is a GPU waited for."""
        vectors = np.zeros((count, self.model.space.dimension), np.float32)
        for part, outcome in done:
            vectors[part] = outcome[:, : self.model.space.dimension].float().cpu().numpy()
        return vectors


def _batch_tokens(stack: Stack) -> int:
    if stack.device.type != "cpu":
        return GPU_BATCH_TOKENS
    return CPU_BATCH_TOKENS if stack.layout is BatchLayout.PACKED else CPU_PADDED_BATCH_TOKENS


def _without_direction(vectors: NDArray[np.float32]) -> dict[int, str]:
    """The rows that cannot be compared with anything, and why."""
    norms = np.linalg.norm(vectors, axis=1)
    zero, infinite = np.flatnonzero(norms < SMALLEST_NORM), np.flatnonzero(~np.isfinite(norms))
    return dict.fromkeys(zero.tolist(), "zero vector") | dict.fromkeys(infinite.tolist(), "not finite")


def _normalize(vectors: NDArray[np.float32]) -> None:
    """Scale rows to unit length, in place; zero rows stay zero."""
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(SMALLEST_NORM))
