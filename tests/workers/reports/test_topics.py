"""What is on the map, by which topics, and what is like nothing else: found, and the same again until something changed."""

import random
from typing import Any

import numpy as np
import pytest

from flows import report
from storage.collection import Collection
from storage.reports.kept_reports import kept_reports
from storage.store.lance import Store
from tests.conftest import Workplace
from workers.reports import run_reports
from workers.reports.analyses.outliers import usual_of

TOPICS = ["sea", "wood", "city"]


def documents(count: int, first: int = 0) -> tuple[dict[str, str], list[str]]:
    """Of three topics, each with words of its own; the kind of a document is its topic."""
    chance, texts, kinds = random.Random(first), dict[str, str](), list[str]()
    for number in range(first, first + count):
        topic = TOPICS[number % 3]
        kinds.append(topic)
        texts[f"d{number}"] = f"about the {topic} " + " ".join(f"{topic}{'abcdefgh'[chance.randrange(8)]}" for _ in range(4))
    return texts, kinds


def said(workplace: Workplace, kind: str) -> dict[str, Any]:
    [kept] = report("docs", [kind], workplace.config).reports
    return kept.summary


def load(workplace: Workplace, name: str, count: int, first: int = 0) -> None:
    texts, kinds = documents(count, first)
    workplace.write(name, texts, kinds)
    workplace.apply()


def spots(workplace: Workplace) -> dict[bytes, tuple[float, float]]:
    """Where the rows of the version that was reported on last lie."""
    made = report("docs", ["map"], workplace.config)
    collection = Collection(Store(workplace.store), "docs")
    [kept] = [kept for kept in kept_reports(collection, made.generation, "rows") if kept.version == made.version]
    [(table, version)] = kept.tables.items()
    rows = Store(workplace.store).open(table, version).to_table(["row_hash", "x", "y"])
    return {row["row_hash"]: (row["x"], row["y"]) for row in rows.to_pylist()}


def test_a_map_tells_what_it_keeps_and_nothing_on_it_moves(workplace: Workplace) -> None:
    workplace.spec()
    load(workplace, "a.parquet", 240)
    first, there = said(workplace, "map"), spots(workplace)
    assert (first["rows"], first["atlas"]) == (240, 1)
    assert 0 < first["neighbours_kept"] <= 1
    load(workplace, "b.parquet", 30, first=240)
    here = spots(workplace)
    assert len(here) == 270
    assert there.items() <= here.items()


def test_clusters_count_every_row_and_keep_their_names(workplace: Workplace) -> None:
    workplace.spec()
    load(workplace, "a.parquet", 240)
    first = said(workplace, "clusters")
    assert sum(one["rows"] for one in first["clusters"]) == first["rows"] == 240
    ids = set(workplace.published()["chunk_id"].to_pylist())
    assert all(set(one["examples"]) <= ids and one["examples"] for one in first["clusters"])
    load(workplace, "b.parquet", 60, first=240)
    second = said(workplace, "clusters")
    assert {one["cluster"]: one["name"] for one in second["clusters"]} == {one["cluster"]: one["name"] for one in first["clusters"]}
    assert sum(one["rows"] - one["rows_before"] for one in second["clusters"]) == 60


def test_clusters_are_named_again_as_before_after_a_refit(workplace: Workplace) -> None:
    workplace.spec()
    load(workplace, "a.parquet", 240)
    first = {one["cluster"]: one["name"] for one in said(workplace, "clusters")["clusters"]}
    [kept] = report("docs", ["clusters"], workplace.config, wish=run_reports.Wish(refit=True)).reports
    assert kept.atlas == 2
    assert {one["cluster"]: one["name"] for one in kept.summary["clusters"]} == first


@pytest.mark.parametrize("among", [True, False], ids=["in the first load", "since the atlas"])
def test_outliers_are_found_whether_or_not_they_are_among_the_landmarks(workplace: Workplace, among: bool) -> None:
    """Three that are like each other, and like nothing else."""
    chance = np.random.default_rng(0)
    centre = np.eye(32, dtype=np.float32)[0]
    usual = centre + 0.2 * chance.normal(size=(600, 32)).astype(np.float32)
    odd = -centre + 0.02 * chance.normal(size=(3, 32)).astype(np.float32)
    every = np.concatenate([usual, odd])
    every /= np.linalg.norm(every, axis=1, keepdims=True)
    landmarks = every if among else every[:600]
    made = usual_of(landmarks)
    products = every @ landmarks.T
    nearest = products.argmax(axis=1).astype(np.int32)
    products[np.arange(len(landmarks)), np.arange(len(landmarks))] = -2
    odds = made.odds(products.max(axis=1).astype(np.float32), nearest)
    assert odds[600:].max() <= np.sort(odds)[8]


def test_outliers_are_told_by_their_ids_and_few_rows_have_none(workplace: Workplace) -> None:
    workplace.spec()
    load(workplace, "a.parquet", 60)
    assert "nothing" in said(workplace, "outliers")
    load(workplace, "b.parquet", 300, first=60)
    report("docs", ["map"], workplace.config, wish=run_reports.Wish(refit=True))
    found = said(workplace, "outliers")
    assert found["outliers"] == sorted(found["outliers"], key=lambda one: (one["odds"], one["similarity"]))
    assert {one["chunk_id"] for one in found["outliers"]} <= set(workplace.published()["chunk_id"].to_pylist())
    assert sum(one["rows"] for one in found["similarities"]) == found["rows"]
