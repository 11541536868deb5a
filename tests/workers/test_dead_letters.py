"""What can never be embedded is told by each run, and costs none that has nothing else to do."""

import dataclasses
from typing import Any

import pytest

from flows import evaluate, rollback
from storage.collection import Collection
from storage.history.ledger import runs
from storage.store.lance import Store
from tests.conftest import Workplace
from workers.embedding import work
from workers.encoders.hashing import HashEncoder
from workers.runs import apply, filling, results


@pytest.fixture
def refusing(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """Texts that begin with "never" have no vector."""
    forward = HashEncoder.forward

    def refuse(self: HashEncoder, texts: Any) -> Any:
        encoded = forward(self, texts)
        failed = {place: "refused" for place, text in enumerate(texts.texts) if (texts.prompt + text).startswith("never")}
        return dataclasses.replace(encoded, failed=failed)

    monkeypatch.setattr(HashEncoder, "forward", refuse)
    monkeypatch.setattr(filling, "on_cluster", lambda: False)
    workplace.spec(rest="gates = { max_failed = 0.5 }")
    return workplace


def begun(workplace: Workplace) -> int:
    return len(runs(Collection(Store(workplace.store), "docs")))


def test_what_never_embeds_is_tried_by_three_runs_and_begins_no_more(refusing: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing.write("a.parquet", {"d0": "a text", "d1": "never"})
    codes = [refusing.apply().exit_code for _ in range(3)]
    assert (codes, begun(refusing)) == ([4] * 3, 3)
    monkeypatch.setattr(work, "find_work", lambda *_: pytest.fail("the tables were read"))
    done = refusing.apply()
    assert (done.status, done.dead_letters, done.exit_code, done.run_id) == ("partial", 1, 4, None)
    assert begun(refusing) == 3


def test_what_never_embeds_is_tried_again_when_something_changes(refusing: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing.write("a.parquet", {"d0": "a text", "d1": "never"})
    for _ in range(4):
        refusing.apply()
    refusing.write("b.parquet", {"d2": "another text"})
    assert refusing.apply().dead_letters == 1
    monkeypatch.undo()
    assert (refusing.apply().dead_letters, sorted(refusing.texts())) == (0, ["d0#0", "d1#0", "d2#0"])


def test_a_bad_row_of_a_file_that_does_not_change_begins_no_run(refusing: Workplace) -> None:
    refusing.write("a.parquet", {"d0": "a text", "d1": ""})
    assert refusing.apply().exit_code == 4
    done = refusing.apply()
    assert (done.status, done.dead_letters, done.exit_code, begun(refusing)) == ("partial", 1, 4, 1)


def test_evaluate_passes_what_apply_published_however_many_letters_it_has(refusing: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (apply, results):
        monkeypatch.setattr(module, "DEAD_LETTERS_KEPT", 2)
    refusing.write("a.parquet", {f"d{number}": f"{'never' if number < 4 else 'a text'} {number}" for number in range(10)})
    assert refusing.apply().status == "partial"
    assert evaluate("docs", config=refusing.config).passed
    first = refusing.apply().generation
    refusing.write("b.parquet", {"more": "text"})
    refusing.apply()
    assert evaluate("docs", first, config=refusing.config).passed


def test_a_run_that_begins_for_something_else_still_knows_what_failed(refusing: Workplace) -> None:
    refusing.write("a.parquet", {"d0": "a text", "d1": "never"})
    for _ in range(3):
        refusing.apply()
    refusing.spec(rest='candidates = [{ name = "hash", dimensions = 24, prompt = "other " }]\ngates = { max_failed = 0.5 }')
    assert refusing.plan().embed["contents"] == 3  # two of the candidate, and what failed
    built = [refusing.apply() for _ in range(4)]
    assert [(done.status, done.dead_letters, done.exit_code) for done in built] == [("partial", 1, 4)] * 4
    assert (built[0].embed["contents"], built[-1].run_id, refusing.plan().pending) == (3, None, False)


def test_a_letter_of_another_kind_does_not_take_the_place_of_one_that_is_left_alone(refusing: Workplace) -> None:
    refusing.write("a.parquet", {"d0": "a text", "d1": "never"})
    for _ in range(3):
        refusing.apply()
    refusing.write("b.parquet", {"d2": ""})
    assert [refusing.apply().dead_letters for _ in range(2)] == [2, 2]


def test_a_candidate_that_its_dead_letters_keep_back_begins_no_more_runs(refusing: Workplace) -> None:
    refusing.spec()
    refusing.write("a.parquet", {f"d{number}": f"a text {number}" for number in range(3)})
    refusing.apply()
    refusing.spec(rest='candidates = [{ name = "hash", dimensions = 24, prompt = "never " }]\ngates = { max_failed = 0.1 }')
    for _ in range(6):
        refusing.apply()
    assert begun(refusing) == 1 + 3


def test_evaluate_excuses_what_failed_of_the_chunks_that_readers_have(refusing: Workplace) -> None:
    refusing.write("a.parquet", {"d0": "a text", "d2": "more text"})
    refusing.write("b.parquet", {"d1": "never"})
    first = refusing.apply()
    refusing.remove("b.parquet")
    assert refusing.apply().version == first.version
    rollback("docs", refusing.config)
    assert evaluate("docs", config=refusing.config).passed


def test_chunks_that_fail_are_counted_by_their_documents(refusing: Workplace) -> None:
    """15 chunks of one document are one document of 101, not 15 of 115."""
    refusing.spec(rest='chunking = { by = "tokens", size = 8 }\ngates = { max_failed = 0.02 }')
    refusing.write("a.parquet", {"long": " ".join(["never one two three four five six seven"] * 15)})
    refusing.write("b.parquet", {f"d{number}": f"text of document {number}" for number in range(100)})
    done = refusing.apply()
    assert (done.status, done.dead_letters, done.failed) == ("partial", 15, {"documents": 1, "stale": 0, "of": 101})


def test_what_says_nothing_is_not_in_the_record_that_versions_before_must_read(workplace: Workplace) -> None:
    workplace.write("a.parquet", {"d0": "a text"})
    generation = workplace.apply().generation
    record = Collection(Store(workplace.store), "docs").objects.get_json(f"_revector/docs/built/{generation}.json")
    assert sorted(record) == ["failed", "gates", "passed", "publication", "thresholds"]
