"""Chunks that say the same, or nearly, are found; and an update says what a report from the beginning would say."""

import random
import shutil
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flows import report
from pipelines.measures.quality import unit
from storage.collection import Collection
from storage.reading.neighbours import to_numpy
from storage.store import spill
from storage.store.lance import Store
from tests.conftest import Workplace
from workers.reports import run_reports
from workers.reports.pairing import near, pair_table

LEAST = 0.3
SPEC = f"reports = {{ duplicates = {{ min_cosine = {LEAST} }} }}"


def said(workplace: Workplace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The summary of the report, and the table of pairs."""
    (kept,) = report(config=workplace.config).reports
    store = Store(workplace.store)
    (table,) = (name for name in kept.tables if "-pairs-" in name)
    rows = store.open(table, kept.tables[table]).to_table().sort_by([("chunk_id", "ascending"), ("other", "ascending")])
    return kept.summary, rows.to_pylist()


def from_the_beginning(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a report says where there was none before: with the same atlas, in a copy of the store."""
    copy = Workplace(workplace.root / "copy")
    shutil.copytree(workplace.root, copy.root, ignore=shutil.ignore_patterns("copy", "*.reports.*", "reports"))
    made = said(copy)
    shutil.rmtree(copy.root)
    return made


def every_pair(workplace: Workplace) -> set[tuple[str, str]]:
    """Of different contents, by the smallest of their chunk ids, whose cosine is large enough."""
    rows = workplace.published()
    _, first = np.unique(np.array(rows["text"].to_pylist()), return_index=True)
    rows = rows.take(pa.array(first)).sort_by("content_hash")
    vectors = unit(to_numpy(rows["vector"].combine_chunks())).astype(np.float64)
    ids = rows["chunk_id"].to_pylist()
    return {(ids[a], ids[b]) for a, b in zip(*np.nonzero(np.triu(vectors @ vectors.T >= LEAST, 1)), strict=True)}


def test_copies_and_near_duplicates_are_found(workplace: Workplace) -> None:
    workplace.spec(rest=SPEC)
    texts = {f"d{number:03}": f"text {number}" for number in range(120)}
    workplace.write("a.parquet", texts | {"e0": "text 7", "e1": "text 7", "e2": "text 9"})
    workplace.update()
    summary, pairs = said(workplace)
    assert (summary["rows"], summary["contents"]) == (123, 120)
    assert summary["exact"] == {"groups": 2, "rows": 5, "largest": [{"chunk_id": "d007#0", "rows": 3}, {"chunk_id": "d009#0", "rows": 2}]}
    expected, found = every_pair(workplace), {(pair["chunk_id"], pair["other"]) for pair in pairs}
    assert found <= expected
    assert 0 < len(found) == summary["near"]["pairs"]
    cosines = [pair["cosine"] for pair in summary["near"]["nearest"]]
    assert cosines == sorted(cosines, reverse=True)
    assert len(cosines) == len(found)


@pytest.mark.parametrize("bounds", [{}, {"LISTED": 2}, {"CELL_CONTENTS": 3}, {"LISTED": 1, "CELL_CONTENTS": 4, "BLOCK_NUMBERS": 8}])
@pytest.mark.parametrize("landmarks", [3, 40])
def test_an_update_says_what_a_report_from_the_beginning_says(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, bounds: dict[str, int], landmarks: int
) -> None:
    monkeypatch.setattr("workers.reports.atlas.fitting.LANDMARKS", landmarks)
    monkeypatch.setattr(spill, "MEMORY_BYTES", 1000)
    for name, value in bounds.items():
        for module in (near, pair_table):
            monkeypatch.setattr(module, name, value, raising=False)
    workplace.spec(rest=SPEC)
    chance = random.Random(landmarks + len(bounds))
    texts = {f"d{number}": f"text {chance.randrange(70)}" for number in range(90)}
    for _ in range(4):
        workplace.write("a.parquet", texts)
        workplace.update()
        summary, pairs = said(workplace)
        assert pairs
        assert (summary, pairs) == from_the_beginning(workplace, monkeypatch)
        for id in chance.sample(sorted(texts), 12):
            del texts[id]
        texts |= {f"d{chance.randrange(200)}": f"text {chance.randrange(70)}" for _ in range(14)}


def test_a_report_that_was_ended_before_its_record_is_made_again(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    workplace.spec(rest=SPEC)
    texts = {f"d{number}": f"text {number}" for number in range(90)}
    workplace.write("a.parquet", texts)
    workplace.update()
    said(workplace)
    workplace.write("a.parquet", texts | {"d3": "another", "e": "one more"})
    keep = run_reports.keep_report

    def end(collection: Collection, kept: Any) -> Any:
        if kept.kind == "duplicates":
            raise KeyboardInterrupt
        return keep(collection, kept)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_reports, "keep_report", end)
        workplace.update()
        report(config=workplace.config)
    assert said(workplace) == from_the_beginning(workplace, monkeypatch)
