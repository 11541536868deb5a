"""Which inputs go through a model together. Pure: knows no model and no device."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Result = TypeVar("Result")

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


def token_budget_batches(lengths: NDArray[np.integer], budget: int) -> list[NDArray[np.intp]]:
    """Partition inputs into batches of at most `budget` tokens, padding counted; an input above the budget gets a batch of its own.

    Longest first, so that neighbours in length share a batch and memory is at its highest at the start. `lengths` is (n,) in tokens;
    a batch holds indices into it.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        rows = max(1, budget // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def packed_batches(lengths: NDArray[np.integer], budget: int) -> list[NDArray[np.intp]]:
    """Partition inputs into batches of at most `budget` tokens without padding; an input above the budget gets a batch of its own.

    Longest first, as `token_budget_batches`: inputs of one length are neighbours.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    batches, start = [], 0
    while start < len(order):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + budget, side="right")))
        batches.append(order[start:stop])
        start = stop
    return batches


def equal_batches(lengths: NDArray[np.integer], budget: int) -> list[NDArray[np.intp]]:
    """Partition inputs into batches of one length, so that nothing is padded, of at most `budget` tokens; longest first.

    An input above the budget gets a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    alike = np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1) if len(order) else []
    return [same[batch] for same in alike for batch in token_budget_batches(lengths[same], budget)]


def encode_with_halving(
    batch: NDArray[np.intp], run: Callable[[NDArray[np.intp]], Result], too_large: Callable[[BaseException], bool]
) -> Iterator[tuple[NDArray[np.intp], Result | Exception]]:
    """Run a batch; where it is too large, its halves. Yields each part that ran with its result, in order.

    A single input that is still too large is yielded with its exception. Any other exception propagates.
    """
    outcome = _attempt(batch, run, too_large)
    if isinstance(outcome, Exception) and len(batch) > 1:
        for half in np.array_split(batch, 2):
            yield from encode_with_halving(half, run, too_large)
    else:
        yield batch, outcome


def _attempt(
    batch: NDArray[np.intp], run: Callable[[NDArray[np.intp]], Result], too_large: Callable[[BaseException], bool]
) -> Result | Exception:
    try:
        return run(batch)
    except (MemoryError, RuntimeError) as error:
        if not too_large(error):
            raise
        # the traceback holds the tensors of the attempt: they must be free before the next one
        return error.with_traceback(None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out: Python's, or torch's on a processor or a GPU (which is a RuntimeError)."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)
