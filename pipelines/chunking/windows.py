"""Windows of a fixed number of tokens, with or without overlap, that begin and end between words."""

from itertools import chain

from pipelines.chunking.chunker import Span
from pipelines.chunking.tokens import Offsets, separable


def windows(text: str, tokens: Offsets, *, budget: int, overlap: int) -> list[Span]:
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
