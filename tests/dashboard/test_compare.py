"""Two versions side by side: each answers from its own space, ranks and overlap are those of their searches, and of `revector compare`."""

import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dashboard.looking.side_by_side import QUESTIONS, rank
from storage.reading.neighbourhoods import compare_neighbourhoods
from storage.reading.versions import choose_version, version_name
from tests.support.story import CANARY, DOCS, ODD_ID, Story
from tests.support.viewer import Viewer
from tests.support.window import NARROW, Window, serving

COMPARE, SEARCH = f"/c/{DOCS}/compare", f"/c/{DOCS}/search"
ENCODER = (sys.executable, "-m", "workers.answering")
JSON = ("as", "json")


@pytest.fixture(scope="module")
def asking(story: Story) -> Iterator[str]:
    with serving(story.store, encoder=ENCODER) as made:
        yield made


@pytest.fixture(scope="module")
def viewer(asking: str) -> Viewer:
    return Viewer(asking)


@pytest.fixture(scope="module")
def sides(story: Story) -> tuple[str, str]:
    """Two generations, of two spaces."""
    history = story.publications()
    other = next(row for row in reversed(history) if row.generation != history[-1].generation)
    return tuple(version_name(row.generation, row.version) for row in (history[-1], other))  # type: ignore[return-value]


def hit(name: str, score: float = 0.5) -> dict[str, Any]:
    return {"chunk_id": f"{name}#0", "doc_id": name, "score": score}


def test_ranks_say_what_moved_and_what_one_side_has_alone() -> None:
    ranks = rank([hit("a"), hit("b"), hit("c"), hit("d")], [hit("b"), hit("a"), hit("e"), hit("d")], 4, "chunk_id")
    told = {place.answer["doc_id"]: (place.first, place.second, place.moved) for place in ranks.places}
    assert told == {"a": (1, 2, -1), "b": (2, 1, 1), "c": (3, None, None), "e": (None, 3, None), "d": (4, 4, 0)}
    assert ranks.overlap == 0.75
    assert rank([], [hit("a")], 4, "chunk_id").overlap is None


def test_documents_are_compared_where_they_were_cut_in_different_ways() -> None:
    first = [hit("a") | {"chunk_id": "a#0"}, hit("a") | {"chunk_id": "a#1"}, hit("b")]
    ranks = rank(first, [hit("b") | {"chunk_id": "b#7"}, hit("a") | {"chunk_id": "a#3"}], 3, "doc_id")
    assert [(place.answer["chunk_id"], place.first, place.second) for place in ranks.places] == [("a#0", 1, 2), ("b#0", 2, 1)]
    assert ranks.overlap == 1.0


def test_each_side_has_what_a_search_in_it_finds(viewer: Viewer, sides: tuple[str, str]) -> None:
    found = viewer.get(COMPARE, JSON, q="a sail in the rain", a=sides[0], b=sides[1], k=8).rows
    lists = []
    for side, v in zip("ab", sides, strict=True):
        meant = [row["chunk_id"] for row in viewer.get(SEARCH, JSON, q="a sail in the rain", v=v, k=8).rows]
        ranked = sorted((row for row in found if row[f"rank_{side}"]), key=lambda row: row[f"rank_{side}"])
        assert [row["chunk_id"] for row in ranked] == meant
        lists.append(set(meant))
    share = len(lists[0] & lists[1]) / 8
    page = viewer.get(COMPARE, q="a sail in the rain", a=sides[0], b=sides[1], k=8)
    assert f"{100 * share:.1f} % overlap of 8" in page.said


def test_a_version_beside_itself_is_the_same(viewer: Viewer, sides: tuple[str, str]) -> None:
    found = viewer.get(COMPARE, JSON, q="a sail", a=sides[0], b=sides[0]).rows
    assert [(row["rank_a"], row["moved"]) for row in found] == [(number, 0) for number in range(1, 11)]


def test_a_stored_chunk_is_asked_for_by_the_vector_that_each_side_has(address: str, sides: tuple[str, str]) -> None:
    plain = Viewer(address)
    id = plain.get(f"/c/{DOCS}/compare/changed", JSON, a=sides[0], b=sides[1]).rows[0]["chunk_id"]
    found = plain.get(COMPARE, JSON, id=id, a=sides[0], b=sides[1]).rows
    for side, v in zip("ab", sides, strict=True):
        meant = [row["chunk_id"] for row in plain.get(SEARCH, JSON, id=id, v=v).rows]
        ranked = sorted((row for row in found if row[f"rank_{side}"]), key=lambda row: row[f"rank_{side}"])
        assert [row["chunk_id"] for row in ranked] == meant


def test_what_changed_most_is_as_compare_measures_it(viewer: Viewer, story: Story, sides: tuple[str, str]) -> None:
    first, second = (choose_version(story.docs, story.publications(), name) for name in sides)
    meant = compare_neighbourhoods(first.vectors, second.vectors, QUESTIONS)
    found = viewer.get(f"{COMPARE}/changed", JSON, a=sides[0], b=sides[1]).rows
    shares = [row["overlap"] for row in found]
    assert 0 < len(found) <= QUESTIONS
    assert shares == sorted(shares)
    assert np.isclose(np.mean(shares), meant.mean or 0)
    assert f"on average {100 * (meant.mean or 0):.1f} %" in viewer.get(f"{COMPARE}/changed", a=sides[0], b=sides[1]).said


def test_what_is_left_out_is_chosen(viewer: Viewer) -> None:
    """Readers' version on the left, the next of the choices on the right."""
    page = viewer.get(COMPARE)
    assert re.search(r'name="b"[^§]*?selected', page.text)
    assert 'hx-get="/c/docs/compare/changed' in page.text


def test_what_is_not_there_is_said(viewer: Viewer, sides: tuple[str, str]) -> None:
    assert viewer.get(COMPARE, a=sides[0], b="ffffffffffff").status == 404
    assert viewer.get(f"{COMPARE}/changed", a=sides[0], b="x@1").status == 404
    assert viewer.get(COMPARE, q="x" * 4_001, b=sides[1]).status == 400
    assert viewer.get(COMPARE, id=f"{ODD_ID}#0", b=sides[1]).status in (200, 404)
    assert "There is one version only" in viewer.get("/c/notes/compare").said


def test_without_texts_there_are_ids_and_ranks_alone(story: Story, sides: tuple[str, str]) -> None:
    with serving(story.store, encoder=ENCODER, texts=False) as made:
        blind = Viewer(made)
        for path in (COMPARE, f"{COMPARE}/changed"):
            for form in ("", "csv", "json"):
                reply = blind.get(path, ("as", form), q="by the harbour", k="50", a=sides[0], b=sides[1])
                assert reply.status == 200
                assert CANARY not in reply.text
                assert '"text":' not in reply.text
                assert "by the harbour" not in reply.text.replace('value="by the harbour"', "").replace("by+the+harbour", "")


def test_a_viewer_sees_the_lines_and_then_what_changed_most(asking: str, browser: Window, sides: tuple[str, str]) -> None:
    with browser.at(asking, f"{COMPARE}?q=a+sail&a={sides[0]}&b={sides[1]}") as page:
        page.locator("#changed table").first.wait_for()
        assert page.locator("svg.slopes").is_visible()
        shown = page.locator("svg.slopes text.rank").count()
        assert shown == 20
        chunk = page.locator("#changed th a.id").first
        id = chunk.inner_text()
        chunk.click()
        page.get_by_label("Or like this chunk").wait_for()
        assert page.get_by_label("Or like this chunk").input_value() == id
        page.locator("#changed table").first.wait_for()
    with browser.at(asking, f"{COMPARE}?q=a+sail&a={sides[0]}&b={sides[1]}", NARROW, java_script_enabled=False) as page:
        assert page.locator("tbody tr").count() >= 10
        page.locator("#changed a").click()
        page.locator("#changed table").first.wait_for()
    assert browser.complaints == []
