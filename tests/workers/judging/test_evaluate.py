"""A version is evaluated without being touched, what was found is kept, and two generations are compared side by side."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from flows import compare, evaluate, history, status
from pipelines.errors import ModelError, NotFound
from pipelines.spaces import known
from storage.history.catalog import all_publications
from storage.store.lance import Store
from tests.conftest import Workplace

SECRET = "a text that nobody may keep"
QUERIES = 'gates = { queries = "queries.jsonl", max_ndcg_drop = 1 }'


def documents(count: int) -> dict[str, str]:
    return {"secret": SECRET, **{f"d{number}": f"text of document {number}" for number in range(count)}}


@pytest.fixture
def two(workplace: Workplace) -> Workplace:
    """Two generations over one chunk table; the second one is published, and answers labelled queries worse."""
    lines = (orjson.dumps({"query": f"text of document {number}", "relevant": [f"d{number}"]}) for number in range(5))
    (workplace.root / "queries.jsonl").write_bytes(b"\n".join(lines))
    workplace.write("a.parquet", documents(60))
    workplace.spec(rest=QUERIES)
    workplace.apply()
    workplace.spec(model='name = "hash", dimensions = 24, prompt = "unlike queries: "', rest=QUERIES)
    assert workplace.apply().status == "published"
    return workplace


def names(workplace: Workplace) -> tuple[str, str]:
    """The published generation, and the other one."""
    found = status("docs", workplace.config)["collections"][0]
    published = found["published"]["generation"]
    (other,) = (each["name"] for each in found["generations"] if each["name"] != published)
    return published, other


def revector(workplace: Workplace, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "flows.cli", *arguments, "-c", str(workplace.config)], capture_output=True, text=True)


def test_an_evaluation_looks_at_everything_and_is_kept_without_texts(two: Workplace) -> None:
    before = len(history("docs", two.config)["evaluations"])
    made = evaluate("docs", config=two.config)
    gates = {gate.name: gate for gate in made.gates}
    assert (made.passed, made.generation) == (True, names(two)[0])
    assert gates["recomputed"].value == pytest.approx(1)
    assert gates["effective rank"].value == pytest.approx(24, abs=3)
    assert gates["ndcg@10"].value is not None
    other = evaluate("docs", names(two)[1], two.config)
    assert {gate.name: gate.value for gate in other.gates}["ndcg@10"] == 1
    kept = history("docs", two.config)["evaluations"][before:]
    assert [(each["id"], each["generation"], each["passed"]) for each in kept] == [
        (each.id, each.generation, True) for each in (made, other)
    ]
    for file in (Path(two.store) / "_revector/docs").rglob("*.json"):
        assert SECRET not in file.read_text()
    for file in (Path(two.store) / "_revector/docs" / "queries").iterdir():
        assert b"text of document" not in file.read_bytes()


def test_drift_is_told_between_versions_of_one_space(two: Workplace) -> None:
    two.write("b.parquet", {f"e{number}": f"another text {number}" for number in range(60)})
    two.apply()
    gate = {gate.name: gate for gate in evaluate("docs", config=two.config).gates}["drift"]
    assert gate.value is not None
    assert gate.value > 0
    assert names(two)[0] in gate.detail


def test_evaluate_leaves_the_store_as_it_was_but_for_its_record(two: Workplace) -> None:
    def files() -> set[Path]:
        return {path for path in Path(two.store).rglob("*") if path.is_file() and "evaluations" not in path.parts}

    evaluate("docs", config=two.config)
    before = files(), all_publications(Store(two.store))
    evaluate("docs", config=two.config)
    evaluate("docs", names(two)[1], two.config)
    assert (files(), all_publications(Store(two.store))) == before


def test_what_fails_ends_with_3_and_says_why(two: Workplace) -> None:
    two.spec(model='name = "hash", dimensions = 24, prompt = "unlike queries: "', rest=QUERIES.replace("= 1 }", "= 1, min_ndcg = 0.9 }"))
    failed = revector(two, "evaluate", "docs")
    assert failed.returncode == 3
    assert "fails  ndcg@10" in failed.stdout
    as_json = revector(two, "evaluate", "docs", "--json")
    assert (as_json.returncode, orjson.loads(as_json.stdout)["passed"]) == (3, False)
    assert history("docs", two.config)["evaluations"][-1]["failed"] == ["ndcg@10"]


def test_two_generations_side_by_side(two: Workplace) -> None:
    published, other = names(two)
    found = compare("docs", other.rpartition(".")[2][:6], "published", two.config)
    assert (found.a.generation, found.b.generation) == (other, published)
    assert (found.a.ndcg, found.labelled, found.compared_by) == (1, 5, "content_hash")
    assert found.b.ndcg is not None
    assert found.b.ndcg < 1
    assert found.overlap is not None
    assert 0 < found.overlap < 1
    assert found.drift is None
    first = found.changed[0]
    assert first.query.startswith("text of document")
    assert first.overlap <= found.changed[-1].overlap
    assert first.a[0].text == first.query
    assert first.a[0].score == pytest.approx(1, abs=1e-3)


def test_a_generation_is_the_same_as_itself(two: Workplace) -> None:
    found = compare("docs", "published", names(two)[0], two.config)
    assert (found.overlap, found.changed) == (1, [])
    assert found.drift is not None
    assert (found.drift.distance, found.drift.p) == (pytest.approx(0, abs=1e-9), 1)


def test_chunks_of_another_size_are_compared_by_document(workplace: Workplace) -> None:
    words = [f"word{number}" for number in range(300)]
    workplace.write("a.parquet", {f"d{number}": " ".join(words[number : number + 40]) for number in range(40)})
    workplace.spec(rest="chunking = { size = 16 }")
    workplace.apply()
    workplace.spec(rest="chunking = { size = 20 }")
    workplace.apply()
    found = compare("docs", *names(workplace), workplace.config)
    assert found.compared_by == "doc_id"
    assert found.compared > 10
    assert all(hit.doc_id != "" for each in found.changed for hit in each.a)


def test_what_a_person_reads(two: Workplace) -> None:
    shown = revector(two, "evaluate", "docs")
    assert shown.returncode == 0
    assert all(gate in shown.stdout for gate in ("rows", "recomputed", "ndcg@10", "not measured: there is no index", "effective rank"))
    shown = revector(two, "compare", "docs", *names(two))
    assert shown.returncode == 0
    assert all(word in shown.stdout for word in ("nDCG@10", "overlap@10", "Changed most, of 5 labelled queries"))
    as_json = orjson.loads(revector(two, "compare", "docs", *names(two), "--json").stdout)
    assert {"a", "b", "overlap", "changed", "drift"} <= as_json.keys()


def test_texts_do_not_steer_the_terminal(workplace: Workplace) -> None:
    workplace.write("a.parquet", {f"d{number}": f"\x1b[2J text {number}" for number in range(60)})
    workplace.apply()
    workplace.spec(model='name = "hash", dimensions = 24')
    workplace.apply()
    shown = revector(workplace, "compare", "docs", *names(workplace))
    assert "text" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_errors_say_what_to_do(two: Workplace) -> None:
    with pytest.raises(NotFound, match="found 0 for 'nothing'"):
        evaluate("docs", "nothing", two.config)
    with pytest.raises(NotFound, match="found 0 for ''"):
        compare("docs", "", "published", two.config)
    other = Workplace(two.root / "other")
    (other.root / "data").mkdir(parents=True)
    other.spec()
    with pytest.raises(NotFound, match="run `revector apply docs`"):
        evaluate("docs", config=other.config)


def test_a_model_that_is_gone_is_said(two: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: object) -> None:
        raise ModelError("expected a folder with a model, found none")

    monkeypatch.setattr(known, "resolve_model", gone)
    with pytest.raises(ModelError, match="found none"):
        evaluate("docs", config=two.config)
