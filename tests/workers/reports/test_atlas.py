"""An atlas is a function of its landmarks, keeps what it can of the one before, and takes whatever vectors there are."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.measures.quality import unit
from workers.reports.atlas.communities import FRESH, MOST, communities, kept_numbers
from workers.reports.atlas.graph import Near, beside, graph
from workers.reports.atlas.layout import FEW, layout
from workers.reports.atlas.naming import cluster_names, words_of
from workers.reports.atlas.placing import placed, reach


def groups(count: int, size: int, seed: int = 0, dimension: int = 16) -> NDArray[np.float32]:
    """`count` groups of `size` directions each, one after another."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(count, dimension))
    return unit((centres[:, None] + 0.25 * random.normal(size=(count, size, dimension))).reshape(-1, dimension))


def first(near: Near, k: int = 15) -> Near:
    return Near(near.places[:, :k], near.cosines[:, :k])


def test_neighbours_are_the_nearest_in_whatever_block_they_are_looked_for() -> None:
    vectors, landmarks = groups(5, 20, seed=1), groups(4, 30)
    near, cosines = beside(vectors, landmarks, 3), vectors @ landmarks.T
    assert (near.places == np.argsort(-cosines, axis=1, kind="stable")[:, :3]).all()
    parts = [beside(part, landmarks, 3) for part in np.array_split(vectors, 7)]
    assert np.concatenate([part.cosines for part in parts]).tobytes() == near.cosines.tobytes()
    others = graph(landmarks, 3)
    assert not (others.places == np.arange(len(landmarks))[:, None]).any()
    assert np.allclose(others.cosines, np.sort(landmarks @ landmarks.T - 2 * np.eye(len(landmarks)), axis=1)[:, :-4:-1], atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17, FEW, FEW + 50])
@pytest.mark.parametrize("kind", ["different", "equal", "zero"])
def test_any_landmarks_have_places_and_clusters(count: int, kind: str) -> None:
    vectors = {"different": groups(1, count), "equal": groups(1, 1).repeat(count, axis=0), "zero": np.zeros((count, 16), np.float32)}[kind]
    near = graph(vectors, 45)
    assert near.places.shape == (count, 45)
    assert ((near.places >= 0).sum(axis=1) == min(45, max(count - 1, 0))).all()
    spots, clusters = layout(vectors, near), communities(first(near))
    assert spots.shape == (count, 2)
    assert np.isfinite(spots).all()
    assert sorted(set(clusters.tolist())) == list(range(len(set(clusters.tolist()))))
    assert set(cluster_names([""] * count, {}, clusters.tolist())) == set(clusters.tolist())


def test_the_same_landmarks_make_the_same_atlas() -> None:
    vectors = groups(6, 60)
    near = graph(vectors, 45)
    assert layout(vectors, near).tobytes() == layout(vectors, near).tobytes()
    assert communities(first(near)).tobytes() == communities(first(near)).tobytes()


def test_groups_lie_together_and_are_the_clusters() -> None:
    vectors = groups(6, 60)
    near, true = graph(vectors, 45), np.repeat(np.arange(6), 60)
    clusters, spots = communities(first(near)), layout(vectors, near)
    assert {len(set(clusters[true == group].tolist())) for group in range(6)} == {1}
    distances = np.linalg.norm(spots[:, None] - spots[None], axis=2) + np.diag(np.full(len(spots), np.inf))
    assert (true[distances.argmin(axis=1)] == true).mean() > 0.99


def test_a_refit_keeps_places_clusters_and_numbers() -> None:
    vectors = groups(8, 60)
    near = graph(vectors[:-60], 45)
    spots, clusters = layout(vectors[:-60], near), communities(first(near))
    held = np.arange(30, len(vectors))  # half of the first group is gone, the last is new
    start, before = np.full((len(held), 2), np.nan, np.float32), np.full(len(held), -1, np.int32)
    start[:-60], before[:-60] = spots[30:], clusters[30:]
    again = graph(vectors[held], 45)
    moved = np.linalg.norm(layout(vectors[held], again, start)[:-60] - spots[30:], axis=1)
    assert np.median(moved) < 0.2 * np.ptp(spots, axis=0).max()
    found = communities(first(again), before)
    numbers = kept_numbers(found, before, 2)
    named = np.array([numbers[cluster] for cluster in found.tolist()])
    assert (named[:-60] == before[:-60]).all()
    assert set(named[-60:].tolist()) == {FRESH}


def test_a_number_goes_to_one_cluster_and_is_never_given_again() -> None:
    before = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2, -1, -1], np.int32)
    halved = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 5], np.int32)
    numbers = kept_numbers(halved, before, 3)
    assert sorted(numbers.values()) == [0, 1, 2, 2 * FRESH, 2 * FRESH + 1, 2 * FRESH + 2]
    assert numbers[2] == 1


def test_so_many_groups_that_nobody_reads_them_are_made_fewer() -> None:
    clusters = communities(graph(groups(MOST + 20, 16, dimension=32), 15))
    assert int(clusters.max()) + 1 == MOST
    assert MOST < FRESH


def test_names_are_words_that_others_have_not_and_no_two_are_the_same() -> None:
    texts = ["the library of the sea and its fishes"] * 5 + ["the library of the wood and its trees"] * 5 + ["42"] * 4
    names = cluster_names(texts, {"lang": ["en"] * 10 + ["none"] * 4}, [0] * 5 + [1] * 5 + [2] * 4)
    assert {"sea", "fishes"} <= set(names[0].split(", "))
    assert {"wood", "trees"} <= set(names[1].split(", "))
    assert names[2] == "lang: none"
    same = cluster_names(["one sea"] * 6 + ["another wood"] * 2, {}, [0, 0, 1, 1, 2, 2, 3, 3])
    assert len(set(same.values())) == 4
    kept = cluster_names(texts, {}, [0] * 5 + [1] * 5 + [2] * 4, {0: "of old"})
    assert kept[0] == "of old"


def test_words_are_those_of_any_script() -> None:
    assert words_of("Crème brûlée, 3 x_y  मिठाई") == ["crème", "brûlée", "मिठाई"]
    assert words_of("東京都 x") == ["東京", "京都"]


def test_a_row_lies_nearer_to_its_landmark_than_to_any_other() -> None:
    places, random = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32), np.random.default_rng(1)
    landmarks, similarities = random.integers(0, 50, 400).astype(np.int32), random.uniform(0.01, 1, 400).astype(np.float32)
    hashes = random.integers(0, 2**64, 400, dtype=np.uint64)
    spots = placed(hashes, landmarks, similarities, places, reach(places))
    assert (np.linalg.norm(spots[:, None] - places[None], axis=2).argmin(axis=1) == landmarks).all()
    itself = placed(hashes[:50], np.arange(50, dtype=np.int32), np.ones(50, np.float32), places, reach(places))
    assert (itself == places).all()
