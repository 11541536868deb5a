"""Borders that the content chooses, so that an edit changes the chunk that it is in and, nearly always, at most two others.

**Candidates** are sentence ends. Where two of them lie more than two radii apart, word starts between them are candidates too, and
where these lie that far apart (base64, Chinese without punctuation) token starts. A candidate's key is a hash of the text of its own
sentence just before it: it does not depend on where in the document it stands.

**Borders** are the candidates whose key is the minimum among all candidates within a radius of w tokens on either side (local-minimum
chunking: Bjørner, Blass, Gurevich, "Content-dependent chunking for differential compression, the local maximum approach", 2010). Of equal
keys the first counts as the smaller. It follows that
1. two borders are more than w tokens apart: of two that were nearer, one would not be the minimum;
2. whether a candidate is a border depends only on the text within w tokens of it.
Let an edit change one sentence. By 2 it can only move borders within w tokens of that sentence; by 1 there is at most one of these on
either side, before and after. So at most one chunk on either side of the edit has a new end, and all others stay as they were: at most
two chunks change besides those that the edit lies in, as long as no segment is too long. Near the ends of a text, where candidates nearer
than w are left out, the bound is the same: two borders may move on the one side, and there is nothing on the other.

**Too long segments**: a segment between two borders may exceed the budget (about one in 500). It is cut at the smallest key that leaves
both pieces at least w and the first at most the budget long: again by nothing but its own content. Here the bound ends: where a border
moves, and a segment that it ends is cut, was cut or comes to be cut, a third chunk can change. That is rare, not impossible: a simulation
of sentence lengths and random keys saw it in about 3 of 100,000 edits with five radii in a budget, in 20 with four. Other ways to choose
the cut made no difference: where keys rise for longer than a budget, all places look alike from within w.

**Texts that repeat themselves** have no local minima. They are cut from left to right into pieces as long as may be, which are alike.
An edit then changes the remainder before it, the piece after it, whose phase differs, and the last: up to three.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise

import numpy as np

from pipelines.chunking.tokens import Offsets, separable

RADII = 5
"""Radii in a budget. Fewer make longer chunks, and more of the segments that have to be cut again."""
CONTEXT = 64
"""Code points before a candidate that its key is a hash of."""

SENTENCE_END = re.compile(
    r"""
      (?<![.!?…]) (?!(?<=\b\w)\.\s)     # not after a single letter or digit: initials, "e.g.", the number of a list's item
      [.!?…]++ ["'”’»)\]}*_]*+ \s++     # closing quotes, brackets and emphasis belong to the sentence
    | [。！？｡]++ [”’」』）】》〉]*+ \s*+    # no whitespace is needed after these
    | \n [^\S\n]*+ \n \s*+              # a blank line
    | \n [^\S\n]*+ (?= [-*+•|>\#] | \d{1,3}[.)]\s )     # a line of a list, table, quotation or heading follows
    """,
    re.VERBOSE,
)
"""A match ends where a sentence ends. Its trailing whitespace belongs to it, so that sentences partition a text.

Possessive, and a run of full stops matches only at its first: linear in the text's length.
"""
WORD_START = re.compile(r"(?<=\s)\S")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place where a border may be."""

    offset: int
    """Code points before it."""
    position: int
    """Tokens before it."""
    key: int
    """The smaller wins."""


def sentence_ends(text: str) -> list[int]:
    """The inner ends of sentences, ascending. Every sentence has a character that is not whitespace."""
    lead = len(text) - len(text.lstrip())
    return [match.end() for match in SENTENCE_END.finditer(text) if lead < match.end() < len(text)]


def stable_borders(text: str, tokens: Offsets, budget: int) -> list[int]:
    """Where to cut `text`, ascending: the borders of the module's docstring, and the cuts of too long segments."""
    finder = _Finder(text, tokens)
    radius = _radius(budget)
    borders = [finder.first, *_local_minima(list(finder.refined(0, finder.first, finder.last, radius)), radius), finder.last]
    return [place.offset for left, right in pairwise(borders) for place in (left, *finder.cuts(left, right, budget))][1:]


def fitting_borders(text: str, tokens: Offsets, budget: int) -> list[int]:
    """Where to cut `text`, taken as one segment, so that no piece has more than `budget` of its `tokens`.

    A piece is longer only where there is no place to cut: within one character, or within whitespace.
    """
    finder = _Finder(text, tokens)
    return [cut.offset for cut in finder.cuts(finder.first, finder.last, budget)]


def _radius(budget: int) -> int:
    return max(budget // RADII, 1)


def _local_minima(candidates: Sequence[Candidate], radius: int) -> list[Candidate]:
    """Those whose key is less than all within `radius` tokens before, and at most all within `radius` after. O(n): a monotonic stack."""
    alone = [True] * len(candidates)
    rising: list[int] = []
    for index, candidate in enumerate(candidates):
        while rising and candidates[rising[-1]].key > candidate.key:
            beaten = rising.pop()
            alone[beaten] &= candidate.position - candidates[beaten].position > radius
        if rising:
            alone[index] = candidate.position - candidates[rising[-1]].position > radius
        rising.append(index)
    return [candidate for candidate, kept in zip(candidates, alone, strict=True) if kept]


class _Finder:
    """The candidates of one text, by level: 0 sentence ends, 1 word starts, 2 token starts.

    Each is at a character that is not whitespace and has another such before it: whatever is cut, no piece is blank.
    """

    def __init__(self, text: str, tokens: Offsets) -> None:
        self._text = text
        self._tokens = tokens
        self._starts = np.maximum.accumulate(tokens[:, 0])
        self._lead = len(text) - len(text.lstrip())
        self._sentences = sentence_ends(text)
        self.first = Candidate(0, 0, 0)
        self.last = Candidate(len(text), len(tokens), 0)

    def refined(self, level: int, left: Candidate, right: Candidate, radius: int) -> Iterator[Candidate]:
        """Those of `level` more than `radius` from `left` and `right`, and between any two too far apart, those of the next."""
        inner = self._between(level, left.position + radius + 1, right.position - radius - 1)
        for before, after in pairwise([left, *inner, right]):
            if level < 2 and after.position - before.position > 2 * radius:
                yield from self.refined(level + 1, before, after, radius)
            if after is not right:
                yield after

    def cuts(self, left: Candidate, right: Candidate, budget: int) -> Iterator[Candidate]:
        """Where to cut the segment from `left` to `right` so that every piece fits, from left to right."""
        while right.position - left.position > budget and (cut := self._cut(left, right, budget)):
            yield cut
            left = cut

    def _cut(self, left: Candidate, right: Candidate, budget: int) -> Candidate | None:
        length = right.position - left.position
        radius = _radius(budget)
        rest = length - budget if 2 * length <= 3 * budget else 0  # two pieces, if that leaves a choice
        low = left.position + max(radius, rest)
        for level in range(3):
            within = self._between(level, low, left.position + budget)
            if smallest := min((candidate.key for candidate in within if candidate.position <= right.position - radius), default=None):
                # Of equal keys the last, even if little is left behind it: where a text repeats itself, all pieces but one are then alike.
                return next(candidate for candidate in reversed(within) if candidate.key == smallest)
        return self._nearest(left, right, low)

    def _nearest(self, left: Candidate, right: Candidate, low: int) -> Candidate | None:
        """The last token start before the position `low`, else the first after it."""
        index = bisect_left(self._token_starts, int(self._starts[low]))
        around = self._token_starts[max(index - 1, 0) : index + 2]
        return next((self._candidate(offset) for offset in around if left.offset < offset < right.offset), None)

    def _between(self, level: int, low: int, high: int) -> list[Candidate]:
        """Those of `level` with low <= position <= high, where low > 0."""
        if low > high:
            return []
        start = max(int(self._starts[low - 1]), self._lead) + 1
        stop = int(self._starts[high]) + 1 if high < len(self._starts) else len(self._text)
        return [self._candidate(offset) for offset in self._offsets(level, start, stop)]

    def _offsets(self, level: int, start: int, stop: int) -> Sequence[int]:
        if level == 1:
            return [match.start() for match in WORD_START.finditer(self._text, start, stop)]
        places = self._token_starts if level else self._sentences
        return places[bisect_left(places, start) : bisect_left(places, stop)]

    def _candidate(self, offset: int) -> Candidate:
        sentence = bisect_left(self._sentences, offset)
        start = max(self._sentences[sentence - 1] if sentence else 0, offset - CONTEXT)
        key = blake2b(self._text[start:offset].encode(), digest_size=8).digest()
        return Candidate(offset, int(np.searchsorted(self._starts, offset)), int.from_bytes(key))

    @cached_property
    def _token_starts(self) -> list[int]:
        starts = self._tokens[separable(self._tokens), 0].tolist()
        return [start for start in starts if start > self._lead and not self._text[start].isspace()]
