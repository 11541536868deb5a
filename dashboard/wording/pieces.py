"""A document's text in pieces, each from one border of a chunk to the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from storage.reading.one_document import StoredChunk


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the text that the same chunks have."""

    start: int
    """In code points."""
    end: int
    text: str
    """Empty where no chunk has it: what is between chunks is not kept."""
    chunks: tuple[StoredChunk, ...]
    """That have it: none, one, or where chunks overlap two."""
    begins: tuple[StoredChunk, ...]
    """Whose first piece it is."""


def pieces_of(chunks: Sequence[StoredChunk]) -> list[Stretch]:
    """`chunks`: some of one document, in their order."""
    borders = sorted({border for chunk in chunks for border in (chunk.start, chunk.end)})
    pieces, first = [], 0
    for start, end in pairwise(borders):
        while first < len(chunks) and chunks[first].end <= start:
            first += 1
        having = []
        for chunk in chunks[first:]:
            if chunk.start > start:
                break
            if chunk.end >= end:
                having.append(chunk)
        text = having[0].text[start - having[0].start : end - having[0].start] if having else ""
        pieces.append(Stretch(start, end, text, tuple(having), tuple(chunk for chunk in having if chunk.start == start)))
    return pieces
