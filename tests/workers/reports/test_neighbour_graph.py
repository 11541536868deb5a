"""Every chunk has the contents that are nearest to its own; an update looks at what is new, and forgets what is gone."""

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flows import report
from pipelines.content.settling import halves
from pipelines.measures.quality import unit
from storage.reading.neighbours import to_numpy
from storage.store import spill
from storage.store.lance import Store
from tests.conftest import Workplace
from workers.reports.analyses import neighbour_graph
from workers.reports.analyses.neighbour_graph import LEAST
from workers.reports.pairing.nearest import K
from workers.reports.pairing.shelf import first_of_run

ROUNDING = 1e-3
"""Of cosines in float16."""


def lists(workplace: Workplace) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The summary of the report, and what the table says of each chunk."""
    (kept,) = report(config=workplace.config).reports
    ((table, version),) = kept.tables.items()
    rows = Store(workplace.store).open(table, version).to_table().to_pylist()
    assert len({row["chunk_id"] for row in rows}) == len(rows)
    return kept.summary, {row["chunk_id"]: row for row in rows}


def hold(workplace: Workplace, found: dict[str, dict[str, Any]]) -> None:
    """Each list is the beginning of the K nearest contents, and has LEAST of them at least; copies have the same."""
    rows = workplace.published().sort_by([("content_hash", "ascending"), ("chunk_id", "ascending")]).combine_chunks()
    assert {row["chunk_id"]: row["row_hash"] for row in rows.to_pylist()} == {id: row["row_hash"] for id, row in found.items()}
    first = first_of_run(halves(rows["content_hash"]))
    contents = rows.filter(pa.array(first))
    names = contents["chunk_id"].to_pylist()
    of_row = dict(zip(rows["chunk_id"].to_pylist(), (np.cumsum(first) - 1).tolist(), strict=True))
    vectors = unit(to_numpy(contents["vector"].combine_chunks())).astype(np.float64)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    for id, row in found.items():
        own = of_row[id]
        assert min(LEAST, len(names) - 1) <= len(row["neighbours"]) <= K
        assert len(set(row["neighbours"])) == len(row["neighbours"])
        stated = [cosines[own, names.index(name)] for name in row["neighbours"]]
        assert np.allclose(stated, row["cosines"], atol=ROUNDING)
        assert np.allclose(-np.sort(-cosines[own])[: len(stated)], stated, atol=ROUNDING)


@pytest.mark.parametrize(("memory", "index_rows"), [(1000, 10**6), (64 << 20, 10**6), (64 << 20, 30)])
def test_lists_follow_the_rows(workplace: Workplace, monkeypatch: pytest.MonkeyPatch, memory: int, index_rows: int) -> None:
    monkeypatch.setattr("storage.tables.index.INDEX_ROWS", index_rows)
    monkeypatch.setattr("storage.tables.index.PARTITION_ROWS", 64)
    monkeypatch.setattr("workers.reports.atlas.fitting.LANDMARKS", 30)
    monkeypatch.setattr(spill, "MEMORY_BYTES", memory)
    asked = list[int]()
    search = neighbour_graph.search

    def counted(shelf: Any, vectors: Any, chosen: Any, bound: Any) -> Any:
        asked.append(int(chosen.sum()))
        return search(shelf, vectors, chosen, bound)

    monkeypatch.setattr(neighbour_graph, "search", counted)
    workplace.spec(rest='reports = ["neighbours"]')
    chance = random.Random(memory)
    texts = {f"d{number}": f"text {chance.randrange(150)}" for number in range(200)}
    for _ in range(4):
        workplace.write("a.parquet", texts)
        workplace.update()
        summary, found = lists(workplace)
        hold(workplace, found)
        assert summary["recall"] > 0.99 - summary["shorter_lists"] / summary["rows"]
        for id in chance.sample(sorted(texts), 6):
            del texts[id]
        texts |= {id: f"text {chance.randrange(150)}" for id in chance.sample(sorted(texts), 5)}
        texts |= {f"e{chance.randrange(200)}": f"text {chance.randrange(150)}" for _ in range(4)}
    assert max(asked[1:]) < asked[0] / 3


def test_few_chunks_have_all_others(workplace: Workplace) -> None:
    workplace.spec(rest='reports = ["neighbours"]')
    for texts in ({"a": "one"}, {"a": "one", "b": "two", "c": "one"}, {f"d{number}": f"text {number}" for number in range(12)}):
        workplace.write("a.parquet", texts)
        workplace.update()
        hold(workplace, lists(workplace)[1])
