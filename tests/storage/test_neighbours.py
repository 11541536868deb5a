"""Neighbours by exact search, samples that two tables share, and the checksum of a table's rows: against plain models of them."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lance import LanceDataset

from pipelines.content.chunks import vector_schema
from pipelines.errors import WorkerError
from pipelines.fingerprint import digests
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from pipelines.spec.running import WorkersSpec
from storage.reading import neighbours
from storage.reading.completeness import differences, distinct_contents
from storage.reading.neighbourhoods import compare_neighbourhoods
from storage.reading.neighbours import NOWHERE, exact, sample, vectors_at
from storage.store.commit import Change, commit
from storage.store.lance import Store, take
from storage.tables.checksums import checksum
from tests.support.tiny import CONFIG, WORDS, save_stack, save_transformer
from workers.embedding.embed_shard import vector_rows
from workers.embedding.encoding import Encoding

DIMENSION = 4
SCHEMA = vector_schema(None, DIMENSION, "float32")
few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
contents = st.lists(st.integers(0, 12), max_size=30)


def table(folder: Path, name: str, numbers: Sequence[int], pieces: int = 1) -> LanceDataset:
    """A row a number, whose content and vector are the number's; written in `pieces` commits."""
    store = Store(str(folder))
    dataset = store.create(name, SCHEMA, {})
    dataset = commit(store, dataset, Change(np.arange(dataset.count_rows(), dtype=np.uint64), []), {})
    for places in np.array_split(np.arange(len(numbers)), pieces):
        ids = pa.array([f"{name[0]}{place}-{numbers[place]}" for place in places], pa.string())
        texts = pa.array([f"content {numbers[place]}" for place in places], pa.string())
        zeros = pa.array([0] * len(places))
        hashes = digests(texts)
        columns = [ids, ids, zeros.cast(pa.int32()), zeros, zeros, texts, hashes, digests(ids, hashes)]
        vectors = np.array([vector_of(numbers[place]) for place in places]).reshape(-1, DIMENSION)
        rows = vector_rows(pa.table(columns, names=SCHEMA.names[:-1]), vectors, SCHEMA)
        dataset = commit(store, dataset, Change(np.zeros(0, np.uint64), store.stage(name, SCHEMA, rows)), {})
    return dataset


def vector_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=DIMENSION).astype(np.float32)


@pytest.fixture
def fresh(tmp_path: Path) -> "Fresh":
    return Fresh(tmp_path)


class Fresh:
    """Names that no table has yet."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0

    def table(self, numbers: Sequence[int], pieces: int = 1) -> LanceDataset:
        self.made += 1
        return table(self.folder, f"t{self.made}", numbers, pieces)


@few
@given(numbers=contents, pieces=st.integers(1, 4), count=st.integers(1, 8))
def test_a_sample_is_of_the_smallest_hashes_however_the_rows_lie(fresh: Fresh, numbers: list[int], pieces: int, count: int) -> None:
    found = sample(fresh.table(numbers, pieces), count)["content_hash"].to_pylist()
    expected = sorted(set(digests(pa.array([f"content {number}" for number in numbers], pa.string())).to_pylist()))
    assert found == expected[:count]
    again = sample(fresh.table(numbers[::-1], pieces), count)
    assert again["content_hash"].to_pylist() == found


@few
@given(numbers=contents, pieces=st.integers(1, 4), k=st.integers(1, 5), block=st.sampled_from([16, 100, 1 << 20]))
def test_exact_neighbours_are_those_of_brute_force(fresh: Fresh, numbers: list[int], pieces: int, k: int, block: int) -> None:
    dataset = fresh.table(numbers, pieces)
    queries = np.array([vector_of(number) for number in (1, 99)])
    with pytest.MonkeyPatch.context() as small:
        small.setattr(neighbours, "BLOCK_BYTES", block)
        found = exact(dataset, queries, k)
    for query, addresses, scores in zip(queries, found.addresses, found.scores, strict=True):
        cosines = sorted((cosine(query, vector_of(number)) for number in numbers), reverse=True)[:k]
        assert scores[: len(cosines)] == pytest.approx(cosines, abs=1e-5)
        assert (addresses[len(cosines) :] == NOWHERE).all()
        reached = vectors_at(dataset, addresses[: len(cosines)]) if cosines else []
        assert [cosine(query, vector) for vector in reached] == pytest.approx(cosines, abs=1e-5)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@few
@given(numbers=contents, others=contents, pieces=st.integers(1, 4))
def test_a_checksum_tells_other_rows_and_no_other_order(fresh: Fresh, numbers: list[int], others: list[int], pieces: int) -> None:
    first, second = fresh.table(numbers), fresh.table(others, pieces)
    names = [{f"t{place}-{number}" for place, number in enumerate(each)} for each in (numbers, others)]
    assert (checksum(first) == checksum(second)) == (names[0] == names[1])
    assert distinct_contents(first) == len(set(numbers))
    lacking = [take(first, missing, ["chunk_id"])["chunk_id"].to_pylist() for missing, _ in differences(first, second) if len(missing)]
    assert {name for found in lacking for name in found} == names[0] - names[1]


def test_what_only_one_table_holds_changes_no_neighbourhood(fresh: Fresh) -> None:
    first = fresh.table(range(100))
    second = fresh.table([*range(30, 100), *range(200, 230)], pieces=3)
    found = compare_neighbourhoods(first, second)
    assert (found.mean, found.by, len(found.neighbourhoods)) == (1, "content_hash", 70)
    assert all(each.first and each.address not in {hit.address for hit in each.first} for each in found.neighbourhoods)


def test_duplicates_are_one_neighbour(fresh: Fresh) -> None:
    numbers = [number % 20 for number in range(60)]
    found = compare_neighbourhoods(fresh.table(numbers), fresh.table(numbers[::-1], pieces=4))
    assert found.mean == 1
    assert all(len({hit.key for hit in each.first}) == len(each.first) == 10 for each in found.neighbourhoods)


def test_nothing_in_common_is_no_overlap(fresh: Fresh) -> None:
    assert compare_neighbourhoods(fresh.table(range(10)), fresh.table(range(20, 30))).mean is None
    assert compare_neighbourhoods(fresh.table([]), fresh.table(range(5))).mean is None


def test_an_actor_encodes_as_this_process_does(tmp_path: Path, ray_cluster: object) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig

    modules = save_transformer(tmp_path / "plain", BertConfig(**CONFIG)), Pooling(16, "mean")
    folder = save_stack(tmp_path / "model", *modules, prompts={"query": "ask : ", "document": ""})
    model = resolve_model(ModelSpec(name=str(folder)))
    workers, of = WorkersSpec(precision="float32"), SimpleNamespace(model=model)
    texts = [" ".join(WORDS[:5]), WORDS[7], ""]
    with Encoding(of, workers) as here, Encoding(of, workers) as there:
        here.encoder()  # from now on it is in this process
        np.testing.assert_allclose(there.encode(texts, "document"), here.encode(texts, "document"), atol=1e-5)
        queries = there.encode(texts[:2], "query")
        np.testing.assert_allclose(queries, here.encode(texts[:2], "query"), atol=1e-5)
        assert np.abs(queries - here.encode(texts[:2], "document")).max() > 1e-3
        assert there.encode([], "document").shape == (0, 16)
    nowhere = WorkersSpec(label={"place": "nowhere"}, ready=1)
    with (
        pytest.raises(WorkerError, match=r"labels \{'place': 'nowhere'\} within 1 s, found a cluster of"),
        Encoding(of, nowhere) as lost,
    ):
        lost.encode(texts, "document")
