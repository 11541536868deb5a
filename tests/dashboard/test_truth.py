"""What the overview and the marts say is so, whatever ran at once, in which order ids and clocks come, and what became of a file."""

import re
import sys
import time
from datetime import UTC, datetime, timedelta
from html import unescape
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dashboard.looking.lookout import LATE_SECONDS, Lookout
from dashboard.looking.situation import Situation
from flows import apply, evaluate, maintain, report, rollback, status
from pipelines.errors import RevectorError
from storage.collection import Collection
from storage.marts import columns, leaving
from storage.marts.columns import COLLECTIONS, COSTS_DAILY, RUNS
from storage.marts.leaving import leave_marts
from storage.marts.mart_files import FOLDER, put_mart, read_mart, table_of
from storage.reading.status import dead_letters
from storage.store.lance import Store
from storage.who import now
from tests.conftest import Workplace
from tests.support.viewer import Viewer
from tests.support.window import TOKEN, serving
from workers.observing.telling import silent
from workers.runs import apply as applying
from workers.runs.session import open_session


def docs(workplace: Workplace) -> Collection:
    return Collection(Store(workplace.store), "docs")


def seen(workplace: Workplace, name: str = "docs") -> Situation:
    found = Lookout(Store(workplace.store)).standing(name)
    assert found is not None
    return found


@pytest.mark.parametrize("mart", ["collections", "runs", "generations"])
@pytest.mark.parametrize("foreign", [False, True])
def test_a_file_that_is_no_mart_stops_nobody_and_is_made_anew(workplace: Workplace, mart: str, foreign: bool) -> None:
    workplace.write("1.parquet", {"a": "one text"})
    first = workplace.apply()
    file = Path(workplace.store, FOLDER, mart, "docs.parquet")
    if foreign:
        pq.write_table(pa.table({"run_id": [{"x": 1}], "collection": [None], "generation": [[1]]}), file)
    else:
        file.write_bytes(file.read_bytes()[:-9])
    with serving(workplace.store) as address:
        assert Viewer(address).get("/").status == 200
        assert {Viewer(address).get(page).status for page in ("/c/docs", "/runs", "/runs/docs/" + first.run_id)} <= {200, 503}
    second = apply(config=workplace.config)
    assert second.status == "nothing"
    assert read_mart(docs(workplace), RUNS)["run_id"].to_pylist() == [first.run_id]
    assert pq.read_schema(file).names == columns.MARTS[mart].schema.names


def test_a_run_that_has_just_begun_is_seen_whoever_leaves_marts_meanwhile(workplace: Workplace) -> None:
    workplace.write("1.parquet", {"a": "one text"})
    workplace.apply()
    workplace.write("2.parquet", {"b": "another"})
    workplace.apply()
    with open_session(docs(workplace), silent) as session:
        assert seen(workplace).state == ("live", "updating")
        rollback(config=workplace.config)
        assert seen(workplace).state == ("live", "updating")
        session.begin()
        evaluate(config=workplace.config)
        assert seen(workplace).state == ("live", "updating")


def test_the_last_run_is_the_one_that_came_last_by_whatever_clock(workplace: Workplace) -> None:
    """Clocks of two machines differ, and ids are of whoever submits: only the fence knows the order."""
    workplace.write("1.parquet", {"a": "one text"})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RevectorError):
        patch.setattr("workers.runs.apply.judge", _broken)
        patch.setattr("workers.runs.session.now", lambda: (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="milliseconds"))
        apply(config=workplace.config, run_id="zzz")
    done = apply(config=workplace.config, run_id="aaa")
    assert done.status == "published"
    standing = seen(workplace)
    assert (standing.told("last_run"), standing.told("last_status")) == ("aaa", "published")
    assert standing.state == ("good", "current")


def _broken(*_: Any, **__: Any) -> Any:
    raise RevectorError("expected judges, found none")


def test_upkeep_after_an_update_that_failed_does_not_make_it_good(workplace: Workplace) -> None:
    workplace.spec(rest="retention = { publications = 1, days = 0 }")
    workplace.write("1.parquet", {"a": "one text"})
    workplace.apply()
    workplace.write("2.parquet", {"b": "another"})
    workplace.apply()
    workplace.remove("2.parquet")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RevectorError):
        patch.setattr("workers.runs.apply.judge", _broken)
        workplace.apply()
    assert seen(workplace).state == ("bad", "stale")
    kept = maintain(config=workplace.config)
    assert kept.status == "maintained"
    standing = seen(workplace)
    assert standing.told("last_what") == "maintain" and standing.state == ("bad", "stale")
    assert "the last update failed" in " ".join(need.said for need in standing.needs())
    workplace.apply()
    assert seen(workplace).state == ("good", "current")


def test_a_run_is_counted_once_whoever_looked_while_it_went_on(workplace: Workplace) -> None:
    workplace.spec(rest='prices = { cpu_hour = 2.0, currency = "EUR" }')
    workplace.write("1.parquet", {"a": "one text"})

    def meanwhile(*arguments: Any, judge: Any = applying.judge, **named: Any) -> Any:
        leave_marts(docs(workplace))
        return judge(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(applying, "judge", meanwhile)
        workplace.apply()
    (day,) = read_mart(docs(workplace), COSTS_DAILY).to_pylist()
    assert (day["currency"], day["runs"]) == ("EUR", 1)


def test_what_the_last_month_cost_is_not_of_this(workplace: Workplace) -> None:
    workplace.spec(rest='prices = { cpu_hour = 2.0, currency = "EUR", monthly = 0.000001 }')
    workplace.write("1.parquet", {"a": "one text"})
    workplace.apply()
    assert any("budget" in need.said for need in seen(workplace).needs())
    (row,) = read_mart(docs(workplace), COLLECTIONS).to_pylist()
    put_mart(docs(workplace), COLLECTIONS, table_of(COLLECTIONS, [row | {"as_of": row["as_of"] - timedelta(days=32)}]))
    assert not any("budget" in need.said for need in seen(workplace).needs())
    with serving(workplace.store) as address:
        (shown,) = Viewer(address).get("/", ("as", "json")).rows
        assert shown["month_cost"] is None


def test_runs_of_two_collections_with_one_id_are_told_apart(workplace: Workplace) -> None:
    """Whoever submits names the run: the night's, of each collection."""
    store = Store(workplace.store)
    lookout = Lookout(store)
    with open_session(Collection(store, "ended"), silent, "night") as ended:
        ended.begin()
        ended.run.write("result.json", {"run_id": "night", "status": "published"})
    with open_session(Collection(store, "docs"), silent, "night"):
        found = {one.name: one.going for one in lookout.standings()}
    going = found["docs"]
    assert found["ended"] is None and going is not None and going.alive


def test_the_spec_shown_is_that_of_the_newest_run(workplace: Workplace) -> None:
    workplace.spec(rest="gates = { max_failed = 0.5 }")
    workplace.write("1.parquet", {"a": "one text"})
    apply(config=workplace.config, run_id="zzz")
    workplace.spec(rest="gates = { max_failed = 0.25 }")
    workplace.write("2.parquet", {"b": "another"})
    apply(config=workplace.config, run_id="aaa")
    with serving(workplace.store) as address:
        shown = Viewer(address).get("/c/docs").said
        assert "max_failed = 0.25" in shown and "max_failed = 0.5 " not in shown


def test_who_looked_before_a_run_ended_does_not_write_over_what_it_left(workplace: Workplace) -> None:
    """Somebody evaluates while a run ends: read before, written after."""
    workplace.write("1.parquet", {"a": "one text"})
    with open_session(docs(workplace), silent) as session:
        session.begin()
        leave_marts(docs(workplace))

        def between(*arguments: Any, write: Any = leaving.put_mart) -> None:
            if arguments[1] is RUNS and not session.run.exists("result.json"):
                session.run.write("result.json", {"run_id": session.run.run_id, "status": "nothing", "at": now()})
                leave_marts(docs(workplace))
            write(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leaving, "put_mart", between)
            leave_marts(docs(workplace))
    assert seen(workplace).told("last_status") == "nothing"
    assert read_mart(docs(workplace), RUNS)["status"].to_pylist() == ["nothing"]


def test_an_erasure_keeps_the_names_that_the_newest_run_told_by_whatever_id(workplace: Workplace) -> None:
    workplace.spec(rest="gates = { max_failed = 1 }")
    workplace.write("1.parquet", {"a": "one text", "secret": ""})
    apply(config=workplace.config, run_id="zzz")
    workplace.write("1.parquet", {"a": "one text", "open": ""})
    apply(config=workplace.config, run_id="aaa")
    maintain(config=workplace.config, erase=True)
    records = [path.read_bytes() for path in Path(workplace.store, "_revector").rglob("*") if path.is_file()]
    assert not any(b"secret" in record for record in records)
    assert [row["id"] for row in read_mart(docs(workplace), columns.DEAD_LETTERS).to_pylist()] == ["open"]
    assert [letter["id"] for letter in dead_letters(docs(workplace))] == ["open"]


def test_a_decision_stands_if_its_marts_cannot_be_written(workplace: Workplace) -> None:
    """Whoever reads that it failed would decide again."""
    workplace.write("1.parquet", {"a": "one text"})
    workplace.apply()
    workplace.write("2.parquet", {"b": "another"})
    workplace.apply()
    with serving(workplace.store, allow=frozenset({"rollback"})) as address:
        page = Viewer(address).get("/c/docs/rollback").text
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("storage.marts.handing.leave_marts", _away)
            answer = posted(address, "/c/docs/rollback", {name: unescape(value) for name, value in fields.items()} | {"why": "worse"})
    assert answer == 303


def _away(*_: Any) -> None:
    raise OSError("the store is away")


def posted(address: str, path: str, fields: dict[str, str]) -> int:
    connection = HTTPConnection(urlsplit(address).netloc, timeout=60)
    headers = {"Authorization": f"Bearer {TOKEN}", "Origin": address, "Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", path, urlencode(fields), headers)
    return connection.getresponse().status


def test_a_record_of_another_shape_ends_no_run(workplace: Workplace) -> None:
    workplace.write("1.parquet", {"a": "one text"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("storage.marts.leaving.new_runs", lambda *_: {}["embed"])
        assert workplace.apply().status == "published"


def test_a_plan_is_of_the_next_run_and_not_of_the_last(workplace: Workplace) -> None:
    workplace.write("1.parquet", {"a": "one text"})
    workplace.apply()
    told = '{"pending": true, "documents": {"added": 7, "changed": 0, "removed": 0}}'
    with serving(workplace.store, revector=(sys.executable, "-c", f"print('{told}')")) as address:
        token = re.findall('name="form_token" value="([^"]*)"', Viewer(address).get("/c/docs/plan").text)[0]
        assert posted(address, "/c/docs/plan", {"form_token": token}) == 303
        for _ in range(100):
            if shown := "7 new" in Viewer(address).get("/").said:
                break
            time.sleep(0.1)
        assert shown
        workplace.apply()
        deadline = time.monotonic() + 3 * LATE_SECONDS  # on a busy machine the look behind takes its time
        while "7 new" in Viewer(address).get("/").said:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_figures_alone_have_no_word_and_no_value_of_a_document(workplace: Workplace) -> None:
    documents = {f"d{number}": f"canary words {number % 7} and {number % 5}" for number in range(60)}
    workplace.write("1.parquet", documents, ["canarya" if number % 2 else "canaryb" for number in range(60)])
    workplace.apply()
    report("docs", ["clusters", "outliers", "balance"], workplace.config)
    of_one = "?id=d1&v=published&chunk=0"
    pages = ["/", "/c/docs", *(f"/c/docs/{page}" for page in ("quality", "map", "search", "documents", "letters"))]
    with serving(workplace.store, texts=False) as address:
        for page in [*pages, f"/c/docs/documents{of_one}", f"/c/docs/documents/known{of_one}"]:
            shown = Viewer(address).get(page)
            assert shown.status == 200 and "canary" not in shown.text, page


def test_of_an_update_that_did_not_finish_nobody_says_that_all_is_covered(workplace: Workplace) -> None:
    """As many rows as chunks, and none is of them."""
    workplace.write("1.parquet", {f"d{number}": f"text {number}" for number in range(9)})
    workplace.apply()
    workplace.write("1.parquet", {f"d{number}": f"new text {number}" for number in range(9)})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RevectorError):
        patch.setattr(applying, "_fill", _broken)
        workplace.apply()
    assert status(config=workplace.config)["collections"][0]["backlog"] == 9
    standing = seen(workplace)
    assert (standing.told("pending"), standing.told("coverage")) == (None, None)
    with serving(workplace.store) as address:
        assert "100.0 %" not in Viewer(address).get("/").said + Viewer(address).get("/c/docs").said
    workplace.apply()
    assert (seen(workplace).told("pending"), seen(workplace).told("coverage")) == (0, 1.0)


def test_a_budget_is_compared_with_amounts_of_its_own_currency(workplace: Workplace) -> None:
    workplace.spec(rest='prices = { cpu_hour = 2.0, currency = "JPY" }')
    workplace.write("1.parquet", {"a": "one text"})
    workplace.apply()
    workplace.spec(rest='prices = { cpu_hour = 2.0, currency = "EUR", monthly = 0.0000001 }')
    assert workplace.apply().status == "nothing"
    standing = seen(workplace)
    assert (standing.told("currency"), standing.month_cost) == ("EUR", None)
    assert not any("budget" in need.said for need in standing.needs())
    workplace.write("2.parquet", {"b": "another"})
    cost = workplace.apply().cost
    assert cost is not None and seen(workplace).month_cost == pytest.approx(cost.total)


def test_a_file_of_text_that_cannot_be_read_is_found_as_the_document_that_it_would_be(workplace: Workplace) -> None:
    """The path of a file of text is its id."""
    (workplace.root / "notes").mkdir()
    (workplace.root / "notes/good.md").write_text("a good text")
    (workplace.root / "notes/bad.md").write_bytes("a text".encode("utf-16")[:-1])
    workplace.config.write_text(
        '[collections.docs]\nsource = { uri = "notes" }\nmodel = { name = "hash", dimensions = 16 }\ngates = { max_failed = 0.6 }\n'
    )
    assert workplace.apply().status == "partial"
    with serving(workplace.store) as address:
        found = Viewer(address).get("/c/docs/documents?id=bad.md")
        assert found.status == 200 and "Save the file as UTF-8" in found.said


def test_a_store_without_marts_says_that_nothing_is_known(workplace: Workplace) -> None:
    """And not that there is nothing."""
    workplace.write("1.parquet", {"a": "one text", "b": ""})
    workplace.spec(rest="gates = { max_failed = 0.5 }")
    workplace.apply()
    Store(workplace.store).objects.remove(FOLDER)
    with serving(workplace.store) as address:
        for page in ("/", "/runs", "/c/docs", "/c/docs/quality", "/c/docs/letters"):
            assert "revector export docs --to marts" in Viewer(address).get(page).said, page
        assert "0 documents" not in Viewer(address).get("/").said
        assert "Nothing was judged" not in Viewer(address).get("/c/docs/quality").said
