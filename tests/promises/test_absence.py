"""Absence is not a statement: what cannot be seen is not taken for gone, and what is lost weighs as much as what was in it."""

import json
import os
import shutil
from pathlib import Path

import pytest

from flows import apply, plan, status
from pipelines.errors import SourceMissing
from tests.conftest import Workplace


def documents(count: int, start: int = 0) -> dict[str, str]:
    return {f"d{number}": f"text of document {number}" for number in range(start, start + count)}


@pytest.fixture
def five(workplace: Workplace) -> Workplace:
    """Five files of 20 documents, published."""
    for number in range(5):
        workplace.write(f"{number}.parquet", documents(20, 20 * number))
    workplace.update()
    return workplace


@pytest.mark.parametrize("gone", ["the disk is not mounted", "the glob matches nothing"])
def test_a_source_in_which_nothing_is_found_any_more_takes_nothing_away(five: Workplace, gone: str) -> None:
    if gone == "the glob matches nothing":
        five.spec(source='uri = "data/*.jsonl", id = "id", text = "text", metadata = ["kind"]')
    else:
        shutil.rmtree(five.root / "data")
        (five.root / "data").mkdir()
    for command in (plan, apply):
        with pytest.raises(SourceMissing, match=r"found none, where docs has some: is it mounted.*--allow-removal"):
            command(config=five.config)
    assert len(five.texts()) == 100

    assert apply(config=five.config, allow_removal=True).documents["removed"] == 100
    assert not five.texts()
    assert not five.plan().pending


def test_an_update_that_takes_away_too_much_is_built_and_not_published_until_a_person_confirms(five: Workplace) -> None:
    for number in range(3):
        five.remove(f"{number}.parquet")
    planned, done = five.plan(), five.apply()
    assert "it removes 60 of the 100 documents that readers have (60.0%)" in " ".join(planned.notes)
    assert (done.status, done.exit_code, len(five.texts())) == ("built", 3, 100)
    assert "--allow-removal" in done.reason

    five.write("5.parquet", documents(1, 100))  # the table has lost them by now: readers have not
    assert "it removes 60 of the 100" in " ".join(five.plan().notes)
    assert (five.apply().status, len(five.texts())) == ("built", 100)
    for number in range(2):
        five.write(f"{number}.parquet", documents(20, 20 * number))  # 40 of them are back
    planned, done = five.plan(), five.apply()
    assert not [note for note in planned.notes if "it removes" in note]
    assert (done.status, done.embed["contents"], len(five.texts())) == ("published", 0, 81)

    for number in range(5):
        five.remove(f"{number}.parquet") if number != 2 else None
    assert plan(config=five.config, allow_removal=True).notes == []
    assert apply(config=five.config, allow_removal=True).status == "published"
    assert set(five.texts()) == {"d100#0"}


def test_documents_that_only_move_are_not_removed(five: Workplace) -> None:
    for number in range(5):
        (five.root / f"data/{number}.parquet").rename(five.root / f"data/moved-{number}.parquet")
    assert five.update().status == "published"


def test_another_place_is_named_and_held_against_what_readers_have(five: Workplace) -> None:
    """A development spec that is pointed at the production store, with files of the same names."""
    shutil.copytree(five.root / "data", five.root / "sample")
    for file in (five.root / "sample").iterdir():
        five.write(f"../sample/{file.name}", {"x" + id[1:]: text for id, text in documents(20, 20 * int(file.stem)).items()})
    five.spec(source='uri = "sample/*.parquet", id = "id", text = "text", metadata = ["kind"]')
    notes = " ".join(five.plan().notes)
    assert f"documents were read from {five.root / 'data'}/*.parquet until now, and are from {five.root / 'sample'}/*.parquet" in notes
    assert "it removes 100 of the 100 documents" in notes
    assert five.apply().status == "built"
    assert set(five.texts()) == {f"{id}#0" for id in documents(100)}


def test_another_file_of_the_same_name_size_and_times_is_read(workplace: Workplace) -> None:
    """As an archive that is unpacked with fixed times leaves it. A false alarm costs a read, and no forward pass."""
    workplace.write("a.parquet", documents(10))
    workplace.update()
    file, other = workplace.root / "data/a.parquet", workplace.root / "other.parquet"
    before = file.stat()
    workplace.write("../other.parquet", {f"e{id[1:]}": text for id, text in documents(10).items()})
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert other.stat().st_size == before.st_size
    other.replace(file)
    assert workplace.plan().documents["added"] == 10
    workplace.spec(rest="gates = { max_removed = 1 }")
    workplace.update()
    assert set(workplace.texts()) == {f"e{number}#0" for number in range(10)}

    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # only ctime is another
    file.chmod(0o600)
    done = workplace.update()
    assert (done.documents["unchanged"], done.embed["contents"], done.change) == (10, 0, "none")


def test_a_lost_file_weighs_as_much_as_the_documents_in_it(five: Workplace) -> None:
    """And those of it that are stored are stale: not unchanged."""
    broken = five.root / "data/0.parquet"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    planned, done = five.plan(), five.apply()
    assert planned.documents == done.documents == {"added": 0, "changed": 0, "removed": 0, "unchanged": 80}
    assert planned.failed == done.failed == {"documents": 20, "stale": 20, "of": 100}
    assert "20 of 100 documents cannot be read or used as they are (20.0%)" in " ".join(planned.notes)
    assert (done.status, done.dead_letters) == ("built", 1)
    (gate,) = [gate for gate in done.gates if gate.name == "dead letters"]
    assert (gate.value, gate.passed) == (0.2, False)
    assert status("docs", five.config)["collections"][0]["failed"]["stale"] == 20

    five.spec(rest="gates = { max_failed = 0.2 }")
    assert five.apply().exit_code == 4
    assert len(five.texts()) == 100
    broken.write_bytes(whole)
    done = five.update()
    assert (done.failed, done.exit_code) == ({"documents": 0, "stale": 0, "of": 100}, 0)


def test_a_file_that_was_never_read_weighs_by_the_rows_that_its_footer_names(five: Workplace) -> None:
    five.write("5.parquet", documents(30, 100))
    file = five.root / "data/5.parquet"
    data = bytearray(file.read_bytes())
    data[4:80] = bytes(76)  # pages; the footer is at the end
    file.write_bytes(data)
    done = five.apply()
    assert (done.status, done.failed) == ("built", {"documents": 30, "stale": 0, "of": 130})


def test_a_file_that_was_never_read_weighs_by_its_bytes_and_a_bad_document_is_one(workplace: Workplace) -> None:
    lines = [json.dumps({"id": id, "text": text}) for id, text in documents(90).items()]
    data = workplace.root / "data"
    (data / "a.jsonl").write_text("\n".join(lines[:40] + ["{"] * 10))
    (data / "b.jsonl.gz").write_bytes(b"\x1f\x8b nothing that can be unpacked")
    (data / "c.jsonl").write_text("\n".join(lines[40:]))
    workplace.spec(source='uri = "data", id = "id", text = "text"')
    done = workplace.apply()
    assert done.failed == {"documents": 11, "stale": 0, "of": 101}
    assert (done.status, done.dead_letters) == ("built", 11)


def test_a_file_that_is_written_over_with_something_else_keeps_its_documents_stale(workplace: Workplace) -> None:
    """An error page in the place of JSON lines: one bad line, and not one bad document."""
    workplace.spec(source='uri = "data", id = "id", text = "text"')
    for number in range(5):
        lines = [json.dumps({"id": id, "text": text}) for id, text in documents(20, 20 * number).items()]
        (workplace.root / f"data/{number}.jsonl").write_text("\n".join(lines))
    workplace.update()
    for number in range(2):
        (workplace.root / f"data/{number}.jsonl").write_text("<html>503 Service Unavailable</html>")
    planned, done = workplace.plan(), workplace.apply()
    assert planned.documents == done.documents == {"added": 0, "changed": 0, "removed": 0, "unchanged": 60}
    assert (done.status, done.failed["stale"], len(workplace.texts())) == ("built", 40, 100)
    assert (workplace.plan().pending, workplace.apply().status) == (True, "built")


def test_what_a_broken_file_had_is_known_to_another_way_to_cut(five: Workplace) -> None:
    (five.root / "data/0.parquet").write_bytes(b"no Parquet")
    five.spec(rest='chunking = { by = "document" }')
    done = five.apply()
    assert (done.change, done.status, done.failed) == ("chunking", "built", {"documents": 20, "stale": 0, "of": 100})
    assert len(five.texts()) == 100


@pytest.mark.parametrize("lost", ["vectors", "vectors and chunks"])
def test_a_loss_is_held_against_what_readers_had_also_where_that_is_gone_itself(five: Workplace, lost: str) -> None:
    for table in Path(five.store).glob("docs.*.lance" if "chunks" in lost else "docs.vectors.*.lance"):
        shutil.rmtree(table)
    for number in range(4):
        five.remove(f"{number}.parquet")
    assert "it removes 80 of the 100" in " ".join(five.plan().notes)
    assert five.apply().status == "built"
    assert apply(config=five.config, allow_removal=True).status == "published"
    assert len(five.texts()) == 20


def test_a_document_that_is_emptied_goes(workplace: Workplace) -> None:
    workplace.spec(source='uri = "data"', rest="gates = { max_failed = 1 }")
    for name in "abc":
        (workplace.root / f"data/{name}.txt").write_text(f"the text of {name}")
    workplace.update()
    (workplace.root / "data/a.txt").write_text(" ")
    assert workplace.update().documents["removed"] == 1
    assert set(workplace.texts()) == {"b.txt#0", "c.txt#0"}
