"""Tokenizers as the chunkers see them: where each token lies in a text, and how many there are."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import tokenizers

from pipelines.errors import ModelError

Offsets = npt.NDArray[np.int64]
"""Shape (n, 2): the start and the end of each token in code points."""

LARGEST = 128 << 20
"""Bytes of a `tokenizer.json`: those of 260,000 tokens have 35 million."""
UNKNOWN = "\U0010ffff \x01 zqxj"
"""What no vocabulary has: without a token for the unknown the library raises an error in the middle of a corpus."""
BATCH = 1000
"""The most texts whose encodings are held at once: an encoding takes several hundred bytes a token."""


class Tokenizer(Protocol):
    """What a chunker needs of a tokenizer. Nothing here truncates, pads or adds special tokens."""

    @property
    def identity(self) -> str:
        """A hash of what decides the tokens."""
        ...

    @property
    def special_tokens(self) -> int:
        """How many tokens the model adds around an input."""
        ...

    def offsets(self, texts: Sequence[str]) -> list[Offsets]:
        """Where the tokens of each text lie."""
        ...

    def counts(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has; faster than `offsets`."""
        ...


def identity_of(content: bytes) -> str:
    """The identity of a ModelTokenizer, without making one."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class ModelTokenizer:
    """A `tokenizer.json`."""

    def __init__(self, content: bytes) -> None:
        """Raises ModelError if `content` is none, or cannot deal with a character that it does not know."""
        self.content = content
        self.identity = identity_of(content)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(content.decode())
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self._tokenizer.encode(UNKNOWN)
            self._special = self._tokenizer.encode("", add_special_tokens=True).ids
        except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
            raise ModelError(f"expected a tokenizer that reads any text, found {str(error)[:200]}: save the model again") from None
        self.special_tokens = len(self._special)

    @classmethod
    def at(cls, path: str | Path) -> "ModelTokenizer":
        """The tokenizer in a file. Raises ModelError if there is no readable one at `path`."""
        try:
            if (size := Path(path).stat().st_size) > LARGEST:
                raise ModelError(f"{path}: expected a tokenizer of at most {LARGEST >> 20} MiB, found {size >> 20}: do not use this model")
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise ModelError(f"expected a tokenizer at {path}, found {error.strerror}") from None
        except ModelError as error:
            raise ModelError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None

    @property
    def largest_id(self) -> int:
        """Of the vocabulary and of what is put around an input. Added tokens, which a text would have to name, do not count."""
        return max([*self._tokenizer.get_vocab(with_added_tokens=False).values(), *self._special], default=0)

    def __reduce__(self) -> tuple[Callable[[bytes], "ModelTokenizer"], tuple[bytes]]:
        return ModelTokenizer, (self.content,)

    def offsets(self, texts: Sequence[str]) -> list[Offsets]:
        """Where the tokens of each text lie. Pieces of one character (byte-level models) have the same offsets."""
        # Not encode_batch_fast: its offsets are all zero.
        return [
            _pairs(encoding.offsets)
            for batch in _batches(texts)
            for encoding in self._tokenizer.encode_batch(batch, add_special_tokens=False)
        ]

    def counts(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has."""
        return [
            len(encoding) for batch in _batches(texts) for encoding in self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        ]


class WordTokenizer:
    """For the stand-in model `hash`: runs of word characters, and every other character that is not whitespace."""

    identity = "words-1"
    special_tokens = 0
    _pattern = re.compile(r"\w+|[^\w\s]")

    def offsets(self, texts: Sequence[str]) -> list[Offsets]:
        """Where the words of each text lie."""
        return [
            np.fromiter((place for match in self._pattern.finditer(text) for place in match.span()), dtype=np.int64).reshape(-1, 2)
            for text in texts
        ]

    def counts(self, texts: Sequence[str]) -> list[int]:
        """How many words each text has."""
        return [sum(1 for _ in self._pattern.finditer(text)) for text in texts]


def separable(tokens: Offsets) -> npt.NDArray[np.bool_]:
    """Before which tokens a text can be cut, shape (n,): not within the character that another token is a piece of too."""
    ends = np.maximum.accumulate(tokens[:, 1])
    before = np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1]])[: len(tokens)]
    return (tokens[:, 0] >= before) & (tokens[:, 1] > tokens[:, 0])


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    return (list(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH))


def _pairs(pairs: list[tuple[int, int]]) -> Offsets:
    # Twice as fast as np.array on a list of tuples.
    return np.fromiter(chain.from_iterable(pairs), dtype=np.int64, count=2 * len(pairs)).reshape(-1, 2)
