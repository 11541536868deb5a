"""What people see of reports: a map that can be read, in colours that can be told apart, and a page that nothing in a document can turn."""

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.image import imread

from pipelines.errors import SpecError
from tests.support.browser import browse
from workers.reports.drawing.chart import About, Chart
from workers.reports.drawing.colouring import DARK, LIGHT, by_cluster, by_field, by_growth
from workers.reports.drawing.flat_rows import write_rows
from workers.reports.drawing.lettering import arrange
from workers.reports.drawing.map_page import MOST_POINTS, write_page
from workers.reports.drawing.picture import draw
from workers.reports.drawing.projector import write_projector
from workers.reports.drawing.summaries import blocks

ABOUT = About("docs", 7, 1234, 1000, "a/model", "2026-03-01")
HOSTILE = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", "$\\frac{1}$ {x} \x1b[31m", "名前 🜚", "a" * 5000)


def islands(points: int, clusters: int, seed: int = 0, names: dict[int, str] | None = None) -> Chart:
    """Clusters in a square of places, as many points in each."""
    chance = np.random.default_rng(seed)
    numbers = np.arange(points, dtype=np.int32) % clusters
    side = int(np.ceil(clusters**0.5))
    centres = np.stack([numbers % side, numbers // side], axis=1)
    places = (10 * centres + chance.uniform(-5, 5, (points, 2))).astype(np.float32)
    return Chart(ABOUT, "landmarks", places, numbers, names or {number: f"words of {number}" for number in range(clusters)})


def test_neighbouring_clusters_differ_in_colour() -> None:
    """Also where there are seven times as many clusters as colours."""
    chart = islands(6400, 64)
    colours = by_cluster(chart).light
    of = dict(zip((cluster.number for cluster in chart.clusters_by_size), colours, strict=False))
    beside = [(a, b) for a, b in itertools.combinations(range(64), 2) if max(abs(a % 8 - b % 8), abs(a // 8 - b // 8)) == 1]
    assert [pair for pair in beside if of[pair[0]] == of[pair[1]]] == []


def test_a_cluster_keeps_place_and_colour_when_others_grow_and_go() -> None:
    """Its landmarks are where they were, so that maps of two versions can be laid over each other."""
    chart = islands(600, 12)
    rows = np.where(chart.clusters == 7, 50, np.where(chart.clusters == 3, 0, np.arange(600) // 12 % 2))
    later = Chart(ABOUT, "landmarks", chart.places, chart.clusters, chart.names, rows)
    before, after = ({cluster.number: (cluster.middle, colour) for cluster, colour in drawn(one)} for one in (chart, later))
    assert later.clusters_by_size[0].number == 7 and 3 not in after and len(after) == 11
    assert all(before[number] == there for number, there in after.items())


def drawn(chart: Chart) -> Any:
    return zip(chart.clusters_by_size, by_cluster(chart).light, strict=False)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_the_colour_blind_tell_colours_apart(theme: Any) -> None:
    for matrix in (np.eye(3), *CONFUSIONS):
        seen = oklab(np.clip(linear(theme.distinct) @ matrix.T, 0, 1))
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.13
        ends = oklab(np.clip(linear(theme.diverging) @ matrix.T, 0, 1))
        assert np.linalg.norm(ends[0] - ends[-1]) > 0.13


CONFUSIONS = [  # Machado, Oliveira and Fernandes, 2009: without the cones for long, middle and short waves
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
]


def linear(colours: tuple[str, ...]) -> Any:
    values = np.array([list(bytes.fromhex(colour[1:])) for colour in colours]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def oklab(colours: Any) -> Any:
    """Ottosson, 2020: distances as people see them."""
    cones = np.array(
        [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883024619, 0.2817188376, 0.6299787005]]
    )
    axes = np.array(
        [[0.2104542553, 0.793617785, -0.0040720468], [1.9779984951, -2.428592205, 0.4505937099], [0.0259040371, 0.7827717662, -0.808675766]]
    )
    return np.cbrt(colours @ cones.T) @ axes.T


def test_names_do_not_lie_upon_each_other() -> None:
    chance = np.random.default_rng(1)
    wanted = [(x, y, 60.0, 20.0) for x, y in chance.uniform(0, 400, (80, 2)).tolist()]
    boxes = [box for box in arrange(wanted, (0, 0, 400, 400), gap=2) if box]
    assert len(boxes) > 30
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] + 2 <= b[0] or b[2] + 2 <= a[0] or a[3] + 2 <= b[1] or b[3] + 2 <= a[1]
    assert all(box[0] >= 0 and box[1] >= 0 and box[2] <= 400 and box[3] <= 400 for box in boxes)


def test_growth_and_fields_say_what_their_colours_mean() -> None:
    growth = by_growth(np.array([-0.9, 0.0, 5.0, np.inf, np.nan]), 6, 7)
    assert [growth.labels[code] for code in growth.codes] == ["less than half", "within 10 %", "more than twice", "new", "new"]
    field = by_field("lang", ["en"] * 5 + ["de"] * 3 + [f"x{number}" for number in range(9)] + [None])
    told = [field.labels[code] for code in field.codes]
    assert (told[0], told[5], told[-1]) == ("en  5", "de  3", "none  1") and "4 others  4" in told
    years = by_field("year", [*range(1900, 2000), None])
    assert len({*years.codes.tolist()}) == 8 and years.labels[years.codes[0]].startswith("1,900 to")


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("dark", [False, True])
def test_a_picture_is_the_same_each_time_whatever_it_is_called(tmp_path: Path, dark: bool) -> None:
    chart = islands(200, 6, names=dict(enumerate(HOSTILE)))
    chart.places[3] = np.nan
    for name in ("a.png", "b.png"):
        draw(chart, tmp_path / name, dark)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = imread(tmp_path / "a.png")[..., :3]
    paper = np.array(bytearray.fromhex((DARK if dark else LIGHT).paper[1:])) / 255
    assert picture.shape == (1860, 1650, 3) and np.allclose(picture[0, 0], paper, atol=0.01)
    coloured = picture[np.ptp(picture, axis=2) > 0.25]
    assert len(coloured) > 10_000 and "1 have no place" in chart.caption
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("points", [0, 1])
def test_a_map_of_next_to_nothing(tmp_path: Path, points: int) -> None:
    chart = Chart(ABOUT, "landmarks", np.zeros((points, 2), np.float32), np.full(points, -1, np.int32), {})
    draw(chart, tmp_path / "a.png")
    write_page(chart, tmp_path / "a.html", ["d"] * points)
    assert browse(tmp_path / "a.html", tmp_path).complaints == []


def test_a_page_runs_by_itself_and_nothing_of_a_document_does(tmp_path: Path) -> None:
    chart = islands(300, 6, names=dict(enumerate(HOSTILE)))
    ids = [HOSTILE[number % 5] for number in range(300)]
    drift = {"p": 0.03, "clusters": [{"name": HOSTILE[0], "rows": 12}], HOSTILE[1]: {"a": 1}}
    write_page(chart, tmp_path / "a.html", ids, ids, [by_growth(np.zeros(300), 6, 7), by_field("lang", ids)], {"drift": drift})
    text = (tmp_path / "a.html").read_text()
    assert text.count("<script") == 2 and "<img" not in text and "http:" not in text and "https:" not in text
    seen = browse(tmp_path / "a.html", tmp_path)
    assert seen.complaints == []
    assert len(re.findall(r"<i style=", seen.dom)) == 6, "a colour before each name: the script has run, under the page's own policy"
    assert re.search(r'id="fallback" hidden', seen.dom) and "Jensen-Shannon over clusters" in seen.dom and "0.03" in seen.dom


def test_without_webgl_the_tables_remain(tmp_path: Path) -> None:
    write_page(islands(300, 6), tmp_path / "a.html", ["d"] * 300)
    seen = browse(tmp_path / "a.html", tmp_path, webgl=False)
    assert 'id="fallback" hidden' not in seen.dom and "<span>words of 3</span>" in seen.dom and seen.complaints == []


def test_a_page_shows_its_dots_in_both_themes(tmp_path: Path) -> None:
    write_page(islands(3000, 12), tmp_path / "a.html", ["d"] * 3000)
    for scheme, ground in ((1, 1.0), (0, 0.08)):
        shot = tmp_path / f"{scheme}.png"
        flags = (f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={shot}", "--window-size=390,844")
        assert browse(tmp_path / "a.html", tmp_path, *flags).complaints == []
        picture = imread(shot)[..., :3]
        assert np.allclose(picture[2, 2], ground, atol=0.04)
        coloured = (picture[np.ptp(picture, axis=2) > 0.3] * 8).astype(int)
        assert len(np.unique(coloured, axis=0)) >= 20


def test_a_page_stays_small(tmp_path: Path) -> None:
    """Ids and texts are cut as far as that needs, ids at their middle."""
    chart = islands(MOST_POINTS, 200)
    ids = [f"https://host/{'folder/' * 20}{number}#0" for number in range(MOST_POINTS)]
    write_page(chart, tmp_path / "a.html", ids, ["<&" * 60] * MOST_POINTS)
    assert (tmp_path / "a.html").stat().st_size < 3_000_000 and '77#0"' in (tmp_path / "a.html").read_text()
    with pytest.raises(ValueError, match="at most 50,000 points"):
        write_page(islands(MOST_POINTS + 1, 2), tmp_path / "b.html", ids)


def test_any_summary_becomes_tables() -> None:
    summary = {
        "rows": 63678,
        "new_share": 0.0123,
        "model_seconds": 1.25,
        "none": None,
        "by": {"a": {"rows": 1}, "b": {"rows": 2, "p": 0.5}},
        "near": {"limit": 0.95, "groups": [{"oldest": "d1", "members": 3}] * 12},
        "pairs": [["a", "b", 0.9]],
        "odd": [1, {"a": [2, {"b": 3}]}],
        "words": ["x", "y"],
        "empty": {},
        "nothing": [],
    }
    made = {block.title: block for block in blocks(summary, 10)}
    assert ("rows", "63,678") in made[""].rows and ("new share", "1.2 %") in made[""].rows and ("words", "x, y") in made[""].rows
    assert made["by"].rows == [("a", "1", "-"), ("b", "2", "0.500")]
    assert made["near"].rows == [("limit", "0.950")] and len(made["near: groups, 10 of 12"].rows) == 10
    assert made["pairs"].rows == [("a", "b", "0.900")] and made["odd 1"].rows == [("value", "1")]


def test_the_projector_gets_what_it_reads(tmp_path: Path) -> None:
    vectors = np.arange(12, dtype=np.float16).reshape(4, 3) / 7
    write_projector(tmp_path / "out", 'a "name"', vectors, {"id": ["a\tb", "c\nd", None, "e"], "text": ["x"] * 4})
    assert np.array_equal(np.fromfile(tmp_path / "out" / "tensors.bytes", "<f4").reshape(4, 3), vectors.astype(np.float32))
    assert (tmp_path / "out" / "metadata.tsv").read_text().split("\n") == ["id\ttext", "a b\tx", "c d\tx", "\tx", "e\tx", ""]
    config = (tmp_path / "out" / "projector_config.pbtxt").read_text()
    assert 'tensor_name: "a \\"name\\""' in config and re.findall(r"tensor_shape: (\d+)", config) == ["4", "3"]
    with pytest.raises(SpecError, match="expected a new path"):
        write_projector(tmp_path / "out", "a", vectors, {"id": ["a"] * 4, "text": ["x"] * 4})


def test_an_export_that_dies_leaves_nothing(tmp_path: Path) -> None:
    rows = pa.table({"text": ["a", "b"], "metadata": [{"text": "m", "lang": "en"}, None]})

    def dying() -> Any:
        yield rows
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write_rows(tmp_path / "a.parquet", rows.schema, dying())
    assert list(tmp_path.iterdir()) == []
    assert write_rows(tmp_path / "a.parquet", rows.schema, [rows, rows]) == 4
    assert pq.read_table(tmp_path / "a.parquet").to_pylist()[1:3] == [
        {"text": "b", "metadata_text": None, "lang": None},
        {"text": "a", "metadata_text": "m", "lang": "en"},
    ]
