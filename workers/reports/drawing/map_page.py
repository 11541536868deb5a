"""A map, and what other reports say, as one HTML file that needs nothing else: no server, no network, no library.

Documents are hostile: what comes from them is data, never markup. The page's own script and style are allowed by their hashes, nothing else
may run or be fetched.
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.reports.drawing.chart import Chart, short_text
from workers.reports.drawing.colouring import Colouring, by_cluster
from workers.reports.drawing.summaries import MEANINGS, Block, blocks
from workers.reports.drawing.whole import whole_file

MOST_POINTS = 50_000
MOST_BYTES = 2_900_000
"""Of the page: it is sent by mail and opened on a telephone."""
FULL = 65_535
"""The longer side of the map in the page's units."""
LONGEST_TABLE = 50
"""Rows of a table of another report."""
_HERE = Path(__file__).parent
_WIDTHS = (300, 200, 120, 80, 60, 40, 24, 12)


def write_page(
    chart: Chart,
    out: Path,
    ids: Sequence[str],
    texts: Sequence[str] | None = None,
    further: Sequence[Colouring] = (),
    summaries: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write the page of a chart of at most 50,000 points to `out`, replacing what was there; below 3 MB.

    `ids`, `texts`: of the points that are shown, for the one under the pointer, as long as there is room. `further`: beside the clusters.
    `summaries`: kind of report -> its summary, each a section. Raises ValueError for more points.
    """
    if (points := int(chart.shown.sum())) > MOST_POINTS:
        raise ValueError(f"expected at most {MOST_POINTS:,} points on a page, found {points:,}: give the landmarks")
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    text = {
        "title": escape(chart.about.title),
        "subtitle": escape(chart.about.subtitle),
        "caption": escape(chart.caption),
        "count": f"{len(chart.clusters_by_size):,}",
        "clusters": _cluster_rows(chart),
        "sections": "\n".join(_section(kind, summary) for kind, summary in (summaries or {}).items()),
        "style": style,
        "script": script,
        "style_hash": _hash(style),
        "script_hash": _hash(script),
    }
    room = MOST_BYTES - sum(len(part.encode()) for part in text.values())
    data = _data(chart, ids, texts, [by_cluster(chart), *further], room)
    with whole_file(out, replace=True) as part:
        part.write_text(Template((_HERE / "page.html").read_text(encoding="utf-8")).substitute(text, data=data), encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data(chart: Chart, ids: Sequence[str], texts: Sequence[str] | None, colourings: Sequence[Colouring], room: int) -> str:
    """JSON of at most `room` bytes, if ids may be cut as far as that needs; texts get what is left."""
    there = np.flatnonzero(chart.shown)
    low, extent, scale = _frame(chart.places[chart.placed])
    rows = chart.rows[there] if chart.rows is not None else np.ones(len(there))
    made = {
        "places": _packed((chart.places[there] - low) * scale, "<u2"),
        "extent": (extent * scale).tolist(),
        "clusters": _packed(colourings[0].codes[there], "<u2"),
        "rows": _packed(rows, "<u4"),
        "sizes": _packed(10 * chart.sizes[there], "<u1"),
        "names": [{"name": one.name, "share": one.share, **_place_of(one.middle, low, scale)} for one in chart.clusters_by_size],
        "colourings": [_colouring(one, there if place else None) for place, one in enumerate(colourings)],
    }
    used = len(_json(made).encode())
    made["ids"] = _fitting(ids, (room - used) * 0.5, _both_ends)
    if texts is not None:
        used = len(_json(made).encode())
        made["texts"] = _fitting(texts, room - used, short_text)
    return _json(made)


def _frame(places: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The least x and y, the extents, and by what they are multiplied."""
    if not len(places):
        return np.zeros(2), np.ones(2), FULL
    low = places.min(axis=0).astype(np.float64)
    extent = np.maximum(places.max(axis=0) - low, 1e-9)
    return low, extent, FULL / float(extent.max())


def _place_of(middle: tuple[float, float] | None, low: NDArray[np.float64], scale: float) -> dict[str, float | None]:
    x, y = ((np.array(middle) - low) * scale).round(1).tolist() if middle else (None, None)
    return {"x": x, "y": y}


def _packed(values: NDArray[Any], kind: str) -> str:
    numbers = values.astype(np.float64).round().clip(0, np.iinfo(kind).max).astype(kind)
    return b64encode(numbers.tobytes()).decode()


def _colouring(made: Colouring, points: NDArray[np.intp] | None) -> dict[str, Any]:
    """`points`: those that are there; None of the colouring by cluster, whose codes the page has."""
    codes = {} if points is None else {"codes": _packed(made.codes[points], "<u2")}
    return {"title": made.title, "light": made.light, "dark": made.dark, "labels": made.labels, "note": made.note, **codes}


def _fitting(texts: Sequence[str], room: float, cut: Any) -> list[str]:
    """The texts, cut to the longest of some widths at which all have room; to nothing if none is short enough."""
    fitted = list(texts)
    for width in _WIDTHS:
        fitted = [cut(text, width) for text in fitted]
        if len(_json(fitted).encode()) <= room:
            return fitted
    return [""] * len(texts)


def _both_ends(text: str, width: int) -> str:
    """Ids differ at their ends as often as at their beginnings."""
    whole = short_text(text, len(text) + 1)
    return whole if len(whole) <= width else f"{whole[: width // 2 - 1]}…{whole[-(width // 2) :]}"


def _json(value: Any) -> str:
    """Within a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return (
        text.replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def _cluster_rows(chart: Chart) -> str:
    return "\n".join(
        f'<tr><td><button type="button" aria-pressed="false"><span>{escape(one.name)}</span></button></td>'
        f'<td class="number">{one.rows:,}</td><td class="number">{one.share:.1%}</td></tr>'
        for one in chart.clusters_by_size
    )


def _section(kind: str, summary: Mapping[str, Any]) -> str:
    """A heading, what its words mean, and its tables."""
    tables = "\n".join(_table(block) for block in blocks(summary, LONGEST_TABLE))
    return (
        f'<section class="report">\n<h2>{escape(kind)}</h2>\n<p class="beside">{escape(MEANINGS.get(kind, ""))}</p>\n{tables}\n</section>'
    )


def _table(block: Block) -> str:
    classes = [' class="number"' if column in block.numbers else "" for column in block.columns]
    head = "".join(f'<th scope="col"{css}>{escape(column)}</th>' for css, column in zip(classes, block.columns, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{css}>{escape(value)}</td>" for css, value in zip(classes, row, strict=True)) + "</tr>" for row in block.rows
    )
    title = f"<h3>{escape(block.title)}</h3>\n" if block.title else ""
    return f'{title}<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'
