"""Marts say what the records say, whatever happened to a run or to a write of theirs; and they are no collection."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows import apply, evaluate, history, report, rollback, status
from pipelines.errors import RevectorError
from storage.collection import Collection, collections
from storage.marts import columns, handing
from storage.marts.columns import MARTS, RUNS, Mart
from storage.marts.leaving import leave_marts
from storage.marts.mart_files import FOLDER, read_mart, read_marts
from storage.store.lance import Store
from tests.conftest import Workplace


def rows(workplace: Workplace, mart: Mart) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_mart(Collection(Store(workplace.store), "docs"), mart).to_pylist()
    return found


def standing(workplace: Workplace) -> dict[str, Any]:
    (row,) = rows(workplace, columns.COLLECTIONS)
    return row


def test_marts_say_what_history_and_status_say(workplace: Workplace) -> None:
    candidates = 'candidates = [{ name = "hash", dimensions = 8 }]'
    prices = 'prices = { cpu_hour = 2.0, currency = "EUR", monthly = 5.0 }'
    workplace.spec(rest="\n".join([candidates, "gates = { max_failed = 0.5 }", prices]))
    workplace.write("1.parquet", {"a": "one text", "b": "another text", "c": ""})
    workplace.apply()
    workplace.write("2.parquet", {"d": "one text"})
    second = workplace.apply()
    judged = evaluate(config=workplace.config)
    told, now = history(config=workplace.config), status(config=workplace.config)["collections"][0]

    runs = rows(workplace, RUNS)
    assert [row["run_id"] for row in runs] == [run["run_id"] for run in told["runs"]]
    assert [row["status"] for row in runs] == [run["status"] for run in told["runs"]] == ["partial", "partial"]
    last = runs[-1]
    assert (last["documents_added"], last["documents_unchanged"], last["dead_letters"]) == (1, 2, second.dead_letters)
    assert (last["contents_embedded"], last["chunks_written"], last["chunks_reused"], last["reused_share"]) == (0, 2, 2, 1.0)
    assert last["cost"] == pytest.approx(second.cost.total) and last["currency"] == "EUR"
    assert sum(row["cost"] for row in rows(workplace, columns.STAGES) if row["run_id"] == last["run_id"]) == pytest.approx(last["cost"])

    published = now["published"]
    row = standing(workplace)
    assert (row["generation"], row["version"], row["vectors"]) == (published["generation"], published["version"], published["chunks"])
    assert (row["documents"], row["dead_letters"], row["pending"], row["waiting"], row["last_run"]) == (3, 1, 0, 1, last["run_id"])
    assert row["month_cost"] == pytest.approx(sum(run["cost"] for run in runs)) and row["monthly_budget"] == 5.0
    newest = max(path.stat().st_mtime for path in (workplace.root / "data").iterdir())
    assert row["newest_source_at"] == datetime.fromtimestamp(newest, UTC)
    assert [row["state"] for row in rows(workplace, columns.GENERATIONS)] == [one["state"] for one in now["generations"]]
    assert [row["epoch"] for row in rows(workplace, columns.VERSIONS)] == [one["epoch"] for one in told["published"]]
    gates = [row for row in rows(workplace, columns.GATES) if row["evaluation_id"] == judged.id]
    assert {row["gate"]: row["value"] for row in gates} == {gate.name: gate.value for gate in judged.gates}
    (letter,) = rows(workplace, columns.DEAD_LETTERS)
    assert (letter["id"], letter["file"], letter["reason"]) == ("c", "1.parquet", "no text")
    assert letter["first_seen"] == runs[0]["ended"] and letter["run_id"] == last["run_id"]
    assert [row["pending"] for row in rows(workplace, columns.COVERAGE_DAILY)] == [0, 0]
    (day,) = rows(workplace, columns.COSTS_DAILY)
    assert (day["runs"], day["failed"], day["cost"]) == (2, 0, pytest.approx(sum(run["cost"] for run in runs)))


def test_a_look_that_finds_nothing_to_do_is_told(workplace: Workplace) -> None:
    """Else a source that never changes would look as if nobody had been there."""
    workplace.write("1.parquet", {"a": "one text"})
    workplace.apply()
    before = standing(workplace)
    assert workplace.apply().status == "nothing"
    after = standing(workplace)
    assert after["looked_at"] > before["looked_at"]
    assert {**after, "as_of": 0, "looked_at": 0} == {**before, "as_of": 0, "looked_at": 0}


def test_decisions_and_reports_are_in_the_marts_when_their_command_ends(workplace: Workplace) -> None:
    workplace.write("1.parquet", {f"d{number}": f"text {number} of some" for number in range(40)})
    workplace.apply()
    workplace.write("2.parquet", {"e": "new"})
    workplace.apply()
    rollback(config=workplace.config, why="worse")
    row = standing(workplace)
    assert row["pinned"] is True and row["epoch"] == 3
    assert rows(workplace, columns.VERSIONS)[-1]["why"] == "worse"
    report("docs", ["duplicates"], workplace.config)
    assert {"contents", "rows"} <= {row["measure"] for row in rows(workplace, columns.REPORTS) if row["kind"] == "duplicates"}


def test_a_run_that_failed_or_was_killed_is_told(workplace: Workplace) -> None:
    workplace.write("1.parquet", {"a": "one text"})
    workplace.apply()
    killed = "import os, sys; from flows import apply; from storage.history import heartbeat;"
    killed += "heartbeat.Heartbeat.__exit__ = lambda *_: os.kill(os.getpid(), 9); apply(config=sys.argv[1])"
    workplace.write("2.parquet", {"b": "another"})
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", killed, str(workplace.config)], env=environment, check=False).returncode == -9
    workplace.write("3.parquet", {"c": "third"})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RevectorError):
        patch.setattr("workers.runs.apply.judge", _broken)
        workplace.apply()
    states = [row["status"] for row in rows(workplace, RUNS)]
    assert states[0] == "published" and states[-1] == "failed"
    assert len(states) == 3
    assert rows(workplace, RUNS)[-1]["error"] == "RevectorError: expected judges, found none"
    assert standing(workplace)["last_status"] == "failed"
    workplace.apply()
    assert standing(workplace)["last_status"] == "published"


def _broken(*_: Any) -> Any:
    raise RevectorError("expected judges, found none")


def test_a_write_that_was_lost_is_made_up_for_and_costs_no_run(workplace: Workplace) -> None:
    workplace.write("1.parquet", {"a": "one text"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handing, "leave_marts", _away)
        first = workplace.apply()
    assert first.status == "published" and rows(workplace, RUNS) == []
    workplace.write("2.parquet", {"b": "another"})
    second = workplace.apply()
    assert [row["run_id"] for row in rows(workplace, RUNS)] == [first.run_id, second.run_id]


def _away(*_: Any) -> None:
    raise OSError("the store is away")


def test_marts_are_the_same_whether_they_grew_or_were_made_at_once(workplace: Workplace) -> None:
    for number in range(3):
        workplace.write(f"{number}.parquet", {f"d{number}": f"text {number}", f"e{number}": "" if number == 1 else "more"})
        workplace.apply()
    collection = Collection(Store(workplace.store), "docs")
    grown = {name: read_mart(collection, mart).to_pylist() for name, mart in MARTS.items()}
    collection.objects.remove(FOLDER)
    leave_marts(collection)
    made = {name: read_mart(collection, mart).to_pylist() for name, mart in MARTS.items()}
    same = set(MARTS) - {"collections", "coverage_daily", "dead_letters"}  # these know what a run saw, and since when
    assert {name: grown[name] for name in same} == {name: made[name] for name in same}


def test_a_mart_with_other_columns_is_read_as_one_of_today(workplace: Workplace) -> None:
    """One that was written before a column came up, or by a later version."""
    workplace.write("1.parquet", {"a": "one text"})
    workplace.apply()
    file = workplace.root / "store" / FOLDER / "runs/docs.parquet"
    old = pq.read_table(file).drop(["tokens"]).append_column("later", [["x"]])
    pq.write_table(old, file)
    (row,) = rows(workplace, RUNS)
    assert row["tokens"] is None and "later" not in row
    assert read_marts(Store(workplace.store), RUNS).num_rows == 1


def test_every_column_says_what_it_is() -> None:
    for mart in MARTS.values():
        assert set(mart.key) <= set(mart.schema.names)
        assert all(about.endswith(".") for _, about in mart.columns()), mart.name


def test_a_collection_called_marts_has_its_runs_for_itself(workplace: Workplace) -> None:
    workplace.write("1.parquet", {"a": "one text"})
    workplace.config.write_text(workplace.config.read_text().replace("collections.docs", "collections.marts"))
    first = apply(config=workplace.config)
    store = Store(workplace.store)
    assert list(map(str, collections(store))) == ["marts"]
    assert status("marts", workplace.config)["collections"][0]["last_run"]["run_id"] == first.run_id
    assert read_mart(Collection(store, "marts"), RUNS)["run_id"].to_pylist() == [first.run_id]


def test_marts_are_no_collection(workplace: Workplace) -> None:
    workplace.write("1.parquet", {"a": "one text"})
    workplace.apply()
    assert list(map(str, collections(Store(workplace.store)))) == ["docs"]
