"""The map in a real browser: a million dots or a few, each of which is a row that lies there; and the same in tables, without a picture."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from matplotlib.path import Path as Polygon

from storage.reports.described import Described, describe_version, described_numbers
from storage.reports.terrain import Terrain, terrain_of
from tests.support.story import CANARY, DOCS, HOSTILE, Story
from tests.support.window import NARROW, Window, serving

MAP = f"/c/{DOCS}/map"


@dataclass(frozen=True)
class Truth:
    """What the store says of a version."""

    version: Described

    @cached_property
    def terrain(self) -> Terrain:
        return terrain_of(self.version)

    @cached_property
    def rows(self) -> dict[str, dict[str, Any]]:
        """chunk id -> where it lies, in units of the map, and its cluster's name."""
        table = self.version.rows().to_table(["chunk_id", "x", "y", "cluster"])
        names = {one.number: one.name for one in self.terrain.islands}
        x, y = self.terrain.units(table["x"].to_numpy(), table["y"].to_numpy())
        columns = zip(table["chunk_id"].to_pylist(), x.tolist(), y.tolist(), table["cluster"].to_pylist(), strict=True)
        return {id: {"x": x, "y": y, "cluster": names[cluster]} for id, x, y, cluster in columns}


@pytest.fixture(scope="module")
def truths(story: Story) -> list[Truth]:
    """Of the versions that have a map, oldest first."""
    generation = story.publications()[-1].generation
    numbers = described_numbers(story.docs, generation, 20)
    return [Truth(describe_version(story.docs, generation, number)) for number in numbers]


@pytest.fixture(autouse=True)
def quiet(request: pytest.FixtureRequest) -> Iterator[None]:
    """No page says anything on its console."""
    yield
    assert request.getfixturevalue("browser").complaints == []


def drawn(page: Any) -> Any:
    page.locator("#stage[data-drawn]").wait_for()
    return page.locator("#stage")


def on_screen(page: Any, truth: Truth, id: str) -> tuple[float, float]:
    """Where a chunk lies on the page, while all of the map is shown."""
    box = page.locator("#stage").bounding_box()
    wide, high = box["width"] - 2, box["height"] - 2  # without its border
    across, up = truth.terrain.extent
    scale = min((wide - 8) / across, (high - 8) / up)
    row = truth.rows[id]
    return box["x"] + 1 + wide / 2 + (row["x"] - across / 2) * scale, box["y"] + 1 + high / 2 - (row["y"] - up / 2) * scale


def colours(page: Any) -> int:
    """Different ones that the canvas has."""
    script = """canvas => new Promise(done => { document.getElementById("whole").click(); requestAnimationFrame(() => {
      const copy = document.createElement("canvas"); copy.width = canvas.width; copy.height = canvas.height;
      const pen = copy.getContext("2d"); pen.drawImage(canvas, 0, 0);
      const found = new Set(new Uint32Array(pen.getImageData(0, 0, copy.width, copy.height).data.buffer)); done(found.size); }); })"""
    return int(page.locator("#dots").evaluate(script))


def ids(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("#rows tbody th").all_inner_texts()]


def test_dots_have_the_colours_of_their_clusters(address: str, browser: Window) -> None:
    with browser.at(address, MAP) as page:
        drawn(page).focus()
        assert colours(page) >= 20
        assert page.locator("#instead").is_hidden()
        page.locator("#stage").evaluate("stage => delete stage.dataset.drawn")
        lost = """canvas => {
          const end = canvas.getContext("webgl2").getExtension("WEBGL_lose_context");
          end.loseContext();
          setTimeout(() => end.restoreContext(), 50); }"""
        page.locator("#dots").evaluate(lost)  # as when a laptop wakes
        drawn(page)
        assert colours(page) >= 20


def test_a_click_names_a_row_that_lies_there(address: str, browser: Window, truths: list[Truth]) -> None:
    truth = truths[-1]
    with browser.at(address, MAP) as page:
        drawn(page).scroll_into_view_if_needed()
        for id in list(truth.rows)[::60]:
            x, y = on_screen(page, truth, id)
            page.mouse.click(x, y)
            page.locator("#neighbours").wait_for()
            named = page.locator("#chunk").inner_text()
            there = on_screen(page, truth, named)
            assert np.hypot(there[0] - x, there[1] - y) <= 2
            facts = page.locator(".facts dd").all_inner_texts()
            assert facts[2] == truth.rows[named]["cluster"]
            assert page.locator("#neighbours tbody tr").count() == 8
            for link in ("More like this", "Its document"):
                there = page.get_by_role("link", name=link, exact=True).get_attribute("href")
                assert page.request.get(f"{address}{there}").status == 200
            page.keyboard.press("Escape")
            page.locator("#chosen", has_text="Nothing is chosen").wait_for()


def test_two_versions_lie_on_one_layout_and_what_differs_has_a_sign(address: str, browser: Window, truths: list[Truth]) -> None:
    old, new = truths[-2:]
    assert (old.terrain.low, old.terrain.islands) == (new.terrain.low, new.terrain.islands)
    before, now = (
        dict(zip(*one.version.vectors().to_table(["chunk_id", "row_hash"]).to_pydict().values(), strict=True)) for one in (old, new)
    )
    same = [id for id in now if before.get(id) == now[id]]
    texts = [dict(zip(*one.version.vectors().to_table(["chunk_id", "text"]).to_pydict().values(), strict=True)) for one in (old, new)]
    still = [id for id in now if texts[0].get(id) == texts[1][id]]
    assert len(still) > 200
    assert all(old.rows[id] == new.rows[id] for id in still)
    wanted = {
        "same": len(same),
        "came": len(now.keys() - before.keys()),
        "changed": sum(1 for id in now.keys() & before.keys() if now[id] != before[id]),
        "went": len(before.keys() - now.keys()),
    }
    with browser.at(address, f"{MAP}?since={old.version.address}") as page:
        drawn(page)
        legend = page.locator("#legend li").all_inner_texts()
        assert {label: figure for label, figure in wanted.items() if figure} == {
            words[1]: int(words[2]) for words in (text.replace(",", "").split() for text in legend)
        }
        assert {text.split()[0] for text in legend} <= {"·", "+", "◆", "−"}
        changes = page.locator("#clusters td:last-child").all_inner_texts()
        assert sum(int(text.split()[1]) * (1 if text.startswith("▲") else -1) for text in changes if text != "=") == len(now) - len(before)
        page.locator("#clusters a").first.click()
        page.locator("#rows").wait_for()
        signs = {text.split()[1] for text in page.locator("#rows tbody td:nth-child(2)").all_inner_texts()}
        assert signs <= {"same", "came", "changed"}


def test_a_lasso_gives_the_table_of_exactly_what_is_inside(address: str, browser: Window, truths: list[Truth]) -> None:
    truth = truths[-1]
    with browser.at(address, MAP) as page:
        box = drawn(page).bounding_box()
        page.locator("#lasso").click()
        across, down = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        steps = [(across + 170 * np.cos(turn) * (1 + 0.4 * np.sin(5 * turn)), down + 170 * np.sin(turn)) for turn in np.arange(0, 6.2, 0.2)]
        page.mouse.move(*steps[0])
        page.mouse.down()
        for step in steps[1:]:
            page.mouse.move(*step)
        page.mouse.up()
        page.locator("#count").wait_for()
        corners = np.array(parse_qs(urlsplit(page.url).query)["lasso"][0].split(","), int).reshape(-1, 2)
        inside = Polygon(corners).contains_points([[row["x"], row["y"]] for row in truth.rows.values()])
        wanted = {id for id, there in zip(truth.rows, inside, strict=True) if there}
        assert 20 < len(wanted) < 200
        assert page.locator("#count").inner_text() == str(len(wanted))
        assert {*ids(page)} == wanted
        with page.expect_download() as waiting:
            page.get_by_role("link", name="JSON").click()
        kept = json.loads(waiting.value.path().read_text())
        assert {row["chunk_id"] for row in kept} == wanted
        assert {"text", "metadata_topic", "cluster"} <= kept[0].keys()


def test_a_field_of_the_metadata_colours_the_dots(address: str, browser: Window, truths: list[Truth]) -> None:
    topics = Counter(row["topic"] for row in truths[-1].version.vectors().to_table(["metadata"])["metadata"].to_pylist())
    with browser.at(address, MAP) as page:
        drawn(page).focus()
        plain = page.locator("#dots").screenshot()
        page.locator("select[name=by]").select_option("metadata.topic")
        page.locator("#legend").wait_for()
        shown = [text.rpartition("\n") for text in page.locator("#legend li").all_inner_texts()]
        counted = {label.strip(): int(figure) for label, _, figure in shown}
        assert all(counted[topic] == topics[topic] for topic in ("ships", "plants", "kitchen", "stars"))
        assert page.locator("#dots").screenshot() != plain
        assert "by=metadata.topic" in page.url
        page.locator("select[name=by]").select_option("metadata.added")
        page.locator("#legend", has_text=" to 2026-09-15").wait_for()
        page.locator("select[name=by]").select_option("age")
        page.locator("#legend", has_text="version").wait_for()


def test_names_of_clusters_do_not_overlap(address: str, browser: Window) -> None:
    for size in ((1280, 900), NARROW):
        with browser.at(address, MAP, size) as page:
            drawn(page)
            for _ in range(3):
                boxes = [label.bounding_box() for label in page.locator("#names span:visible").all()]
                assert boxes
                for one, other in combinations(boxes, 2):
                    apart = (
                        one["x"] + one["width"] <= other["x"]
                        or other["x"] + other["width"] <= one["x"]
                        or one["y"] + one["height"] <= other["y"]
                        or other["y"] + other["height"] <= one["y"]
                    )
                    assert apart, (one, other)
                page.locator("#closer").click()
                page.wait_for_timeout(300)


def test_the_address_holds_what_is_seen(address: str, browser: Window, truths: list[Truth]) -> None:
    with browser.at(address, f"{MAP}?since={truths[1].version.address}") as page:
        drawn(page).focus()
        page.locator("select[name=by]").select_option("metadata.year")
        page.locator("#legend", has_text="to").wait_for()
        page.locator("#clusters a").nth(1).click()
        page.locator("#rows").wait_for()
        page.locator("#stage").focus()
        page.keyboard.press("+")
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(500)
        shared = page.url
        seen = [page.locator(part).inner_text() for part in ("#legend", "#chosen", "#clusters tr.chosen")]
    assert {"of", "atlas", "since", "by", "cluster", "view"} == parse_qs(urlsplit(shared).query).keys()
    with browser.at(address, shared.removeprefix(address)) as page:
        drawn(page)
        page.wait_for_timeout(500)
        assert [page.locator(part).inner_text() for part in ("#legend", "#chosen", "#clusters tr.chosen")] == seen
        assert page.url == shared


def test_all_of_it_can_be_done_by_keys(address: str, browser: Window) -> None:
    with browser.at(address, MAP) as page:
        drawn(page).focus()
        for key in ("+", "+", "ArrowLeft", "ArrowDown", "-"):
            page.keyboard.press(key)
        page.wait_for_timeout(400)
        assert parse_qs(urlsplit(page.url).query)["view"][0].endswith(",1.400")
        page.keyboard.press("t")
        page.locator("#rows").wait_for()
        assert 0 < len(ids(page)) <= 200
        page.locator("#clusters a").nth(2).focus()
        page.keyboard.press("Enter")
        page.locator("#clusters tr.chosen").wait_for()
        page.locator("#chosen h2", has_text=" in ").wait_for()
        page.locator("#rows a").first.focus()
        page.keyboard.press("Enter")
        page.locator("#chunk").wait_for()


def test_without_webgl_or_without_scripts_the_tables_say_it(address: str, browser: Window, truths: list[Truth]) -> None:
    no_webgl = "HTMLCanvasElement.prototype.getContext = () => null"
    rows = Counter(row["cluster"] for row in truths[-1].rows.values())
    for options in ({"java_script_enabled": False}, {}):
        with browser.at(address, "/", **options) as page:
            if not options:
                page.add_init_script(no_webgl)
            page.goto(f"{address}{MAP}")
            page.locator("#instead").wait_for()
            assert page.locator("#stage").is_hidden()
            shown = dict(text.split("\t")[:2] for text in page.locator("#clusters tbody tr").all_inner_texts())
            assert {name.strip(): int(count) for name, count in shown.items()} == rows
            page.locator("#clusters a").first.click()
            page.locator("#rows").wait_for()
            assert page.locator("#count").inner_text() == str(max(rows.values()))
            page.locator("#rows a").first.click()
            page.locator("#chunk").wait_for()


def test_hostile_texts_stay_texts(address: str, browser: Window) -> None:
    with browser.at(address, MAP) as page:
        drawn(page).focus()
        page.keyboard.press("t")
        page.locator("#rows").wait_for()
        page.locator("select[name=by]").select_option("metadata.topic")
        page.locator("#legend").wait_for()
        for hostile in HOSTILE:
            everything = page.request.get(f"{address}{MAP}/chosen?lasso=0,0,65535,0,65535,65535,0,65535&as=json").json()
            row = next(row for row in everything if row["metadata_topic"] == hostile)
            page.evaluate("number => { const a = document.querySelector('#rows a'); a.dataset.point = number; a.click(); }", row["point"])
            page.locator("#chunk", has_text=row["chunk_id"]).wait_for()
            assert " ".join(page.locator(".excerpt").inner_text().split()) == " ".join(row["text"].split())
            assert hostile in page.locator(".facts").inner_text()
            page.locator("#stage").focus()
            page.keyboard.press("t")
            page.locator("#rows").wait_for()
        assert page.evaluate("window.broken") is None


def test_without_texts_there_are_none(story: Story, browser: Window, truths: list[Truth]) -> None:
    table = truths[-1].version.vectors().to_table(["text"])["text"].to_pylist()
    said_here = {"name", "names"}  # words of the page itself
    words = {word for text in table for word in text.split() if len(word) > 3 and word.isalpha()} - said_here | {*HOSTILE, CANARY, "topic"}
    everything = "lasso=0,0,65535,0,65535,65535,0,65535"
    with serving(story.store, texts=False) as address, browser.at(address) as page:
        paths = [MAP, f"{MAP}?cluster=0", f"{MAP}?point=3&near=1", f"{MAP}/points", f"{MAP}/codes?by=age"]
        paths += [f"{MAP}/chosen?{everything}", *(f"{MAP}/chosen?{everything}&as={kind}" for kind in ("csv", "json"))]
        for path in paths:
            answer = page.request.get(f"{address}{path}")
            assert answer.status == 200, path
            said = answer.body().decode("utf-8", "replace")
            body = said[said.find('<section class="beside">') :] if path.startswith(f"{MAP}?") or path == MAP else said
            ids_gone = body
            for id in truths[-1].rows:
                ids_gone = ids_gone.replace(id, "").replace(id.partition("#")[0], "")
            assert [word for word in words if f" {word} " in ids_gone or f">{word}<" in ids_gone or f'"{word}' in ids_gone] == [], path
        assert page.request.get(f"{address}{MAP}/codes?by=metadata.topic").status == 400


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ("of=nothing@3", 404, "expected a version that has a map"),
        ("since=../../x@1", 404, "expected a version that has a map"),
        ("point=999999", 400, "expected points 0 to"),
        ("point=-1", 400, "expected a point as a whole number"),
        ("cluster=x", 400, "expected a cluster as a whole number"),
        ("cluster=77777", 404, "expected a cluster of version"),
        ("lasso=1,2,3", 400, "expected a lasso of 3 to 120 corners"),
        ("lasso=" + ",".join(["1"] * 800), 400, "expected a lasso"),
        ("atlas=7", 404, "expected atlas 7 of version"),
        ("by=metadata.nothing", 400, "expected a colouring of clusters"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(address: str, browser: Window, asked: str, status: int, said: str) -> None:
    with browser.at(address) as page:
        answer = page.request.get(f"{address}{MAP}?{asked}")
        assert (answer.status, said in answer.text()) == (status, True)
