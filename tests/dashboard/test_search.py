"""Search in the dashboard: what `revector search` finds, in any version, with conditions and limits; ids and figures alone on demand."""

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows import search
from storage.reading.published import search_table
from storage.reading.versions import choose_version, version_name
from storage.store.lance import table_meta
from tests.support.story import CANARY, DOCS, HOSTILE, ODD_ID, SCRIPT, Story
from tests.support.viewer import Viewer
from tests.support.window import NARROW, Window, serving

ENCODER = (sys.executable, "-m", "workers.answering")
SEARCH = f"/c/{DOCS}/search"
JSON = ("as", "json")


@pytest.fixture(scope="module")
def asking(story: Story) -> Iterator[str]:
    """A dashboard that encodes questions."""
    with serving(story.store, encoder=ENCODER) as made:
        yield made


@pytest.fixture(scope="module")
def viewer(asking: str) -> Viewer:
    return Viewer(asking)


@pytest.fixture(scope="module")
def blind(story: Story) -> Iterator[Viewer]:
    """Of a dashboard that shows no texts."""
    with serving(story.store, encoder=ENCODER, texts=False) as made:
        yield Viewer(made)


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["chunk_id"] for row in rows]


def test_a_question_finds_what_the_command_line_finds(viewer: Viewer, story: Story) -> None:
    found = viewer.get(SEARCH, JSON, q="a harbour at night", k=7).rows
    meant = search(DOCS, "a harbour at night", story.config, k=7)
    names = ("chunk_id", "doc_id", "score", "text")
    assert [[row[name] for name in names] for row in found] == [[hit[name] for name in names] for hit in meant]


def test_more_like_this_is_what_is_nearest_to_its_vector_without_itself(viewer: Viewer, story: Story) -> None:
    version = choose_version(story.docs, story.publications())
    row = version.vectors.take([5], columns=["chunk_id", "vector"]).to_pylist()[0]
    meant = [hit for hit in search_table(version.vectors, np.array(row["vector"]), 7) if hit["chunk_id"] != row["chunk_id"]]
    found = viewer.get(SEARCH, JSON, id=row["chunk_id"], k=6).rows
    assert ids(found) == ids(meant)[:6]


def test_an_older_version_and_another_generation_are_searched_in_their_own_spaces(viewer: Viewer, story: Story) -> None:
    history = story.publications()
    for row in (history[0], next(one for one in history if one.generation != history[0].generation)):
        name = version_name(row.generation, row.version)
        found = viewer.get(SEARCH, JSON, q="a garden", v=name).rows
        version = choose_version(story.docs, history, name)
        assert len(found) == 10
        assert {hit["chunk_id"] for hit in found} <= set(version.vectors.to_table(["chunk_id"])["chunk_id"].to_pylist())
    spaces = {table_meta(story.docs.store.open(row.generation))["space"]["id"] for row in history}
    assert len(spaces) == 2


def test_conditions_are_of_the_types_that_the_metadata_has(viewer: Viewer) -> None:
    conditions = [("field", "topic"), ("op", "="), ("value", "ships"), ("field", "year"), ("op", ">="), ("value", "2005")]
    found = viewer.get(SEARCH, *conditions, JSON, q="a sail", k=50).rows
    assert found
    assert all(row["metadata.topic"] == "ships" and row["metadata.year"] >= 2005 for row in found)
    among = viewer.get(SEARCH, ("field", "topic"), ("op", "in"), ("value", "stars, plants"), JSON, q="a sail", k=50).rows
    assert {row["metadata.topic"] for row in among} == {"stars", "plants"}
    day = viewer.get(SEARCH, ("field", "added"), ("op", "<"), ("value", "2026-03-01"), JSON, q="a sail", k=50).rows
    assert day and all(row["metadata.added"] < "2026-03-01" for row in day)
    assert viewer.get(SEARCH, ("field", ""), ("op", "="), ("value", ""), JSON, q="a sail").rows == viewer.get(SEARCH, JSON, q="a sail").rows


@pytest.mark.parametrize(
    ("field", "op", "value", "why"),
    [
        ("colour", "=", "red", "expected a field of"),
        ("year", "=", "old", "expected int64 for year"),
        ("year", "; drop", "1", "expected an operator"),
        ("topic", "=", "x' OR '1'='1", ""),
    ],
)
def test_a_condition_that_does_not_fit_is_said_and_the_form_stays(viewer: Viewer, field: str, op: str, value: str, why: str) -> None:
    reply = viewer.get(SEARCH, ("field", field), ("op", op), ("value", value), q="a sail")
    assert reply.status == (400 if why else 200)
    assert (why or "Nothing meets the conditions") in reply.said
    assert 'value="a sail"' in reply.text


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"q": "x", "k": 51}, 400),
        ({"q": "x", "k": 0}, 400),
        ({"q": "x" * 4_001}, 400),
        ({"id": "no such chunk"}, 404),
        ({"q": "x", "v": "0" * 12}, 404),
        ({"q": "x", "v": "../../etc/passwd@1"}, 404),
    ],
)
def test_what_is_beyond_a_limit_or_not_there_is_refused_in_a_line(viewer: Viewer, fields: dict[str, Any], status: int) -> None:
    reply = viewer.get(SEARCH, **fields)
    assert reply.status == status
    assert "expected" in reply.said or "Input should be" in reply.said
    assert "Traceback" not in reply.text


def test_the_longest_question_that_is_allowed_is_answered(viewer: Viewer) -> None:
    assert len(viewer.get(SEARCH, JSON, q="é " * 2_000).rows) == 10


def test_hostile_texts_and_ids_are_texts(viewer: Viewer) -> None:
    for question in HOSTILE:
        reply = viewer.get(SEARCH, q=question, id="", k=50)
        assert reply.status == 200
        assert SCRIPT not in reply.text
        assert re.search(r"<img|<svg onload", reply.text) is None
    assert viewer.get(SEARCH, id=f"{ODD_ID}#0").status == 200


def test_without_texts_there_are_ids_and_figures_alone(blind: Viewer, viewer: Viewer) -> None:
    everywhere = {"q": CANARY, "k": 50}
    assert CANARY in viewer.get(SEARCH, **everywhere).text
    replies = [blind.get(SEARCH, *extra, q="by the harbour", k=50) for extra in ([], [JSON], [("as", "csv")])]
    meant = viewer.get(SEARCH, JSON, q="by the harbour", k=50).rows
    assert [set(row) for row in replies[1].rows] == [{"rank", "score", "chunk_id", "doc_id"}] * 50
    assert ids(replies[1].rows) == ids(meant)
    for reply in replies:
        for row in meant:
            assert row["text"] not in reply.text
        assert "2026-0" not in reply.text
    conditions = [("field", "topic"), ("op", "="), ("value", "ships")]
    assert blind.get(SEARCH, *conditions, q="a").status == 400
    assert "topic" not in blind.get(SEARCH, q="a").text


def test_without_a_process_that_has_models_chunks_are_searched_by(story: Story, address: str) -> None:
    plain = Viewer(address)
    assert 'name="q"' not in plain.get(SEARCH).text
    assert plain.get(SEARCH, q="a sail").status == 400
    row = choose_version(story.docs, story.publications()).vectors.take([0], columns=["chunk_id"])["chunk_id"][0].as_py()
    assert len(plain.get(SEARCH, JSON, id=row).rows) == 10


def test_a_viewer_asks_narrows_and_goes_on_to_what_is_alike_and_to_the_document(asking: str, browser: Window) -> None:
    with browser.at(asking, SEARCH) as page:
        page.get_by_label("Question").fill("the moon over a harbour")
        page.get_by_label("field").first.select_option("topic")
        page.get_by_label("value").first.fill("ships")
        page.keyboard.press("Enter")
        page.locator("ol.hits > li").nth(9).wait_for()
        assert "field=topic" in page.url and "q=the+moon+over+a+harbour" in page.url
        assert page.get_by_label("Question").input_value() == "the moon over a harbour"
        page.get_by_role("link", name="more like this").first.click()
        page.locator("ol.hits > li").nth(9).wait_for()
        chunk = page.locator("ol.hits > li a.id").first
        id = chunk.inner_text()
        chunk.click()
        page.get_by_role("heading", name=id.rpartition("#")[0], exact=True).wait_for()
    assert browser.complaints == []


def test_it_is_there_without_scripts_and_on_a_phone(asking: str, browser: Window) -> None:
    with browser.at(asking, f"{SEARCH}?q=bread", NARROW, java_script_enabled=False) as page:
        assert page.locator("ol.hits > li").count() == 10
    with browser.at(asking, f"{SEARCH}?q=bread", NARROW) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW[0]
    assert browser.complaints == []


def test_who_looks_waits_for_nobody_who_searches(story: Story, tmp_path: Path) -> None:
    """A process that says nothing keeps all searches waiting, each in a thread of the server."""
    flag = tmp_path / "enough"
    says_nothing = f"import pathlib, sys, time\nsys.stdin.readline()\nwhile not pathlib.Path({str(flag)!r}).exists(): time.sleep(0.05)"
    with serving(story.store, encoder=(sys.executable, "-c", says_nothing)) as address, ThreadPoolExecutor(120) as pool:
        Viewer(address).get("/")
        searches = [pool.submit(Viewer(address).get, SEARCH, q=f"question {number}") for number in range(120)]
        assert next(as_completed(searches)).result().status == 429
        assert Viewer(address).get("/").status == 200
        assert sum(not search.done() for search in searches) >= 2
        flag.touch()
        assert {search.result().status for search in searches} <= {429, 503}
