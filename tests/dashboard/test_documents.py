"""Documents in the dashboard: found by id, cut as they are cut, in each version that has them, with what is known of their chunks."""

import re
from html import unescape
from typing import Any

import pytest

from dashboard.pages.document_page import _told
from dashboard.wording.pieces import pieces_of
from storage.marts.columns import DEAD_LETTERS
from storage.marts.mart_files import read_mart
from storage.reading.one_document import DocumentState, StoredChunk, read_document
from storage.reading.versions import choose_version, version_name
from tests.support.story import BREAKOUT, CANARY, DOCS, HOSTILE, ODD_ID, SCRIPT, Story
from tests.support.viewer import Viewer
from tests.support.window import NARROW, Window, serving

DOCUMENTS = f"/c/{DOCS}/documents"
LONG = "d0025"
"""Of some chunks."""


@pytest.fixture(scope="module")
def viewer(address: str) -> Viewer:
    return Viewer(address)


def chunk(number: int, start: int, end: int, embedded: bool = True) -> StoredChunk:
    text = "abcdefghijklmnopqrstuvwxyz"[start:end]
    return StoredChunk(f"d#{number}", number, start, end, text, bytes([number]) * 16, embedded)


@pytest.mark.parametrize(
    ("borders", "meant"),
    [
        ([(0, 5), (5, 9)], [("abcde", [0], [0]), ("fghi", [1], [1])]),
        ([(0, 6), (4, 9)], [("abcd", [0], [0]), ("ef", [0, 1], [1]), ("ghi", [1], [])]),
        ([(0, 4), (6, 9)], [("abcd", [0], [0]), ("", [], []), ("ghi", [1], [1])]),
        ([(3, 9)], [("defghi", [0], [0])]),
        ([], []),
    ],
)
def test_a_text_is_cut_at_every_border(borders: list[tuple[int, int]], meant: list[Any]) -> None:
    pieces = pieces_of([chunk(number, *border) for number, border in enumerate(borders)])
    numbers = [(piece.text, [one.ordinal for one in piece.chunks], [one.ordinal for one in piece.begins]) for piece in pieces]
    assert numbers == meant


def test_documents_are_found_by_the_beginning_of_their_ids(viewer: Viewer, story: Story) -> None:
    version = choose_version(story.docs, story.publications())
    every = set(version.chunks.to_table(["doc_id"])["doc_id"].to_pylist())
    found = [row["doc_id"] for row in viewer.get(DOCUMENTS, ("as", "json"), find="more00").rows]
    assert sorted(found) == sorted(one for one in every if one.startswith("more00"))
    pages = [viewer.get(DOCUMENTS, ("as", "json"), page=number).rows for number in range(1, 9)]
    assert sorted(row["doc_id"] for rows in pages for row in rows) == sorted(every)
    assert "begins with nothing-such" in viewer.get(DOCUMENTS, find="nothing-such").said


def test_a_document_is_seen_whole_with_the_borders_of_its_chunks(viewer: Viewer, story: Story) -> None:
    document = read_document(choose_version(story.docs, story.publications()), LONG)
    assert document is not None and document.total > 1
    page = viewer.get(DOCUMENTS, id=LONG)
    cut = re.search(r'<div class="cut">(.*?)</div>', page.text, re.DOTALL)
    assert cut is not None
    texts = [unescape(text) for text in re.findall(r'<span class="piece[^>]*>(.*?)</span>', cut[1], re.DOTALL)]
    assert "".join(texts) == "".join(piece.text for piece in pieces_of(document.chunks))
    assert [f'id="chunk-{number}"' in cut[1] for number in range(document.total)] == [True] * document.total
    assert page.said.count("has one") == document.total


def test_a_document_is_told_at_each_version_that_is_kept(viewer: Viewer, story: Story) -> None:
    came, left = (viewer.get(f"{DOCUMENTS}/known", id=id).said for id in ("last0001", "d0002"))
    epochs = len(story.publications())
    assert re.search(rf"{epochs} .{{0,60}}came", came)
    assert came.count("not there") == epochs - 1
    assert "left" in left
    assert re.search(r" 1 .{0,80}came", left)
    assert "It is not in version" in viewer.get(DOCUMENTS, id="d0002").said
    first = story.publications()[0]
    assert "Chunks on its text" in viewer.get(DOCUMENTS, id="d0002", v=version_name(first.generation, first.version)).said


def test_nothing_is_said_of_what_nobody_knows(story: Story) -> None:
    """A version that is gone, and what was before the oldest that is looked at."""
    rows = story.publications()
    known = [DocumentState(rows[1], True, b"1", 2), DocumentState(rows[2], False, None, 0), DocumentState(rows[3], True, b"1", 2)]
    assert [one["what"] for one in _told(known)] == ["as it was", "gone", "there"]
    assert [one["what"] for one in _told([DocumentState(rows[1], True, None, 0)])] == ["not there"]


def test_what_is_the_same_and_nearly_the_same_is_named(viewer: Viewer, story: Story) -> None:
    """Every thirtieth document of a topic says the same."""
    version = choose_version(story.docs, story.publications())
    rows = version.vectors.to_table(["chunk_id", "content_hash"]).to_pylist()
    by_content: dict[bytes, list[str]] = {}
    for row in rows:
        by_content.setdefault(row["content_hash"], []).append(row["chunk_id"])
    same = next(group for group in by_content.values() if len(group) > 1)
    page = viewer.get(f"{DOCUMENTS}/known", id=same[0].rpartition("#")[0])
    assert all(other in page.text for other in same[1:5])
    assert "As the reports of this version say" in page.said


def test_a_document_that_could_not_be_read_says_why_and_what_to_do(viewer: Viewer, story: Story) -> None:
    letters = [row for row in read_mart(story.docs, DEAD_LETTERS).to_pylist() if row["id"]]
    for letter in letters[:3]:
        page = viewer.get(DOCUMENTS, id=letter["id"])
        assert page.status == 200
        assert letter["reason"] in page.said
    assert letters


def test_hostile_ids_and_texts_are_texts(viewer: Viewer) -> None:
    page = viewer.get(DOCUMENTS, id=ODD_ID)
    assert page.status == 200
    assert CANARY in page.said
    for reply in (
        page,
        viewer.get(f"{DOCUMENTS}/known", id=ODD_ID),
        viewer.get(DOCUMENTS, find="<img"),
        viewer.get(DOCUMENTS, find=BREAKOUT),
    ):
        assert SCRIPT not in reply.text
        assert re.search(r"<img|<svg onload", reply.text) is None
    for text in HOSTILE:
        assert viewer.get(DOCUMENTS, id=text, find=text).status in (200, 404)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"id": "never there"}, 404),
        ({"page": 0}, 400),
        ({"page": 10**9}, 400),
        ({"id": LONG, "chunk": -1}, 400),
        ({"id": LONG, "chunk": 10**6}, 200),
        ({"v": "nothing@7"}, 404),
        ({"id": "\0"}, 404),
    ],
)
def test_what_is_not_there_or_beyond_a_limit_is_refused_in_a_line(viewer: Viewer, fields: dict[str, Any], status: int) -> None:
    reply = viewer.get(DOCUMENTS, **fields)
    assert reply.status == status
    assert "Traceback" not in reply.text


def test_without_texts_there_are_borders_and_figures_alone(story: Story) -> None:
    document = read_document(choose_version(story.docs, story.publications()), ODD_ID)
    assert document is not None
    with serving(story.store, texts=False) as made:
        for path in (DOCUMENTS, f"{DOCUMENTS}/known"):
            reply = Viewer(made).get(path, id=ODD_ID)
            assert reply.status == 200
            assert CANARY not in reply.text
            assert document.chunks[0].text not in reply.said
            assert "ships" not in reply.said


def test_a_viewer_goes_from_a_list_to_a_document_and_to_an_earlier_version(address: str, browser: Window) -> None:
    with browser.at(address, DOCUMENTS) as page:
        page.get_by_label("Whose id begins with").fill("d00")
        page.keyboard.press("Enter")
        page.get_by_role("link", name=LONG, exact=True).click()
        page.get_by_role("heading", name="Its versions", exact=True).wait_for()
        page.get_by_role("link", name="1", exact=True).first.click()
        assert page.locator("#row-1").is_visible()
        page.locator("#known tbody tr td a").last.click()
        page.wait_for_url(re.compile(r"[?&]v="))
        page.get_by_role("heading", name=re.compile("Chunks")).first.wait_for()
    with browser.at(address, f"{DOCUMENTS}?id={LONG}", NARROW) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW[0]
    assert browser.complaints == []
