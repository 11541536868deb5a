"""Work is proportional to the change, and there is one forward pass for each distinct content."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from flows import diff, maintain, promote, resume, rollback, status
from pipelines.errors import NotFound, PlanStale, SourceError
from pipelines.spec.parsing import load_spec
from storage import open_published
from storage.sources import listing
from tests.conftest import Workplace
from workers.embedding import embed_shard
from workers.planning.plan import make_plan
from workers.planning.target import resolve_target
from workers.runs import apply as apply_module
from workers.runs import session
from workers.runs.apply import apply as drive


def documents(count: int, start: int = 0, word: str = "text") -> dict[str, str]:
    return {f"d{number}": f"{word} of document {number}" for number in range(start, start + count)}


def test_a_load_is_complete_and_then_there_is_nothing_to_do(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(30))
    workplace.write("b.parquet", documents(20, 30))
    done = workplace.update()
    assert (done.status, done.embed["contents"], done.documents["added"]) == ("published", 50, 50)
    assert workplace.texts() == {f"{id}#0": text for id, text in documents(50).items()}
    again = workplace.update()
    assert (again.status, again.embed["contents"], again.documents["unchanged"]) == ("nothing", 0, 50)


def test_an_edit_costs_one_pass_for_each_new_content(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(30))
    workplace.update()
    edited = documents(30) | {"d3": "new", "d4": "new", "d5": "another", "d6": documents(30)["d7"]}
    workplace.write("a.parquet", edited)
    done = workplace.update()
    assert (done.embed, done.reuse) == ({"contents": 2, "chunks": 3, "tokens": 2}, {"chunks": 1})
    assert (done.documents["changed"], done.documents["unchanged"]) == (4, 26)
    assert workplace.texts() == {f"{id}#0": text for id, text in edited.items()}


def test_moving_renaming_and_repartitioning_costs_no_pass(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(30))
    workplace.write("b.parquet", documents(30, 30))
    workplace.update()
    before = workplace.published()
    (workplace.root / "data/a.parquet").rename(workplace.root / "data/z.parquet")
    assert workplace.update().embed["contents"] == 0
    for name in ("b.parquet", "z.parquet"):
        workplace.remove(name)
    for part in range(3):
        workplace.write(f"part{part}.parquet", dict(list(documents(60).items())[part * 20 : part * 20 + 20]))
    done = workplace.update()
    assert (done.embed["contents"], done.reuse["chunks"], done.documents["unchanged"]) == (0, 0, 60)
    assert workplace.published().equals(before)


def test_a_moved_text_file_is_a_new_document_that_takes_its_old_vector(workplace: Workplace) -> None:
    workplace.spec(source='uri = "data"', rest="gates = { max_removed = 1 }")
    (workplace.root / "data/old.txt").write_text("A text about lighthouses.")
    workplace.update()
    before = workplace.published()["vector"].to_pylist()
    (workplace.root / "data/old.txt").rename(workplace.root / "data/new.txt")
    done = workplace.update()
    assert (done.embed["contents"], done.reuse["chunks"]) == (0, 1)
    assert list(workplace.texts()) == ["new.txt#0"]
    assert workplace.published()["vector"].to_pylist() == before


def test_a_revert_costs_no_pass(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(30))
    workplace.update()
    shutil.copy(workplace.root / "data/a.parquet", workplace.root / "yesterday")
    workplace.write("a.parquet", documents(20, word="other"))
    assert workplace.update().embed["contents"] == 20
    shutil.copy(workplace.root / "yesterday", workplace.root / "data/a.parquet")
    done = workplace.update()
    assert (done.embed["contents"], done.reuse["chunks"]) == (0, 30)
    assert workplace.texts() == {f"{id}#0": text for id, text in documents(30).items()}


@pytest.mark.parametrize("code_points", [1, 50, 1 << 24])
def test_changed_metadata_is_kept_and_costs_no_pass(workplace: Workplace, monkeypatch: pytest.MonkeyPatch, code_points: int) -> None:
    monkeypatch.setattr(embed_shard, "BLOCK_CODE_POINTS", code_points)
    workplace.write("a.parquet", documents(30), "a")
    workplace.update()
    workplace.write("a.parquet", documents(30), "b")
    done = workplace.update()
    assert (done.embed["contents"], done.reuse["chunks"]) == (0, 30)
    assert pc.unique(pc.struct_field(workplace.published()["metadata"], "kind")).to_pylist() == ["b"]
    assert workplace.texts() == {f"{id}#0": text for id, text in documents(30).items()}


def test_what_is_gone_from_the_corpus_is_gone_from_the_next_version(workplace: Workplace) -> None:
    workplace.spec(rest="gates = { max_removed = 0.6 }")
    workplace.write("a.parquet", documents(30))
    workplace.write("b.parquet", documents(30, 30))
    workplace.update()
    workplace.remove("b.parquet")
    workplace.write("a.parquet", documents(25))
    done = workplace.update()
    assert (done.documents["removed"], done.chunks["removed"], done.embed["contents"]) == (35, 35, 0)
    assert workplace.texts() == {f"{id}#0": text for id, text in documents(25).items()}


def test_of_two_documents_with_one_id_the_first_in_file_order_is_kept(workplace: Workplace) -> None:
    workplace.write("b.parquet", {"x": "in b", "y": "only b"})
    workplace.update()
    workplace.write("c.parquet", {"x": "in c"})
    done = workplace.update()
    assert (done.status, done.dead_letters, done.exit_code) == ("built", 1, 3)  # one of four is beyond the gate
    workplace.spec(rest="gates = { max_failed = 0.5 }")
    assert workplace.update().status == "partial"
    assert workplace.texts() == {"x#0": "in b", "y#0": "only b"}
    workplace.write("a.parquet", {"x": "in a"})
    workplace.update()
    assert workplace.texts() == {"x#0": "in a", "y#0": "only b"}
    workplace.remove("a.parquet")
    done = workplace.update()
    assert (workplace.texts()["x#0"], done.dead_letters, done.embed["contents"]) == ("in b", 1, 0)
    workplace.remove("b.parquet")
    assert workplace.update().dead_letters == 0
    assert workplace.texts() == {"x#0": "in c"}


def test_duplicates_can_be_kept_last_or_refused(workplace: Workplace) -> None:
    source = 'uri = "data/*.parquet", id = "id", text = "text", metadata = ["kind"], duplicates = "{}"'
    workplace.write("a.parquet", {"x": "in a"})
    workplace.write("b.parquet", {"x": "in b"})
    workplace.spec(source=source.format("last"), rest="gates = { max_failed = 0.5 }")
    workplace.update()
    assert workplace.texts() == {"x#0": "in b"}
    workplace.spec(source=source.format("error"))
    with pytest.raises(SourceError, match=r"'x' in b\.parquet and in a\.parquet"):
        workplace.apply()


def test_a_bad_row_costs_itself_and_is_tried_again(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(300) | {"empty": ""})
    done = workplace.update()
    assert (done.status, done.dead_letters, done.exit_code) == ("partial", 1, 4)
    assert len(workplace.texts()) == 300
    letter = status("docs", workplace.config)["collections"][0]["letters"][0]
    assert (letter["stage"], letter["file"], letter["id"], letter["reason"]) == ("document", "a.parquet", "empty", "no text")
    assert workplace.update().exit_code == 4
    workplace.write("a.parquet", documents(300) | {"empty": "not any more"})
    done = workplace.update()
    assert (done.status, done.dead_letters, done.embed["contents"]) == ("published", 0, 1)


def test_beyond_the_gate_nothing_is_published(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(30))
    workplace.update()
    workplace.write("a.parquet", documents(30, word="other") | {"e1": " ", "e2": ""})
    done = workplace.apply()
    assert (done.status, done.exit_code) == ("built", 3)
    assert "gates.max_failed" in done.reason
    assert workplace.texts() == {f"{id}#0": text for id, text in documents(30).items()}


def test_an_unreadable_file_keeps_what_it_gave_before(workplace: Workplace) -> None:
    workplace.spec(rest="gates = { max_failed = 0.5 }")
    workplace.write("a.parquet", documents(30))
    workplace.write("b.parquet", documents(10, 30))
    workplace.update()
    good = (workplace.root / "data/b.parquet").read_bytes()
    (workplace.root / "data/b.parquet").write_bytes(good[:100])
    done = workplace.update()
    assert (done.status, done.dead_letters, done.documents["removed"]) == ("partial", 1, 0)
    assert len(workplace.texts()) == 40
    (workplace.root / "data/b.parquet").write_bytes(good)
    assert workplace.update().dead_letters == 0


def test_a_stale_plan_is_refused(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(30))
    target = resolve_target(load_spec(workplace.config), None)
    saved = make_plan(target)
    workplace.write("b.parquet", documents(1, 30))
    with pytest.raises(PlanStale, match="listing"):
        drive(target, saved)
    fresh = make_plan(target)
    assert drive(target, fresh).status == "published"
    with pytest.raises(PlanStale, match="version"):
        drive(target, fresh)


def test_another_model_is_another_generation_and_another_chunking_takes_the_vectors_along(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(30))
    first = workplace.update()
    workplace.spec(rest='chunking = { by = "document" }')
    planned = workplace.plan()
    assert (planned.change, planned.embed["contents"], planned.reuse["chunks"]) == ("chunking", 0, 30)
    assert workplace.apply().embed["contents"] == 0
    workplace.spec(model='name = "hash", dimensions = 32', rest='chunking = { by = "document" }')
    planned = workplace.plan()
    assert (planned.change, planned.embed["contents"]) == ("model", 30)
    done = workplace.apply()
    assert done.generation != first.generation
    assert workplace.published()["vector"].type.list_size == 32


def test_a_spec_that_is_set_back_reaches_the_readers(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(10))
    first = workplace.update()
    workplace.spec(model='name = "hash", dimensions = 32')
    workplace.update()
    workplace.spec()
    back = workplace.update()
    assert (back.status, back.change, back.generation, back.embed["contents"]) == ("published", "model", first.generation, 0)
    assert workplace.published()["vector"].type.list_size == 16


def test_what_was_rolled_back_to_stays_whatever_runs_build_until_a_person_releases_it(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(200))
    first = workplace.update()
    workplace.write("a.parquet", documents(210))
    workplace.update()
    rollback(config=workplace.config, why="bad import")
    assert workplace.update().status == "nothing"
    for count in (211, 212):
        workplace.write("a.parquet", documents(count) | {"empty": ""})
        done = workplace.update()
        assert (done.status, done.exit_code, done.embed["contents"]) == ("pinned", 4, 1)
        (workplace.root / "data" / "a.parquet").rename(workplace.root / "data" / "b.parquet")
        assert workplace.update().embed["contents"] == 0  # a rename without a changed byte
        (workplace.root / "data" / "b.parquet").rename(workplace.root / "data" / "a.parquet")
        assert workplace.update().embed["contents"] == 0
    maintain(config=workplace.config)
    shown = status("docs", workplace.config)["collections"][0]
    assert (len(workplace.texts()), shown["published"]["chunks"], shown["chunks"]) == (200, 200, 212)
    planned = workplace.plan()
    assert planned.pin is not None and shown["pin"] == planned.pin
    assert (planned.pin.version, planned.pin.why, planned.pin.behind) == (first.version, "bad import", 7)
    assert f"pinned at version {first.version} by {planned.pin.who} since " in planned.notes[0]
    assert "readers are 7 versions behind: `revector resume docs` releases it" in planned.notes[0]

    assert resume(config=workplace.config).action == "resume"
    assert len(workplace.texts()) == 212
    workplace.write("b.parquet", documents(213))
    assert workplace.update().pin is None
    with pytest.raises(NotFound, match="readers get what runs publish already"):
        resume(config=workplace.config)


def test_a_rollback_to_any_published_version_and_what_cannot_be_says_the_way_forward(workplace: Workplace) -> None:
    versions = []
    for count in (10, 12, 13):
        workplace.write("a.parquet", documents(count))
        versions.append(workplace.update().version)
    for version, count in zip(versions, (10, 12, 13), strict=True):
        rollback(config=workplace.config, to=version)
        assert len(workplace.texts()) == count
    with pytest.raises(NotFound, match=f"expected one of the published versions {versions[0]}, .*, found 99: `revector history docs`"):
        rollback(config=workplace.config, to=99)
    rollback(config=workplace.config, to=versions[0])
    with pytest.raises(NotFound, match=r"before version .* `revector history docs` lists"):
        rollback(config=workplace.config)


def test_a_release_gives_the_newest_version_that_passed_and_counts_only_what_is_newer(workplace: Workplace) -> None:
    def behind() -> int:
        pin = workplace.plan().pin
        assert pin is not None
        return pin.behind

    versions = []
    for count in (10, 11, 12):
        workplace.write("a.parquet", documents(count))
        versions.append(workplace.update().version)
    for _ in range(2):
        rollback(config=workplace.config)
    assert behind() == 2
    rollback(config=workplace.config, to=versions[2])
    assert behind() == 0
    rollback(config=workplace.config, to=versions[1])
    assert behind() == 1
    workplace.write("a.parquet", documents(13))
    best = workplace.update()
    workplace.write("a.parquet", documents(3))
    assert (workplace.apply().status, behind()) == ("built", 2)
    assert (resume(config=workplace.config).version, len(workplace.texts())) == (best.version, 13)


def test_a_release_takes_readers_back_to_the_model_that_they_were_taken_from(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(10))
    workplace.update()
    workplace.spec(model='name = "hash", dimensions = 32')
    second = workplace.update().generation
    rollback(config=workplace.config)
    workplace.write("a.parquet", documents(11))
    workplace.update()
    assert (resume(config=workplace.config).generation, len(workplace.texts())) == (second, 11)
    assert workplace.update().change == "none"


def test_what_was_promoted_before_a_rollback_stands_after_its_release(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(10))
    workplace.spec(rest='candidates = [{ name = "hash", dimensions = 32 }]')
    done = workplace.update()
    candidate = next(one.generation for one in done.generations if one.role == "candidate")
    promote("docs", candidate, workplace.config)
    workplace.write("a.parquet", documents(11))
    workplace.update()
    rollback(config=workplace.config)
    assert resume(config=workplace.config).generation == candidate
    workplace.write("a.parquet", documents(12))
    assert (workplace.update().generation, len(workplace.texts())) == (candidate, 12)


def test_another_model_in_the_spec_does_not_take_readers_from_what_a_person_went_back_to(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(10))
    first = workplace.update().generation
    workplace.write("a.parquet", documents(11))
    workplace.update()
    rollback(config=workplace.config)
    workplace.spec(model='name = "hash", dimensions = 32')
    done = workplace.update()
    assert (done.generation, done.embed["contents"], len(workplace.texts())) == (first, 11, 10)
    resume(config=workplace.config)
    assert len(workplace.texts()) == 11
    assert workplace.update().embed["contents"] == 0
    assert workplace.published()["vector"].type.list_size == 32


def test_diff_tells_what_changed_between_two_published_versions(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(10))
    first = workplace.update().version
    workplace.write("a.parquet", documents(9) | {"d0": "edited", "new": "new"})
    second = workplace.update().version
    assert first is not None and second is not None
    changes = diff("docs", first, second, workplace.config)["documents"]
    assert (changes["added"], changes["removed"], changes["changed"]) == (1, 1, 1)
    assert changes["examples"] == {"added": ["new"], "removed": ["d9"], "changed": ["d0"]}


def check_a_history_of_edits(workplace: Workplace, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    files: dict[str, dict[str, str]] = {}
    for _ in range(5):
        for name in rng.sample("abcdef", 3):
            ids = rng.sample(range(40), rng.randint(0, 8))
            files[f"{name}.parquet"] = {f"d{id}": rng.choice("pqrstuvw") * rng.randint(1, 3) for id in ids}
            if rng.random() < 0.3:
                del files[f"{name}.parquet"]
        shutil.rmtree(workplace.root / "data")
        (workplace.root / "data").mkdir()
        for name, contents in files.items():
            workplace.write(name, contents)
        workplace.spec(rest="gates = { max_failed = 1 }")
        workplace.update()
    fresh = Workplace(tmp_path / "fresh")
    fresh.root.mkdir()
    shutil.copytree(workplace.root / "data", fresh.root / "data")
    fresh.spec(rest="gates = { max_failed = 1 }")
    done = fresh.update()
    expected: dict[str, str] = {}
    for name in sorted(files, reverse=True):
        expected |= {f"{id}#0": text for id, text in files[name].items()}
    assert workplace.texts() == fresh.texts() == expected
    assert workplace.published().equals(fresh.published())
    assert done.embed["contents"] == len(set(expected.values()))
    norms = np.linalg.norm(np.array(fresh.published()["vector"].to_pylist(), dtype=np.float32), axis=1)
    assert np.allclose(norms, 1, atol=2e-3)


def test_any_history_of_edits_ends_where_a_fresh_load_does(workplace: Workplace, tmp_path: Path) -> None:
    check_a_history_of_edits(workplace, tmp_path, seed=1)


@pytest.mark.usefixtures("ray_cluster")
def test_any_history_of_edits_ends_there_on_actors(workplace: Workplace, tmp_path: Path) -> None:
    check_a_history_of_edits(workplace, tmp_path, seed=2)


def test_a_run_lists_its_corpus_once(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[int] = []
    real = listing.list_files
    monkeypatch.setattr(listing, "list_files", lambda *arguments: listed.append(1) or real(*arguments))
    workplace.write("a.parquet", documents(30))
    workplace.apply()
    workplace.spec(model='name = "hash", dimensions = 8')
    workplace.apply()
    workplace.apply()
    assert len(listed) == 3


def test_what_another_run_saw_meanwhile_is_not_undone_by_an_older_listing(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    workplace.write("a.parquet", documents(30))
    workplace.apply()
    workplace.write("a.parquet", documents(31))
    opened = session.open_session

    def late(*arguments: Any) -> Any:
        monkeypatch.setattr(apply_module, "open_session", opened)
        workplace.write("b.parquet", documents(5, 40))
        workplace.apply()
        return opened(*arguments)

    monkeypatch.setattr(apply_module, "open_session", late)
    workplace.apply()
    assert len(workplace.texts()) == 36


def test_a_store_may_be_named_with_a_slash_at_its_end(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(3))
    workplace.apply()
    assert open_published(f"{workplace.store}/", "docs").table.count_rows() == 3
