"""The modules of a sentence-transformers model, and the fastest way to run them that gives what `encode` gives.

Which way that is, is tried and not looked up: on loading, a few short texts of different lengths go through the model both ways.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from tokenizers import Tokenizer
from transformers.utils.logging import disable_progress_bar

from pipelines.errors import ModelError
from pipelines.spaces.space import Model
from pipelines.spec.running import Precision
from workers.encoders.batching import is_out_of_memory
from workers.encoders.encoder import Prepared
from workers.encoders.machine import Machine
from workers.encoders.text.packing import ATTENTION, first_position, pack, packed, packed_features, padded_features
from workers.encoders.text.prepacking import lower, prepack
from workers.encoders.text.whole_weights import whole_weights

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""How far a vector may be from that of `encode`, as a share of its length, by the dtype of the products; 5e-2 is a cosine of .9988."""

PROBE_TOKENS = (1, 6, 6, 29)
"""Tokens of the texts that a way is tried with; where the model has a window, one that is longer comes on top."""

LONGEST_PROBE = 1024
"""A longer one would take more time than the rest of loading."""

_REFUSALS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""What an architecture raises that cannot be run in a way."""
_FAILURES = (*_REFUSALS, AssertionError, ArithmeticError, OSError, ImportError)
"""What a model raises that cannot be loaded, or run at all: some bring code of their own."""


@dataclass(frozen=True, slots=True)
class Tokenized(Prepared):
    """Texts as tokens."""

    ids: NDArray[np.int32]
    """Of all texts one after another, (sum of units,)."""
    prompt: str
    """What was put before every text."""
    texts: Sequence[str] = ()
    """The texts without the prompt, for a library that tokenises by itself; else empty."""


class BatchLayout(Enum):
    """How texts of different lengths go through a model together."""

    PACKED = "packed"
    """Their tokens in one row, without padding."""
    PADDED = "padded"
    """A row each, as long as the longest."""
    LIBRARY = "SentenceTransformer.encode"
    """As the library does it, tokenising included."""


def load_stack(model: Model, machine: Machine) -> "Stack":
    """The model from its folder, in the fastest way that gives what the library gives. Raises ModelError."""
    for dtype in _dtypes(torch.device(machine.device), machine.precision):
        stack = Stack(model, machine.device)
        if stack.quicken(dtype):
            return stack
    warnings.warn(f"{model.spec.name}: its vectors come right through {BatchLayout.LIBRARY.value} alone: slow, but exact", stacklevel=2)
    return Stack(model, machine.device)


def _dtypes(device: torch.device, precision: Precision) -> list[torch.dtype]:
    """Of the matrix products, the best first."""
    lowered = precision == "bfloat16" or (precision == "auto" and _has_native_bfloat16(device))
    return [torch.bfloat16, torch.float32] if lowered else [torch.float32]


def _has_native_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32. oneDNN says it can do it even where it only emulates it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


class Stack:
    """A SentenceTransformer without its final Normalize, which comes after the cut to the space's dimension."""

    def __init__(self, model: Model, device: str) -> None:
        """As the library runs it: `quicken` looks for a faster way that gives the same."""
        self._name = model.spec.name
        self._modules = load_modules(model, device)
        self._prompt = model.space.prompt
        self._prompt_lengths = {prompt: _prompt_length(self._modules, prompt) for prompt in (model.space.prompt, model.query_prompt)}
        self._transformer: Any = getattr(self._modules[0], "model", None)
        self._tokenizer = copied_tokenizer(model, self._modules)
        self._tokenizer.enable_truncation(model.space.max_tokens, direction=self._modules.tokenizer.truncation_side)
        self._most_tokens = model.space.max_tokens
        self._special_tokens = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._first_position = first_position(self._modules)
        self.device: torch.device = self._modules.device
        self.layout = BatchLayout.LIBRARY
        self._dtype = torch.float32

    @property
    def how(self) -> str:
        """Such as "packed, float32"."""
        return f"{self.layout.value}, {str(self._dtype).removeprefix('torch.')}"

    def quicken(self, dtype: torch.dtype) -> bool:
        """Find the layout that suits the architecture, and prepare the weights for products of `dtype`. False: of no avail, load anew."""
        texts = _probes(self._tokenizer, self._prompt, _window(self._transformer))
        expected = self._expected(texts)
        if not (self._try_packed(texts, expected) or self._try(BatchLayout.PADDED, texts, expected)):
            return False
        self._dtype = dtype
        (prepack if self.device.type == "cpu" else lower)(self._transformer, dtype)
        return self._try(self.layout, texts, expected)

    def _expected(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """What the library gives, (texts, width). Raises ModelError with what the model says where it cannot: the texts are nobody's."""
        try:
            # one at a time: no padding
            vectors: NDArray[np.float32] = self._modules.encode(texts, prompt=self._prompt, batch_size=1, show_progress_bar=False)
        except _FAILURES as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(f"{self._name}: expected vectors of a few words, found {_told(error)}") from error
        return vectors

    def _try_packed(self, texts: Sequence[str], expected: NDArray[np.float32]) -> bool:
        if not getattr(self._transformer, "_supports_attention_backend", False):
            return False
        stock = self._transformer.config._attn_implementation
        self._transformer.set_attn_implementation(ATTENTION)
        if self._try(BatchLayout.PACKED, texts, expected):
            return True
        self._transformer.set_attn_implementation(stock)
        return False

    def _try(self, layout: BatchLayout, texts: Sequence[str], expected: NDArray[np.float32]) -> bool:
        """Switch to a layout, and see whether it gives what is expected."""
        self.layout = layout
        try:
            vectors = self.vectors(self.tokenize(texts, self._prompt), np.arange(len(texts))).float().cpu().numpy()
        except _REFUSALS:
            return False
        distances = np.linalg.norm(vectors - expected, axis=1) / np.linalg.norm(expected, axis=1)
        return bool((distances <= TOLERANCE[self._dtype]).all())

    def tokenize(self, texts: Sequence[str], prompt: str) -> Tokenized:
        """Holds no lock of Python's while it tokenises, and may run in any thread."""
        encodings = self._tokenizer.encode_batch_fast([prompt + text for text in texts])
        lengths = np.fromiter(map(len, encodings), np.int64, len(texts))
        ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int32, int(lengths.sum()))
        unread = np.zeros_like(lengths)
        for place in np.flatnonzero(lengths >= self._most_tokens).tolist():
            unread[place] = self._overflow(encodings[place], prompt + texts[place])
        return Tokenized(lengths, unread, ids, prompt, texts if self.layout is BatchLayout.LIBRARY else ())

    def _overflow(self, encoding: Any, text: str) -> int:
        """The tokens of `text` that were cut off; those of white space at its end are no loss."""
        if text[-1:].isspace() and encoding.overflowing:
            encoding = self._tokenizer.encode(text.rstrip())
        return sum(len(part) - self._special_tokens for part in encoding.overflowing)

    def vectors(self, tokenized: Tokenized, rows: NDArray[np.intp]) -> torch.Tensor:
        """The whole vectors of `rows` before normalisation, (rows, width), on the device. Rows without tokens are not allowed."""
        if self.layout is BatchLayout.LIBRARY:
            texts = [tokenized.texts[row] for row in rows]
            encoded: torch.Tensor = self._modules.encode(
                texts, prompt=tokenized.prompt, batch_size=len(texts), show_progress_bar=False, convert_to_tensor=True
            )
            return encoded
        with torch.inference_mode():
            features = self._token_vectors(*_pick(tokenized, rows))
            if (length := self._prompt_lengths[tokenized.prompt]) is not None:
                features["prompt_length"] = length  # for pooling that leaves the prompt out
            for module in list(self._modules)[1:]:
                features = module(features)
        vectors: torch.Tensor = features["sentence_embedding"]
        return vectors

    def _token_vectors(self, ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> dict[str, Any]:
        """What the first module makes of sequences: `token_embeddings`, and what the others want beside it."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._dtype is torch.bfloat16):
            if self.layout is BatchLayout.PACKED:
                packing = pack(lengths, self.device)
                with packed(packing):
                    return dict(self._modules[0](packed_features(ids, lengths, packing, self._first_position)))
            tokenizer = self._modules.tokenizer
            left = tokenizer.padding_side == "left"
            return dict(self._modules[0](padded_features(ids, lengths, tokenizer.pad_token_id or 0, left, self.device)))


def load_modules(model: Model, device: str) -> Any:
    """The SentenceTransformer in the folder of `model`, without its final Normalize. Raises ModelError."""
    if model.folder is None or not Path(model.folder).is_dir():
        raise ModelError(f"expected the model at {model.folder}, found none: resolve it on the machine that loads it")
    disable_progress_bar()  # of loading weights: it would break into what a person reads
    try:
        with whole_weights(model.folder):
            stack = SentenceTransformer(
                model.folder,
                device=device,
                local_files_only=True,
                trust_remote_code=model.spec.trust_remote_code,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            )
    except _FAILURES as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{model.folder}: expected a model that loads, found {_told(error)}") from error
    stack.truncate_dim = None
    width = stack.get_embedding_dimension()
    if width < model.space.dimension or (model.spec.dimensions is None and width != model.space.dimension):
        raise ModelError(f"{model.spec.name}: expected vectors of {model.space.dimension}, found {width}: its configs disagree")
    if "message" in stack.modalities:
        raise ModelError(f"{model.spec.name}: expected a model that takes plain text, found one that takes chat messages")
    if isinstance(stack[-1], Normalize):
        del stack[-1]
    stack.max_seq_length = model.space.max_tokens
    _own(stack)
    return stack.eval()


def copied_tokenizer(model: Model, modules: Any) -> Tokenizer:
    """The tokenizer of loaded modules, for texts of any length: the library changes the settings of its own with every call.

    Raises ModelError if it has parts of Python.
    """
    try:
        backend = modules.tokenizer.backend_tokenizer
        copy = Tokenizer.from_str(backend.to_str())
    except Exception as error:  # the library raises nothing narrower
        raise ModelError(f"{model.spec.name}: expected a fast tokenizer, found {_told(error)}: save the model with one") from error
    copy.encode_special_tokens = backend.encode_special_tokens  # which is not written
    copy.no_truncation()
    copy.no_padding()
    return copy


def _told(error: BaseException) -> str:
    """The class and the message, in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _own(stack: torch.nn.Module) -> None:
    """Copy what is still a view of the mapped file: whoever writes into that would change a model that runs, or end its process."""
    for tensor in chain(stack.parameters(), stack.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def _prompt_length(modules: Any, prompt: str) -> int | None:
    """The tokens of a prompt as sentence-transformers counts them; None without a prompt."""
    length: int | None = modules.preprocess([""], prompt=prompt).get("prompt_length")
    return length


def _window(transformer: Any) -> int | None:
    """Tokens that a layer with a sliding window looks at, if there is one."""
    config = transformer.config.get_text_config() if transformer is not None else None
    return getattr(config, "sliding_window", None) or getattr(config, "local_attention", None)


def _probes(tokenizer: Tokenizer, prompt: str, window: int | None) -> list[str]:
    """Texts of tokens from all over the vocabulary. None is without tokens."""
    counts = [*PROBE_TOKENS, window + 8] if window and window < LONGEST_PROBE else PROBE_TOKENS
    size = tokenizer.get_vocab_size()
    spread = [(7919 * (place + 1)) % size for place in range(sum(counts))]
    ends = np.cumsum(counts).tolist()
    texts = [tokenizer.decode(spread[end - count : end]) for count, end in zip(counts, ends, strict=True)]
    return [text for text in texts if len(tokenizer.encode(prompt + text))]


def _pick(tokenized: Tokenized, rows: NDArray[np.intp]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The ids of `rows`, one after another, and their lengths."""
    lengths = tokenized.units[rows]
    starts = (np.cumsum(tokenized.units) - tokenized.units)[rows]
    places = np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return tokenized.ids[places], lengths
