"""Measures of reports, by values worked out by hand and by what holds of all inputs."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.measures.association import association, built_in_tests, measure_test, parse_tests, worst
from pipelines.measures.divergence import alike, change, divergence
from pipelines.measures.groups import Centres, gap, interval
from pipelines.measures.labelling import fit_labeller
from pipelines.measures.scores import classified, linear_labels, nearest_labels, solved, spearman

EAST, NORTH = np.array([1, 0], np.float32), np.array([0, 1], np.float32)


def points(count: int, seed: int = 0, dimension: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


def test_an_association_is_what_the_formula_gives() -> None:
    """Scores of 1, 1 and -1, -1: a difference of 2, a standard deviation of sqrt(4/3), and 1 of 6 divisions as far apart."""
    found = association(np.stack([EAST, 2 * EAST]), np.stack([NORTH, NORTH]), EAST[None], NORTH[None])
    assert found.effect == pytest.approx(2 / np.sqrt(4 / 3))
    assert (found.p, found.exact) == (pytest.approx(1 / 6), True)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_an_association_turns_with_its_lists_and_not_with_its_space(seed: int) -> None:
    x, y, a, b = (points(4, seed * 4 + n) for n in range(4))
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))
    there = association(x, y, a, b)
    assert association(y, x, a, b).effect == pytest.approx(-there.effect, abs=1e-5)
    assert association(x, y, b, a).effect == pytest.approx(-there.effect, abs=1e-5)
    assert association(*((3 * one @ turn).astype(np.float32) for one in (x, y, a, b))).effect == pytest.approx(there.effect, abs=1e-4)
    scores = np.concatenate([x, y]) / np.linalg.norm(np.concatenate([x, y]), axis=1, keepdims=True)
    scores = scores @ (sum(r / np.linalg.norm(r) for r in a) / 4 - sum(r / np.linalg.norm(r) for r in b) / 4)
    sums = [scores[list(chosen)].sum() for chosen in combinations(range(8), 4)]
    assert there.p == pytest.approx(np.mean(np.array(sums) >= scores[:4].sum() - 1e-6), abs=0.015)


def test_words_without_a_direction_take_no_part_and_are_counted() -> None:
    [test] = parse_tests('[one]\ntargets = {x = ["a", "b"], y = ["c", "d", "e"]}\nattributes = {p = ["f", "g"], q = ["h", "i"]}').values()
    vectors = dict(zip(test.words, points(9), strict=True))
    whole = measure_test(test, vectors)
    assert whole is not None and whole.missing == 0
    less = measure_test(test, vectors | {"c": np.zeros(8, np.float32)})
    assert less is not None and less.missing == 1
    assert measure_test(test, {word: vector for word, vector in vectors.items() if word != "a"}) is None


def test_the_built_in_lists_are_those_of_the_paper() -> None:
    tests = built_in_tests()
    assert {name: [len(words) for words in test.lists] for name, test in tests.items()} == {
        "weat1": [25] * 4,
        "weat6": [8] * 4,
        "weat7": [8] * 4,
        "weat8": [8] * 4,
    }
    assert worst([(tests["weat1"], None), (tests["weat6"], None)]) is None


@pytest.mark.parametrize("text", ["a = 1", "[a]\ntargets = {x = ['b', 'c']}", "[a]\ntargets = {x = ['b'], y = ['c', 'd']}", "[a"])
def test_a_file_that_is_not_of_word_lists_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="xpected"):
        parse_tests(text)


def test_groups_lie_where_their_rows_do() -> None:
    centres = Centres(3, 2)
    centres.add(np.array([0, 0, 1]), np.stack([EAST, NORTH, 5 * EAST]))
    centres.add(np.array([1]), np.zeros((1, 2), np.float32))
    first, second, empty = centres.measured()
    assert (first.rows, first.share, first.spread) == (2, 0.5, pytest.approx(1 - np.sqrt(0.5)))
    assert (second.rows, second.spread) == (2, pytest.approx(0))
    assert second.distance == pytest.approx(1 - 2 / np.sqrt(5))
    assert (empty.rows, empty.spread, empty.distance) == (0, None, None)


@given(st.lists(st.tuples(st.integers(1, 400), st.floats(0, 1)), min_size=2, max_size=12))
def test_what_is_certain_of_a_gap_is_no_more_than_the_gap(groups: list[tuple[int, float]]) -> None:
    counts, rates = [count for count, _ in groups], [rate for _, rate in groups]
    found = gap(rates, counts)
    judged = [rate for count, rate in groups if count >= 30]
    if len(judged) < 2:
        assert found is None
    else:
        assert found is not None
        assert 0 <= found.certain <= found.gap == pytest.approx(max(judged) - min(judged))


def test_small_groups_raise_no_false_alarm_and_a_real_gap_is_found() -> None:
    random = np.random.default_rng(0)
    counts = [30] * 40 + [2000]
    clean = [gap([random.binomial(count, 0.4) / count for count in counts], counts) for _ in range(200)]
    assert sum(one.certain > 0 for one in clean if one) <= 2
    assert np.mean([one.gap for one in clean if one]) > 0.3
    worse = gap([0.4, 0.4, 0.7], [2000, 500, 100])
    assert worse is not None and worse.certain > 0.1 and (worse.highest, worse.lowest) == (2, 0)
    assert interval(0.5, 100, 0.95)[0] == pytest.approx(0.404, abs=0.001)


def test_labels_are_told_by_neighbours_and_by_planes() -> None:
    labels = np.arange(60) % 3
    vectors = np.eye(8, dtype=np.float32)[labels] + 0.1 * points(60)
    told, shares = nearest_labels(vectors[:30], labels[:30], vectors[30:])
    assert (told == labels[30:]).all() and shares.min() > 0.5
    assert (linear_labels(vectors[:30], labels[:30], vectors[30:]) == labels[30:]).all()
    found = classified(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 2]))
    assert (found.accuracy, found.f1) == (0.5, pytest.approx((4 / 5 + 0) / 2))


def test_pairs_and_analogies_have_the_values_of_their_definitions() -> None:
    first = np.stack([EAST, EAST, EAST])
    second = np.stack([EAST, EAST + NORTH, NORTH])
    assert spearman(first, second, [3, 2, 1]) == pytest.approx(1)
    assert spearman(first, second, [1, 2, 3]) == pytest.approx(-1)
    assert spearman(first, second, [1, 1, 1]) is None
    words = {"man": [1, 0, 0], "woman": [1, 1, 0], "king": [1, 0, 2], "queen": [1, 1, 2], "pawn": [0, 0, -1]}
    vectors = {word: np.array(numbers, np.float32) for word, numbers in words.items()}
    assert solved([("man", "king", "woman", "queen"), ("man", "king", "woman", "pawn")], vectors) == 0.5


def test_divergence_is_0_of_the_same_and_1_of_nothing_in_common() -> None:
    assert divergence(np.array([0.5, 0.5, 0]), np.array([0.5, 0.5, 0])) == 0
    assert divergence(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(1)


def test_a_clean_night_is_no_drift_and_a_topic_that_comes_is() -> None:
    random = np.random.default_rng(3)
    before = random.multinomial(20_000, random.dirichlet(np.ones(80)))
    clean = [
        change(before, random.multinomial(200, before / before.sum()), random.multivariate_hypergeometric(before, 200)) for _ in range(20)
    ]
    assert not [found for found in clean if found.p <= 0.001]
    assert max(abs(found.z).max() for found in clean) < 4.5
    topic = int(np.argsort(before)[40])
    planted = random.multinomial(200, before / before.sum()) + 260 * (np.arange(80) == topic)
    found = change(before, planted, random.multivariate_hypergeometric(before, 200))
    assert (found.p, int(found.z.argmax())) == (0.001, topic) and found.z[topic] > 6 and found.divergence > found.chance
    gone = change(before, np.zeros(80, np.int64), np.where(np.arange(80) == before.argmax(), before // 2, 0))
    assert (gone.p, int(gone.z.argmin())) == (0.001, int(before.argmax()))


def test_a_change_of_billions_takes_no_longer() -> None:
    before = np.full(100, 50_000_000)
    found = change(before, np.full(100, 500_000), np.full(100, 400_000))
    assert found.p > 0.5
    assert change(before, np.full(100, 500_000) + 9_000 * (np.arange(100) == 3), np.full(100, 400_000)).z.argmax() == 3


def test_a_long_document_is_one_draw() -> None:
    before = np.full(20, 500)
    book = 60 * (np.arange(20) == 3)
    assert change(before, book, np.zeros(20, np.int64)).p == 0.001
    assert change(before, book, np.zeros(20, np.int64), alike(np.array([60]))).p > 0.5
    assert alike(np.array([1, 1, 1])) == 1


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_a_change_holds_of_any_counts(counts: list[tuple[int, int, int]]) -> None:
    before, added, removed = (np.array(column, np.int64) for column in zip(*counts, strict=True))
    removed = np.minimum(removed, before)
    if not before.sum() or not (before + added - removed).sum():
        with pytest.raises(ValueError, match="expected rows"):
            change(before, added, removed)
        return
    found = change(before, added, removed)
    assert 0 <= found.divergence <= 1 and 0 < found.p <= 1 and 0 <= found.moved <= 1 and np.isfinite(found.z).all()
    again = change(before, added, removed)
    assert (again.p, again.chance) == (found.p, found.chance)


def test_a_few_labels_are_spread_and_a_confidence_is_a_chance() -> None:
    truth = np.random.default_rng(1).integers(0, 5, 4000)
    vectors = np.eye(16, dtype=np.float32)[truth] + 0.45 * points(4000, dimension=16)
    labeller = fit_labeller(vectors[:100], truth[:100], 6)
    told, confidence = labeller.label(vectors[100:])
    right = told == truth[100:]
    assert right.mean() > 0.6
    assert labeller.accuracy == pytest.approx(right.mean(), abs=0.12)
    for low in (0.3, 0.6):
        chosen = (confidence >= low) & (confidence < low + 0.3)
        assert right[chosen].mean() == pytest.approx(confidence[chosen].mean(), abs=0.15)
    one = fit_labeller(vectors[:1], truth[:1], 6)
    assert one.accuracy is None and (one.label(vectors)[0] == truth[0]).all()
    with_two = fit_labeller(vectors[:60], (truth[:60] > 2).astype(np.intp), 2)
    assert ((with_two.label(vectors)[0] == 1) == (truth > 2)).mean() > 0.7
