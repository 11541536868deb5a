"""What a viewer sees in a real browser: every page at a glance, current without a reload, on a phone, by keyboard, without a script."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from dashboard.wording.glossary import WORDS
from flows import status
from pipelines.measures.gate import Gate
from storage.collection import Collection
from storage.history.catalog import publications
from storage.history.evaluations import keep_evaluation
from storage.history.ledger import Run
from storage.marts.leaving import leave_marts
from storage.reading.versions import version_of
from storage.store.lance import Store
from tests.support.story import DOCS, DRAFT, NOTES, ODD_ID, WHY_PROMOTED, Story
from tests.support.window import NARROW, WIDE, Window, serving

OF_DOCS = ("", "/quality", "/letters", "/plan", "/map", "/search", "/compare", "/documents")
PAGES = ["/", "/runs", *(f"/c/{DOCS}{page}" for page in OF_DOCS), f"/c/{DRAFT}", f"/c/{NOTES}/letters", f"/c/{NOTES}/map"]
PAGES += [f"/c/{DOCS}/documents?id={quote(ODD_ID)}", f"/c/{DOCS}/search?id=d0100%230", f"/c/{DOCS}/compare?id=d0100%230"]
"""Without those of single runs."""
SOON = 8_000
"""Milliseconds within which what is new is to be seen."""


@pytest.fixture(autouse=True)
def _silent(browser: Window) -> Iterator[None]:
    """Whatever is looked at, the console stays empty, and nothing is fetched from elsewhere."""
    browser.complaints.clear()
    yield
    assert browser.complaints == []


def run_of(story: Story) -> str:
    """One that published."""
    return f"/runs/{DOCS}/{story.publications()[0].run_id}"


def all_pages(story: Story) -> list[str]:
    return [*PAGES, run_of(story), f"/runs/{NOTES}/{story.running}"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_there_in_both_themes(story: Story, address: str, browser: Window, theme: str) -> None:
    with browser.at(address, color_scheme=theme) as page:
        for path in all_pages(story):
            answer = page.goto(address + path)
            assert answer.status == 200, path
            assert page.locator("h1").count() == 1 and page.locator("main").inner_text().strip(), path
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", paper))) < 200) == (theme == "dark")


@pytest.mark.parametrize("size", [NARROW, (WIDE[0] // 2, WIDE[1] // 2)], ids=["phone", "200 %"])
def test_no_page_is_wider_than_its_window(story: Story, address: str, browser: Window, size: tuple[int, int]) -> None:
    with browser.at(address, size=size) as page:
        for path in all_pages(story):
            page.goto(address + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0], path


def test_tables_remain_without_a_script(story: Story, address: str, browser: Window) -> None:
    with browser.at(address, java_script_enabled=False) as page:
        for path in ("/", "/runs", f"/c/{DOCS}", f"/c/{DOCS}/quality", f"/c/{DOCS}/letters", run_of(story)):
            page.goto(address + path)
            assert page.locator("tbody tr").count() > 0, path


def test_every_page_says_what_it_has_to_who_does_not_see_it(story: Story, address: str, browser: Window) -> None:
    with browser.at(address) as page:
        for path in all_pages(story):
            page.goto(address + path)
            assert page.locator("html[lang=en]").count() == 1 and page.title(), path
            assert page.locator("th:not([scope])").count() == 0, path
            assert page.locator("svg:not([role=img]):not([aria-hidden=true])").count() == 0, path
            assert page.evaluate(
                "[...document.querySelectorAll('input:not([type=hidden]), select')].every(one => one.labels.length || one.ariaLabel)"
            ), path
            titles = page.locator("abbr").evaluate_all("all => all.map(one => one.title)")
            assert set(titles) <= set(WORDS.values()), path
            assert page.locator("td.n").evaluate_all("all => all.every(one => getComputedStyle(one).textAlign == 'right')"), path


def test_the_keyboard_reaches_everything(address: str, browser: Window) -> None:
    with browser.at(address) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            address_of, ring = page.evaluate(
                "[document.activeElement.getAttribute('href'), getComputedStyle(document.activeElement).outlineStyle]"
            )
            assert address_of is None or ring != "none"
            reached.add(address_of)
        assert {"/runs", f"/c/{DOCS}", f"/c/{DRAFT}/quality"} <= reached


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_words_stand_out_from_their_paper_in_both_themes() -> None:
    """At least 4.5 to 1, as WCAG 2.2 AA asks."""
    style = (Path(__file__).parents[2] / "dashboard/static/style.css").read_text()
    themes = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)]
    assert len(themes) == 2
    for theme in themes:
        for paper in ("paper", "panel"):
            for ink in ("ink", "quiet", "link", "good", "warn", "bad", "accent"):
                light, dark = sorted((_luminance(theme[paper]), _luminance(theme[ink])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (paper, ink)


def test_the_overview_says_at_a_glance_how_all_stand(story: Story, address: str, browser: Window) -> None:
    told = {one["name"]: one for one in status(store=story.store)["collections"]}
    with browser.at(address) as page:
        rows = {name: page.locator("tbody tr", has=page.get_by_role("link", name=name, exact=True)).inner_text() for name in told}
        assert "current" in rows[DOCS] and "not published" in rows[DRAFT] and "updating" in rows[NOTES]
        assert f"{told[DOCS]['dead_letters']} dead letters" in rows[DOCS]
        assert "EUR" in rows[DOCS] and page.locator("time[title*='03:00:00']").count() == 1, "what it costs, and when it goes on"
        needs = page.locator("main ul").first.inner_text()
        assert f"{DRAFT}: 1 gate failed" in needs and f"{DOCS}: 1 candidate" in needs


def test_the_overview_is_small(address: str, browser: Window) -> None:
    asked: list[str] = []
    with browser.at(address) as page:
        page.on("request", lambda one: asked.append(one.url))
        page.goto(address)
        page.wait_for_load_state("load")
        assert len(asked) <= 10
        assert sum(len(page.context.request.get(url).body()) for url in asked) < 200_000


def test_a_run_that_goes_on_tells_how_far_it_is(story: Story, address: str, browser: Window) -> None:
    with browser.at(address, f"/runs/{NOTES}/{story.running}") as page:
        page.get_by_text("25.0 %").first.wait_for(timeout=SOON)
        assert "left" in page.locator("main").inner_text()
        run = Run(Collection(Store(story.store), NOTES), story.running)
        seen = page.get_by_text("75.0 %").first
        for beat in range(1_000, 1_000 + SOON // 500):  # again and again: the run itself tells of the other moment
            heart = run.read("heartbeat.json") or {}
            run.write("heartbeat.json", {"beat": beat, "progress": heart["progress"] | {"chunks": 3_600}})
            page.wait_for_timeout(500)
            if seen.is_visible():
                break
        assert seen.is_visible()


def test_a_collection_tells_who_did_what_when_and_why(story: Story, address: str, browser: Window) -> None:
    history = story.publications()
    with browser.at(address, f"/c/{DOCS}") as page:
        timeline = page.locator("table", has_text="publications").locator("tbody tr")
        assert timeline.count() == len(history)
        promoted = timeline.filter(has_text=WHY_PROMOTED).inner_text()
        assert "promoted" in promoted and history[4].who in promoted and f"\t{history[4].version}\t" in promoted
        assert "readers have it" in timeline.first.inner_text()
        assert page.get_by_text("candidate", exact=True).count() == 1


def test_a_run_tells_where_its_time_went(story: Story, address: str, browser: Window) -> None:
    with browser.at(address, run_of(story)) as page:
        assert page.locator("svg.bars rect").count() >= 3
        assert {"read", "embed", "gates"} <= {name.strip() for name in page.locator("th[scope=row]").all_inner_texts()}


def test_quality_shows_what_failed_and_candidates_beside_what_is_published(address: str, browser: Window) -> None:
    with browser.at(address, f"/c/{DOCS}/quality") as page:
        gates = page.locator("table", has_text="What each gate found last")
        assert gates.locator("thead").inner_text().count("published") == 1 and "beside it" in gates.locator("thead").inner_text()
        assert "0.04" in gates.locator("tr", has_text="dead letters").inner_text()
        assert gates.locator("tr", has_text="dead letters").locator("svg .failed").count() == 1
        page.get_by_role("link", name="failed: dead letters").first.click()
        assert "gates.max_failed" in page.locator("#failing + section").inner_text()
        page.get_by_role("link", name="accuracy", exact=True).first.click()
        assert page.locator("h2#values").inner_text() == "accuracy"
        assert page.locator("table", has_text="Rows that moved").locator("tbody tr").count() >= 4


def test_letters_are_those_of_the_last_run_with_what_to_do(story: Story, address: str, browser: Window) -> None:
    letters = status(DOCS, store=story.store)["collections"][0]["letters"]
    with browser.at(address, f"/c/{DOCS}/letters") as page:
        assert page.locator("table", has_text="By reason").locator("tbody tr").count() == len({one["reason"] for one in letters})
        listed = page.locator("table", has_text="Each by its file").inner_text()
        assert all(one["file"] in listed and one["id"] in listed and one["reason"] in listed for one in letters)
        assert "source.id" in page.locator("tr", has_text="no id").first.inner_text()
        page.get_by_role("link", name="no text").click()
        page.wait_for_url("**kind=no*")
        listed_now = page.locator("table", has_text="Each by its file").locator("tbody tr")
        listed_now.first.wait_for()
        assert listed_now.count() == 1
        given = page.context.request.get(f"{address}/c/{DOCS}/letters?as=json").json()
        assert [(row["file"], row["id"], row["reason"]) for row in given] == [(one["file"], one["id"], one["reason"]) for one in letters]


def test_quality_names_the_rows_that_failed_and_leads_to_their_documents(story: Story, browser: Window, tmp_path: Path) -> None:
    shutil.copytree(story.store, tmp_path / "store")
    docs = Collection(Store(str(tmp_path / "store")), DOCS)
    version = version_of(docs.store, publications(docs)[-1])
    keep_evaluation(version, [Gate("recomputed", "hard", 0.2, 0.99, False, "2 of 5", ("d0100#0", f"{ODD_ID}#0"))])
    leave_marts(docs)
    with serving(docs.store.root) as address, browser.at(address, f"/c/{DOCS}/quality") as page:
        assert "did not pass: recomputed" in page.locator("p.notice.bad").first.inner_text()
        failing = page.locator("#failing + section")
        assert failing.locator("a").all_inner_texts() == ["d0100#0", f"{ODD_ID}#0"]
        failing.locator("a").last.click()
        page.get_by_role("heading", name=ODD_ID).wait_for()
