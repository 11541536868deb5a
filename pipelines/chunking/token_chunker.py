"""The chunker that counts tokens: windows or stable borders, found a section at a time so that long texts cost no more than short ones."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pipelines.chunking.chunker import Cut, Span
from pipelines.chunking.stable import fitting_borders
from pipelines.chunking.tokens import BATCH, Tokenizer

BATCH_CHARACTERS = 4_000_000
"""After so many, a batch of texts is full, and a longer text is cut section by section: it bounds the memory for encodings."""

INK = re.compile(r"\S")


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
