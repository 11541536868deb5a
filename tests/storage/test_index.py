"""Whatever comes and goes, every vector is in the index and a search finds nearly all that an exact one does."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from lance import LanceDataset

from pipelines.content.chunks import vector_schema
from storage.history.catalog import Publication
from storage.reading import neighbours
from storage.reading.filters import Condition
from storage.reading.published import search_vectors
from storage.store.commit import Change, commit
from storage.store.lance import Store, scan_table
from storage.tables import index
from storage.tables.index import INDEX_NAME, index_is_due, probes, renew_index, update_index
from storage.upkeep.maintenance import compact, compaction_is_due

DIMENSIONS = 64
CLUSTERS = 40
NAME = "c.vectors.x"
SCHEMA = vector_schema(None, DIMENSIONS, "float16")
CENTRES = np.random.default_rng(0).normal(size=(CLUSTERS, DIMENSIONS))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "INDEX_ROWS", 2000)
    monkeypatch.setattr(index, "PART_ROWS", 1500)
    monkeypatch.setattr(index, "PARTITION_ROWS", 50)  # more partitions than a search looks into


class Vectors:
    """A generation and, beside it, what it holds."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(str(folder))
        self.dataset: LanceDataset = self.store.create(NAME, SCHEMA, {})
        self.held: dict[str, np.ndarray] = {}
        self._numbers = iter(range(1_000_000))
        self._random = np.random.default_rng(1)

    def load(self, rows: int) -> list[str]:
        """Add vectors of any length near the centres, in one fragment."""
        of = self._random.integers(CLUSTERS, size=rows)
        vectors = CENTRES[of] + self._random.normal(scale=0.7, size=(rows, DIMENSIONS))
        vectors *= self._random.uniform(0.5, 2, size=(rows, 1))
        vectors = vectors.astype(np.float16)
        ids = [f"chunk {next(self._numbers)}" for _ in range(rows)]
        hashes = pa.array([b"-" * 16] * rows, SCHEMA.field("row_hash").type)
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSIONS)
        columns = {"chunk_id": ids, "vector": flat, "row_hash": hashes, "content_hash": hashes}
        columns |= {"doc_id": ids, "text": ["-"] * rows} | {name: [0] * rows for name in ("ordinal", "start", "end")}
        table = pa.table({name: columns[name] for name in SCHEMA.names}).cast(SCHEMA)
        self._commit(Change(np.zeros(0, dtype=np.uint64), self.store.stage(NAME, SCHEMA, table.to_batches())))
        self.held |= dict(zip(ids, vectors.astype(np.float32), strict=True))
        return ids

    def delete(self, ids: list[str]) -> None:
        rows = scan_table(self.dataset, ["chunk_id"])
        gone = np.isin(rows["chunk_id"].to_numpy(), ids)
        self._commit(Change(rows["_rowaddr"].to_numpy()[gone], []))
        for id in ids:
            del self.held[id]

    def update(self) -> None:
        self.dataset = update_index(self.dataset)

    def _commit(self, change: Change) -> None:
        self.dataset = commit(self.store, self.dataset, change, {})

    @property
    def indexed(self) -> tuple[int, int]:
        """Rows in the index and not in it."""
        found = self.dataset.stats.index_stats(INDEX_NAME)
        return found["num_indexed_rows"], found["num_unindexed_rows"]

    @property
    def parts(self) -> int:
        return sum(len(found.segments) for found in self.dataset.describe_indices())

    def search(self, query: np.ndarray, k: int = 10, *where: Condition) -> list[tuple[str, float]]:
        publication = Publication("c", 1, "publish", NAME, self.dataset.version, "", 0, "", "{}", 0, 0, 0, "", "", "", "")
        return [(hit["chunk_id"], hit["score"]) for hit in search_vectors(self.store, publication, query, k, where)]

    def recall(self, queries: int = 50, k: int = 10) -> float:
        """The share of the exact answers that a reader's search gives. All that it gives must be there, once, with its cosine."""
        ids = list(self.held)
        unit = np.array([self.held[id] / np.linalg.norm(self.held[id]) for id in ids])
        shares = []
        for query in CENTRES[:queries] + self._random.normal(scale=0.7, size=(len(CENTRES[:queries]), DIMENSIONS)):
            hits = self.search(query, k)
            cosines = dict(zip(ids, unit @ query / np.linalg.norm(query), strict=True))
            exact = sorted(cosines, key=lambda id: -cosines[id])[:k]
            found = [id for id, _ in hits]
            assert len(set(found)) == k
            assert np.allclose([score for _, score in hits], [cosines[id] for id in found], atol=2e-3)
            shares.append(len(set(found) & set(exact)) / k)
        return float(np.mean(shares))


def probed(dataset: LanceDataset) -> int:
    """Partitions of all parts."""
    return sum(int(part["num_partitions"]) for part in dataset.stats.index_stats(INDEX_NAME)["indices"])


@pytest.fixture
def vectors(tmp_path: Path) -> Vectors:
    return Vectors(tmp_path)


def test_index_has_every_row_and_finds_it_after_each_change(vectors: Vectors) -> None:
    for _ in range(3):
        vectors.load(1000)
    vectors.update()
    assert vectors.indexed == (3000, 0)
    assert vectors.recall() >= 0.9

    new = vectors.load(1700)
    vectors.delete(list(vectors.held)[:400] + new[:100])
    assert vectors.recall() >= 0.9  # before the index knows
    vectors.update()
    assert vectors.indexed[1] == 0
    assert vectors.recall() >= 0.9

    version = vectors.dataset.version
    vectors.update()
    assert vectors.dataset.version == version


def test_table_without_index_gets_one_when_it_has_grown(vectors: Vectors) -> None:
    vectors.load(1999)
    vectors.update()
    assert probes(vectors.dataset) is None
    assert vectors.recall() == 1
    vectors.load(1)
    vectors.update()
    assert vectors.indexed == (2000, 0)
    vectors.delete(list(vectors.held)[:1500])
    vectors.load(10)
    vectors.update()
    assert vectors.indexed[1] == 0  # it has one, so it stays whole


def test_fragment_whose_rows_are_all_gone_does_no_harm(vectors: Vectors) -> None:
    first, second, third = (vectors.load(1000) for _ in range(3))
    vectors.delete(second)  # never indexed
    vectors.update()
    assert vectors.indexed == (2000, 0)
    assert vectors.recall() >= 0.9
    vectors.delete(first)  # was indexed
    fourth = vectors.load(500)
    vectors.delete(fourth)
    vectors.load(500)
    vectors.update()
    assert vectors.indexed[1] == 0
    assert vectors.recall() >= 0.9
    vectors.delete(list(vectors.held))
    vectors.update()
    vectors.load(50)
    vectors.update()
    assert vectors.indexed[1] == 0
    assert vectors.recall() >= 0.9
    assert third[0] not in vectors.held


def test_parts_that_piled_up_become_one_and_those_that_shrank_are_built_anew(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "PART_ROWS", 10_000)
    vectors.load(2000)
    for _ in range(index.SMALL_PARTS):
        vectors.update()
        vectors.load(100)
    assert index_is_due(vectors.dataset)
    vectors.dataset = renew_index(vectors.dataset)  # the last 100 are indexed, and nothing else: not too many parts yet
    assert vectors.parts == index.SMALL_PARTS + 1
    assert index_is_due(vectors.dataset)
    vectors.dataset = renew_index(vectors.dataset)
    assert (vectors.parts, vectors.indexed) == (1, (2400, 0))
    assert vectors.recall() >= 0.9
    assert not index_is_due(vectors.dataset)

    vectors.delete(list(vectors.held)[:1500])
    partitions = probed(vectors.dataset)
    vectors.dataset = renew_index(vectors.dataset)
    assert (vectors.parts, vectors.indexed) == (1, (900, 0))
    assert probed(vectors.dataset) < partitions / 2
    assert vectors.recall() >= 0.9
    assert not index_is_due(vectors.dataset)


def test_compaction_moves_rows_and_the_index_gives_the_same_answers(vectors: Vectors) -> None:
    for _ in range(3):
        vectors.load(1000)
    vectors.update()
    for _ in range(8):
        vectors.load(20)
    vectors.delete(list(vectors.held)[100:1100])
    queries = CENTRES[:20]
    before = [vectors.search(query) for query in queries]
    rows = vectors.dataset.count_rows()
    assert compaction_is_due(vectors.dataset)
    vectors.dataset = compact(vectors.dataset, lambda: None)
    assert [vectors.search(query) for query in queries] == before
    assert vectors.dataset.count_rows() == rows
    assert not any(fragment.metadata.deletion_file for fragment in vectors.dataset.get_fragments())
    assert vectors.indexed == (2000, 160)
    version = vectors.dataset.version
    assert not compaction_is_due(vectors.dataset)
    assert compact(vectors.dataset, lambda: None).version == version


def test_a_condition_finds_what_meets_it_wherever_in_the_index_it_lies(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = vectors.load(2500)
    vectors.update()
    query, few = CENTRES[0], tuple(ids[::250])
    assert [vectors.search(query, 1, Condition("doc_id", id))[0][0] for id in few] == list(few)
    assert {id for id, _ in vectors.search(query, 20, Condition("doc_id", few, "in"))} == set(few)

    some = {id: vector for id, vector in vectors.held.items() if id < "chunk 12"}  # 332 of them
    best = sorted(some, key=lambda id: -float(some[id] @ query / np.linalg.norm(some[id])))[:10]
    condition = Condition("doc_id", "chunk 12", "<")
    assert [id for id, _ in vectors.search(query, 10, condition)] == best
    monkeypatch.setattr(neighbours, "EXACT_ROWS", 10)  # through the index, of which more is looked at
    assert len({id for id, _ in vectors.search(query, 10, condition)} & set(best)) >= 9
    assert len(vectors.search(query, 400, condition)) == len(some)
