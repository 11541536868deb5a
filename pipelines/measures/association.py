"""What words a space holds to be alike: the word embedding association test (WEAT), and the same on sentences (SEAT).

Caliskan, Bryson and Narayanan, Semantics derived automatically from language corpora contain human-like biases, Science 356, 2017;
May et al., On measuring social biases in sentence encoders, NAACL 2019.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from pipelines.measures.quality import unit

EXACT = 20_000
"""Divisions of the target words up to which all of them are looked at: 8 and 8 words have 12,870."""
SAMPLED = 20_000
"""Divisions that are drawn where there are more."""
FEWEST = 2
"""Words of a list that must be known for it to be compared."""
_TIE = 1e-9
"""Differences of association that are less are equal: float rounding."""

Words = tuple[str, ...]
Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WordTest:
    """Two lists of target words, and two lists of attributes that they are held against."""

    name: str
    targets: tuple[tuple[str, Words], tuple[str, Words]]
    """Each a name and its words."""
    attributes: tuple[tuple[str, Words], tuple[str, Words]]
    neutral: bool = False
    """Told to compare models by: no limit applies to it."""

    @property
    def lists(self) -> tuple[Words, Words, Words, Words]:
        """The words of both targets, then of both attributes."""
        return self.targets[0][1], self.targets[1][1], self.attributes[0][1], self.attributes[1][1]

    @property
    def words(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys(word for words in self.lists for word in words))

    def __str__(self) -> str:
        return f"{self.targets[0][0]}/{self.targets[1][0]} to {self.attributes[0][0]}/{self.attributes[1][0]}"


@dataclass(frozen=True, slots=True)
class Association:
    """How much more the first targets are associated with the first attributes than the second ones are."""

    effect: float
    """Cohen's d, from -2 to 2: the difference of both targets' mean association, in standard deviations of all their words."""
    p: float
    """One-sided: the share of all divisions of the target words into two such lists that differ at least as much."""
    exact: bool
    """Whether all divisions were looked at, and not a fixed sample of them."""
    missing: int
    """Words without a direction: they take no part."""

    @property
    def significant(self) -> bool:
        """Whether chance does not explain it, in either direction, at .05."""
        return min(self.p, 1 - self.p) <= 0.025


def built_in_tests() -> dict[str, WordTest]:
    """Tests 1, 6, 7 and 8 of Caliskan et al., by name."""
    return parse_tests(files(__package__).joinpath("word_tests.toml").read_text("utf-8"))


def parse_tests(text: str) -> dict[str, WordTest]:
    """The tests of a TOML file, by name. Raises ValueError that says what was expected of which of them."""
    return {name: _parsed(name, table) for name, table in tomllib.loads(text).items()}


def _parsed(name: str, table: object) -> WordTest:
    if not isinstance(table, Mapping):
        raise ValueError(f"{name}: expected a table with targets and attributes, found {table!r:.80}")
    return WordTest(name, _pair(name, table, "targets"), _pair(name, table, "attributes"), bool(table.get("neutral", False)))


def _pair(name: str, table: Mapping[str, object], key: str) -> tuple[tuple[str, Words], tuple[str, Words]]:
    lists = table.get(key)
    if not isinstance(lists, Mapping) or len(lists) != 2 or not all(map(_is_list, lists.values())):
        raise ValueError(f"{name}.{key}: expected two lists of at least {FEWEST} different words, each with a name, found {lists!r:.80}")
    (first, some), (second, others) = lists.items()
    return (first, tuple(some)), (second, tuple(others))


def _is_list(words: object) -> bool:
    return isinstance(words, list) and all(isinstance(word, str) and word.strip() for word in words) and len({*words}) >= FEWEST


def measure_test(test: WordTest, vectors: Mapping[str, NDArray[np.floating]]) -> Association | None:
    """`test` by the vectors (d,) of its words. A word that has none, or one without a direction, is missing; None if a list has too few."""
    known = {word: vector for word, vector in vectors.items() if np.isfinite(vector).all() and vector.any()}
    lists = [[known[word] for word in dict.fromkeys(words) if word in known] for words in test.lists]
    if min(map(len, lists)) < FEWEST:
        return None
    missing = sum(word not in known for word in test.words)
    x, y, a, b = (np.stack(rows).astype(np.float32) for rows in lists)
    return association(x, y, a, b, missing)


def association(x: Matrix, y: Matrix, a: Matrix, b: Matrix, missing: int = 0, seed: int = 0) -> Association:
    """Targets `x` and `y`, attributes `a` and `b`, (n, d) each, n at least 2. Lists may differ in length: means are compared, not sums."""
    targets = np.concatenate([unit(x), unit(y)]).astype(np.float64)
    scores = targets @ (unit(a).mean(axis=0) - unit(b).mean(axis=0))
    spread = scores.std(ddof=1)
    difference = scores[: len(x)].mean() - scores[len(x) :].mean()
    exact = comb(len(scores), len(x)) <= EXACT
    p = _share(scores, len(x), _divisions(len(scores), len(x), exact, seed)) if spread else 1.0
    return Association(float(difference / spread) if spread else 0.0, p, exact, missing)


def _divisions(count: int, first: int, exact: bool, seed: int) -> NDArray[np.intp]:
    """Places of the words that go into the first list, (divisions, first): all, or this one and a sample."""
    if exact:
        return np.array(list(combinations(range(count), first)))
    random = np.random.default_rng(seed)
    drawn = np.argsort(random.random((SAMPLED - 1, count)), axis=1)[:, :first]
    return np.concatenate([np.arange(first)[None], drawn])


def _share(scores: NDArray[np.float64], first: int, divisions: NDArray[np.intp]) -> float:
    """Of divisions whose first list scores at least as much: as all words are in one list or the other, it alone tells the difference."""
    sums = scores[divisions].sum(axis=1)
    return float((sums >= scores[:first].sum() - _TIE).mean())


def worst(found: Sequence[tuple[WordTest, Association | None]]) -> float | None:
    """The largest effect, in either direction, of tests that are not neutral, 0 where chance explains them; None if none was measured."""
    judged = [measured for test, measured in found if not test.neutral and measured is not None]
    return max((abs(one.effect) if one.significant else 0.0 for one in judged), default=None)
