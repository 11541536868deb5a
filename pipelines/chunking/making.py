"""How documents are cut into chunks that a model reads whole.

Whatever the chunker, its spans cover a text: the first starts at 0, each starts where the one before ends (or earlier, with overlap), the
last ends at the text's end, and none is blank unless the text is. Borders never part a character.

A piece of a text may have more tokens by itself than it had in its context: a word that is cut in two, or for some models a word that loses
the space before it. So the pieces of every text that is cut are counted once more by themselves, and those above the budget cut again.
What may still exceed it is what cannot be cut: one character, and whitespace to a model that has tokens for it.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from pipelines.chunking.chunker import Chunker, Cut, Span
from pipelines.chunking.stable import stable_borders
from pipelines.chunking.token_chunker import TokenChunker
from pipelines.chunking.tokens import Offsets, Tokenizer
from pipelines.chunking.windows import windows
from pipelines.errors import SpecError
from pipelines.spec.declared import ChunkingSpec

VERSION = 2
"""To be raised with every change that moves a border."""
SMALLEST_BUDGET = 4
"""Tokens."""


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
        partial(_stable, budget=budget) if identity["by"] == "stable" else partial(windows, budget=budget, overlap=identity["overlap"])
    )
    return TokenChunker(identity, tokenizer, budget, cut)


class DocumentChunker:
    """One chunk a document, however long."""

    @property
    def identity(self) -> dict[str, Any]:
        """Neither size nor tokenizer decides anything."""
        return {"by": "document", "version": VERSION}

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        return [[(0, len(text))] for text in texts]


def _stable(text: str, tokens: Offsets, *, budget: int) -> list[Span]:
    return list(pairwise([0, *stable_borders(text, tokens, budget), len(text)]))
