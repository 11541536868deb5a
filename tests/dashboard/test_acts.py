"""What a person decides at the dashboard is what was shown, with a reason, and seen at once; plans are made on demand."""

import sys
from pathlib import Path

import pytest

from flows import apply, promote, rollback
from storage.collection import Collection
from storage.history.catalog import publications
from storage.store.lance import Store
from tests.conftest import Workplace
from tests.support.window import Window, serving

BOTH = frozenset({"promote", "rollback"})


@pytest.fixture
def two_models(workplace: Workplace) -> Workplace:
    """Two versions of one generation, and a candidate that passed."""
    workplace.spec(rest='candidates = [{ name = "hash", dimensions = 8 }]')
    workplace.write("1.parquet", {"a": "one text", "b": "another"})
    workplace.apply()
    workplace.write("2.parquet", {"c": "third"})
    workplace.apply()
    return workplace


def history(workplace: Workplace) -> list[tuple[str, int, str]]:
    rows = publications(Collection(Store(workplace.store), "docs"))
    return [(row.action, row.version, row.why) for row in rows]


def test_a_promotion_names_both_versions_and_is_seen_at_once(two_models: Workplace, browser: Window) -> None:
    with serving(two_models.store, allow=BOTH) as address, browser.at(address, "/c/docs") as page:
        page.get_by_role("link", name="promote …").click()
        there = page.locator("main").inner_text()
        assert f"\t{history(two_models)[-1][1]}\t" in there.partition("readers would get")[0]
        assert there.count("docs.vectors.") == 2
        page.get_by_role("button", name="Promote version").click()  # the browser demands a reason
        assert page.url.partition("?")[0].endswith("/promote") and len(history(two_models)) == 2
        page.get_by_label("Why").fill("better <b>on</b> our questions")
        page.get_by_role("button", name="Promote version").click()
        page.wait_for_url("**/c/docs")
        assert page.locator("tr.here").inner_text().count("better <b>on</b> our questions") == 1
    assert history(two_models)[-1][::2] == ("promote", "better <b>on</b> our questions")


def test_a_rollback_says_that_it_pins(two_models: Workplace, browser: Window) -> None:
    with serving(two_models.store, allow=BOTH) as address, browser.at(address, "/c/docs") as page:
        page.get_by_role("link", name="roll back …").first.click()
        assert "Readers stay there until revector resume docs" in page.locator("main").inner_text()
        page.get_by_label("Why").fill("worse")
        page.get_by_role("button", name="Roll back to version").click()
        page.wait_for_url("**/c/docs")
        assert page.get_by_text("a rollback keeps readers where they are").is_visible()
        page.goto(address)
        assert page.get_by_text("docs: a rollback keeps readers where they are").is_visible()
    rows = history(two_models)
    assert rows[-1] == ("rollback", rows[0][1], "worse")
    assert browser.complaints == []


def test_what_changed_since_it_was_shown_is_not_decided(two_models: Workplace, browser: Window) -> None:
    """Between the page and its button a run published: nothing may be done with what nobody saw."""
    with serving(two_models.store, allow=BOTH) as address, browser.at(address, "/c/docs") as page:
        page.get_by_role("link", name="promote …").click()
        two_models.write("3.parquet", {"d": "fourth"})
        two_models.apply()
        before = history(two_models)
        page.get_by_label("Why").fill("better")
        page.get_by_role("button", name="Promote version").click()
        assert "look again, then decide" in page.locator("main").inner_text()
    assert history(two_models) == before
    browser.complaints.clear()  # of the answer's status


def test_a_viewer_whom_a_proxy_names_is_in_the_history(two_models: Workplace, browser: Window) -> None:
    with (
        serving(two_models.store, allow=BOTH, header="X-Viewer") as address,
        browser.at(address, "/c/docs", extra_http_headers={"X-Viewer": "ada"}) as page,
    ):
        assert page.get_by_text("ada").first.is_visible()
        page.get_by_role("link", name="promote …").click()
        page.get_by_label("Why").fill("better")
        page.get_by_role("button", name="Promote version").click()
        page.wait_for_url("**/c/docs")
    assert history(two_models)[-1][2] == "better (ada, at the dashboard)"


def test_without_leave_there_is_no_way_to_act(two_models: Workplace, browser: Window) -> None:
    with serving(two_models.store) as address, browser.at(address, "/c/docs") as page:
        assert page.get_by_text("promote …").count() == page.get_by_text("roll back …").count() == 0


def test_a_plan_is_made_when_asked_for_and_shown_on_the_overview(workplace: Workplace, browser: Window) -> None:
    workplace.write("1.parquet", {"a": "one text"})
    workplace.apply()
    workplace.write("2.parquet", {"b": "two", "c": "three"})
    place = ("--config", str(workplace.config), "--store", workplace.store)
    before = set(Path(workplace.store).rglob("*"))
    with (
        serving(workplace.store, revector=(sys.executable, "-m", "flows.cli"), place=place) as address,
        browser.at(address, "/c/docs/plan") as page,
    ):
        page.get_by_role("button", name="Plan now").click()
        page.get_by_text("changes").wait_for(timeout=60_000)
        assert page.locator(".card", has_text="new documents").inner_text().startswith("2")
        page.goto(address)
        assert page.get_by_text("2 new, 0 changed, 0 gone").is_visible()
        workplace.config.write_text("[collections.docs\n")
        page.goto(f"{address}/c/docs/plan")
        page.get_by_role("button", name="Plan again").click()
        page.get_by_text("expected TOML").wait_for(timeout=60_000)
        page.goto(address)
        assert page.get_by_role("heading", name="Collections").is_visible()
    assert set(Path(workplace.store).rglob("*")) == before
    assert browser.complaints == []


def test_what_is_new_is_seen_without_a_reload(workplace: Workplace, browser: Window) -> None:
    workplace.write("1.parquet", {"a": "one text"})
    workplace.apply()
    with serving(workplace.store) as address, browser.at(address) as page:
        assert page.locator("tbody tr").first.get_by_role("cell").nth(1).inner_text() == "1"
        workplace.write("2.parquet", {"b": "two", "c": "three"})
        apply(config=workplace.config)
        page.locator("tbody tr").first.get_by_role("cell", name="3", exact=True).wait_for(timeout=15_000)
        rollback(config=workplace.config)
        page.get_by_text("a rollback keeps readers where they are").wait_for(timeout=15_000)
    assert browser.complaints == []


def test_one_goes_back_to_another_generation_whose_version_has_the_same_number(workplace: Workplace, browser: Window) -> None:
    """As it is where both were built in one run; and nobody goes back to what readers have."""
    workplace.spec(rest='candidates = [{ name = "hash", dimensions = 8 }]')
    workplace.write("1.parquet", {"a": "one text", "b": "another"})
    first = workplace.apply()
    other = next(one.generation for one in first.generations if one.role == "candidate")
    promote("docs", other, workplace.config)
    rows = publications(Collection(Store(workplace.store), "docs"))
    assert rows[0].version == rows[1].version and rows[0].generation != rows[1].generation
    with serving(workplace.store, allow=BOTH) as address, browser.at(address, "/c/docs") as page:
        page.get_by_role("link", name="roll back …").click()
        assert page.locator("main").inner_text().count("docs.vectors.") == 2
        page.get_by_label("Why").fill("worse")
        page.get_by_role("button", name="Roll back to version").click()
        page.wait_for_url("**/c/docs")
        assert page.get_by_role("link", name="promote …").count() == page.get_by_role("link", name="compare", exact=True).count() == 1
        page.goto(f"{address}/c/docs/rollback?epoch=1")
        assert "with other rows than readers have" in page.locator("main").inner_text()
    here = publications(Collection(Store(workplace.store), "docs"))[-1]
    assert (here.action, here.generation) == ("rollback", rows[0].generation)
    assert rollback("docs", workplace.config, to=here.version).generation == other  # the only other version of that number
    browser.complaints.clear()  # of the answer's status
