"""How documents are cut into chunks that a model reads whole.

Whatever the chunker, its spans cover a text: the first starts at 0, each starts where the one before ends (or earlier, with overlap), the
last ends at the text's end, and none is blank unless the text is. Borders never part a character.

A piece of a text may have more tokens by itself than it had in its context: a word that is cut in two, or for some models a word that loses
the space before it. So the pieces of every text that is cut are counted once more by themselves, and those above the budget cut again.
What may still exceed it is what cannot be cut: one character, and whitespace to a model that has tokens for it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from typing import Any, Protocol

from pipelines.errors import SpecError
from pipelines.spec import ChunkingSpec
from pipelines.stable import fitting_borders, stable_borders
from pipelines.tokens import BATCH, Offsets, Tokenizer, separable

VERSION = 2
"""To be raised with every change that moves a border."""
SMALLEST_BUDGET = 4
"""Tokens."""
BATCH_CHARACTERS = 4_000_000
"""After so many, a batch of texts is full, and a longer text is cut section by section: it bounds the memory for encodings."""

INK = re.compile(r"\S")

Span = tuple[int, int]
"""Start and end in code points."""
Cut = Callable[[str, Offsets], list[Span]]


class Chunker(Protocol):
    """Cuts texts into chunks. Can be pickled."""

    @property
    def identity(self) -> dict[str, Any]:
        """The JSON literals that decide the spans."""
        ...

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """The chunks of each text, in order. A text's spans do not depend on the others."""
        ...


def make_chunker(spec: ChunkingSpec, tokenizer: Tokenizer, max_tokens: int | None, prompt_tokens: int = 0) -> Chunker:
    """The chunker that a spec declares, for a model with a window of `max_tokens` and a prompt of `prompt_tokens`.

    Raises SpecError if chunks of `spec.size` do not fit the model's window, or leave too little for the content.
    """
    if spec.by == "document":
        return DocumentChunker()
    if max_tokens is not None and spec.size > max_tokens:
        raise SpecError(f"chunking.size: expected at most {max_tokens} (the window of the model), found {spec.size}")
    added = tokenizer.special_tokens + prompt_tokens
    budget = spec.size - added
    if budget < SMALLEST_BUDGET:
        least = f"{added + SMALLEST_BUDGET} (the model and its prompt add {added})"
        raise SpecError(f"chunking.size: expected at least {least}, found {spec.size}")
    if spec.overlap > budget * 3 // 4:
        raise SpecError(f"chunking.overlap: expected at most {budget * 3 // 4} (three quarters of the content), found {spec.overlap}")
    identity = {"by": spec.by, "size": budget, "overlap": spec.overlap, "tokenizer": tokenizer.identity, "version": VERSION}
    return restore_chunker(identity, tokenizer)


def restore_chunker(identity: dict[str, Any], tokenizer: Tokenizer) -> Chunker:
    """The chunker of that `identity`. For one by tokens, `tokenizer` must be the one that the identity names."""
    if identity["by"] == "document":
        return DocumentChunker()
    budget = identity["size"]
    cut: Cut = (
        partial(_stable, budget=budget) if identity["by"] == "stable" else partial(_windows, budget=budget, overlap=identity["overlap"])
    )
    return TokenChunker(identity, tokenizer, budget, cut)


class DocumentChunker:
    """One chunk a document, however long."""

    @property
    def identity(self) -> dict[str, Any]:
        """Neither size nor tokenizer decides anything."""
        return {"by": "document", "version": VERSION}

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """One span each."""
        return [[(0, len(text))] for text in texts]


@dataclass(frozen=True, slots=True)
class TokenChunker:
    """Chunks of at most `budget` tokens."""

    identity: dict[str, Any]
    """The JSON literals that decide the spans."""
    tokenizer: Tokenizer
    """Counts the tokens."""
    budget: int
    """The most tokens of a chunk, without what the model adds."""
    cut: Cut
    """Where to cut a text that exceeds the budget."""

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """The chunks of each text, in order."""
        if all(len(text) <= BATCH_CHARACTERS for text in texts):
            return self._spans(texts)
        return [self._spans([text])[0] if len(text) <= BATCH_CHARACTERS else list(self._by_sections(text)) for text in texts]

    def _by_sections(self, text: str) -> Iterator[Span]:
        for start, end in pairwise(_sections(text)):
            [spans] = self._spans([text[start:end]])
            yield from ((start + first, start + last) for first, last in spans)

    def _spans(self, texts: Sequence[str]) -> list[list[Span]]:
        spans = [[(0, len(text))] for text in texts]
        long = (index for index, text in enumerate(texts) if not self._surely_fits(text))
        for batch in _batches(texts, long):
            tokens = self.tokenizer.offsets([texts[index] for index in batch])
            exceeding = [(index, offsets) for index, offsets in zip(batch, tokens, strict=True) if len(offsets) > self.budget]
            for index, offsets in exceeding:
                spans[index] = self.cut(texts[index], offsets)
            # Also those that were not cut: a window does not count the whitespace before it, for which some models have tokens.
            self._fit(texts, [index for index, _ in exceeding], spans)
        return spans

    def _surely_fits(self, text: str) -> bool:
        """No tokenizer makes more tokens than characters of ASCII, but for one that some put before the text."""
        return len(text) < self.budget and text.isascii()

    def _fit(self, texts: Sequence[str], cut: list[int], spans: list[list[Span]]) -> None:
        """Cut those pieces again that by themselves exceed the budget."""
        # What the model truncates of trailing whitespace is no loss.
        counts = iter(self.tokenizer.counts([texts[index][start:end].rstrip() for index in cut for start, end in spans[index]]))
        for index in cut:
            exceeding = [next(counts) > self.budget for _ in spans[index]]
            if any(exceeding):
                spans[index] = _ordered(
                    part
                    for span, exceeds in zip(spans[index], exceeding, strict=True)
                    for part in (self._refit(texts[index], span) if exceeds else (span,))
                )

    def _refit(self, text: str, span: Span) -> Iterator[Span]:
        piece = text[span[0] : span[1]]
        [tokens] = self.tokenizer.offsets([piece.rstrip()])
        borders = fitting_borders(piece, tokens, self.budget) if len(tokens) > self.budget else []
        for start, end in pairwise([0, *borders, len(piece)]):
            part = (span[0] + start, span[0] + end)
            yield from self._refit(text, part) if borders else (part,)


def _sections(text: str) -> list[int]:
    """Borders that cut `text` into sections of about BATCH_CHARACTERS, at a line or a word if there is one. None is blank unless it is."""
    borders = [0]
    while content := INK.search(text, borders[-1]):
        full = content.start() + BATCH_CHARACTERS
        low = full - BATCH_CHARACTERS // 4
        ended = next((place for mark in "\n " if (place := text.rfind(mark, low, full)) >= 0), full - 1)
        following = INK.search(text, ended + 1)
        if not following:
            break
        borders.append(following.start())
    return [*borders, len(text)]


def _ordered(spans: Iterable[Span]) -> list[Span]:
    """By start, without those that lie within another: the parts of a window reach into the windows that overlap it."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not kept or span[1] > kept[-1][1]:
            kept.append(span)
    return kept


def _batches(texts: Sequence[str], indices: Iterator[int]) -> Iterator[list[int]]:
    """Consecutive indices, as many as may be tokenised at once."""
    batch: list[int] = []
    characters = 0
    for index in indices:
        batch.append(index)
        characters += len(texts[index])
        if len(batch) == BATCH or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _stable(text: str, tokens: Offsets, *, budget: int) -> list[Span]:
    return list(pairwise([0, *stable_borders(text, tokens, budget), len(text)]))


def _windows(text: str, tokens: Offsets, *, budget: int, overlap: int) -> list[Span]:
    """Windows of at most `budget` tokens, each repeating at most `overlap` of the one before.

    A window begins at the start of its first token. It ends at the last word start in the last quarter of its advance, else at any token.
    """
    places = _Places(text, tokens)
    first, end = places.content()
    spans: list[Span] = []
    start = 0
    while end - first > budget and (stop := places.stop(first, first + budget, end, (budget - overlap) // 4)):
        spans.append((start, places.starts[stop]))
        first = places.resume(max(stop - overlap, first + 1), stop, overlap // 4)
        start = places.starts[first]
    return [*spans, (start, len(text))]


class _Places:
    """Before which tokens of a text a window may begin."""

    def __init__(self, text: str, tokens: Offsets) -> None:
        self._text = text
        self.starts: list[int] = tokens[:, 0].tolist()
        self._ends: list[int] = tokens[:, 1].tolist()
        self._separable: list[bool] = separable(tokens).tolist()

    def content(self) -> tuple[int, int]:
        """The first token that is not whitespace, and the one after the last such."""
        last = len(self.starts)
        first = next((token for token in range(last) if not self._blank(token)), last)
        return first, next((token + 1 for token in range(last - 1, first, -1) if not self._blank(token)), first)

    def stop(self, first: int, full: int, end: int, slack: int) -> int | None:
        """Where the window that begins at `first` and is full at `full` ends; None: nowhere before `end`."""
        nearest = chain(range(full, first, -1), range(full + 1, end))
        return next(filter(self._is_word, range(full, full - slack - 1, -1)), None) or next(filter(self._is_border, nearest), None)

    def resume(self, earliest: int, stop: int, slack: int) -> int:
        """Where the window after the one that ends at `stop` begins."""
        words = filter(self._is_word, range(earliest, min(earliest + slack, stop) + 1))
        return next(words, None) or next(filter(self._is_border, range(earliest, stop + 1)))

    def _blank(self, token: int) -> bool:
        return not self._text[self.starts[token] : self._ends[token]].strip()

    def _is_border(self, token: int) -> bool:
        return self._separable[token] and not self._blank(token)

    def _is_word(self, token: int) -> bool:
        start = self.starts[token]
        return self._is_border(token) and (self._text[start].isspace() or self._text[start - 1].isspace())
