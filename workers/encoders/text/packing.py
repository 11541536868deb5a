"""Sequences of different lengths in one row, without padding: what goes into a model, and the attention that keeps them apart.

transformers calls an attention function by its registered name, and makes no mask for one that has none registered.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

ATTENTION = "revector_packed"
"""Under this name transformers knows `packed_attention`."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the sequences of a row begin and end."""

    runs: list[tuple[int, int]]
    """Neighbours of one length: how many, and the length."""
    borders: Tensor
    """(sequences + 1,) int32, on the device: where each begins, and the end of the last."""


_packing: ContextVar[Packing] = ContextVar("packing")


@contextmanager
def packed(packing: Packing) -> Iterator[None]:
    """Tell `packed_attention` what is in the row: not every architecture passes keywords on to it."""
    token = _packing.set(packing)
    try:
        yield
    finally:
        _packing.reset(token)


def pack(lengths: NDArray[np.int64], device: torch.device) -> Packing:
    """Sequences of these lengths one after another."""
    starts = np.flatnonzero(np.diff(lengths, prepend=-1))
    counts = np.diff(starts, append=len(lengths))
    borders = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return Packing(list(zip(counts.tolist(), lengths[starts].tolist(), strict=True)), to_device(borders, device))


def packed_features(ids: NDArray[np.int32], lengths: NDArray[np.int64], packing: Packing, first_position: int) -> dict[str, Tensor]:
    """One row of all sequences, (1, tokens), whose positions start anew with each."""
    positions = _positions(ids, lengths, first_position)
    device = packing.borders.device
    row = {"input_ids": ids.astype(np.int64), "position_ids": positions}
    # by this key sentence-transformers' pooling knows a packed row
    return {name: to_device(values[None], device) for name, values in row.items()} | {"cu_seq_lens_q": packing.borders}


def _positions(ids: NDArray[np.int32], lengths: NDArray[np.int64], first: int) -> NDArray[np.int64]:
    """(tokens,). Where they begin behind the padding id, that id, which a text may name, has no place of its own: it moves none."""
    counted = (ids != first - 1).astype(np.int64)  # ids are not negative: where positions begin at 0 all are counted
    starts = np.cumsum(lengths) - lengths
    places = np.cumsum(counted)
    before = places[starts] - counted[starts]
    positions: NDArray[np.int64] = (places - np.repeat(before, lengths)) * counted + first - 1
    return positions


def padded_features(ids: NDArray[np.int32], lengths: NDArray[np.int64], pad_id: int, left: bool, device: torch.device) -> dict[str, Tensor]:
    """A row a sequence, (sequences, longest), padded on the `left` or on the right."""
    longest = int(lengths.max())
    places = np.arange(longest)
    mask = places >= longest - lengths[:, None] if left else places < lengths[:, None]
    padded = np.full(mask.shape, pad_id, np.int64)
    padded[mask] = ids
    return {"input_ids": to_device(padded, device), "attention_mask": to_device(mask.astype(np.int64), device)}


def to_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """On a GPU without waiting for the copy."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def first_position(model: torch.nn.Module) -> int:
    """The position of a first token: RoBERTa and its relatives count from the padding id + 1."""
    for module in model.modules():
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and isinstance(getattr(module, "position_embeddings", None), torch.nn.Embedding):
            return padding + 1
    return 0


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention within each sequence of the row. `query` is (1, heads, tokens, width); returns (1, tokens, heads, width).

    Raises ValueError for what would need a mask or a bias over the whole row: its cost grows with the square of the row.
    """
    unknown = [name for name in ("position_bias", "softcap", "s_aux") if more.get(name) is not None]
    if unknown or attention_mask is not None:
        raise ValueError(f"expected attention without {' and '.join(unknown) or 'a mask'}")
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotary positions and norms of queries may have left bfloat16
    if query.is_cuda and value.dtype is torch.bfloat16:
        return _by_flash_attention(query, key, value, scaling, sliding_window, causal), None
    return _by_runs(query, key, value, scaling, sliding_window, causal), None


def _by_runs(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None, causal: bool) -> Tensor:
    """One call for all sequences of a length."""
    out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    start = 0
    for count, length in _packing.get().runs:
        stop = start + count * length
        q, k, v = (_sequences(states[0, :, start:stop], count) for states in (query, key, value))
        mask = _band(length, window, causal, query.device) if window and length > window else None
        grouped = query.shape[1] != key.shape[1]
        attended = scaled_dot_product_attention(q, k, v, mask, is_causal=causal and mask is None, scale=scaling, enable_gqa=grouped)
        out[0, start:stop].view(count, length, *out.shape[2:]).copy_(attended.transpose(1, 2))
        start = stop
    return out


def _sequences(states: Tensor, count: int) -> Tensor:
    """(heads, tokens, width) of `count` sequences of one length as (count, heads, length, width)."""
    heads, tokens, width = states.shape
    return states.reshape(heads, count, tokens // count, width).transpose(0, 1)


def _band(length: int, window: int, causal: bool, device: torch.device) -> Tensor:
    """(length, length): which keys a query sees that looks less than `window` tokens back, and as far ahead unless `causal`."""
    places = torch.arange(length, device=device)
    back = places[:, None] - places
    return (back < window) & (back >= 0 if causal else back > -window)


def _by_flash_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None, causal: bool) -> Tensor:
    """One kernel for the whole row, on a GPU."""
    from torch.nn.attention.varlen import varlen_attn

    packing = _packing.get()
    longest = max(length for _, length in packing.runs)
    back = window - 1 if window else -1
    attended = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        packing.borders,
        packing.borders,
        longest,
        longest,
        scale=scaling,
        window_size=(back, 0 if causal else back),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(attended, Tensor)  # no log-sum-exp was asked for
    return attended[None]


AttentionInterface.register(ATTENTION, packed_attention)
