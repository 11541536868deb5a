"""Summaries of reports as blocks of text cells, for a terminal and a page alike; what is unknown here is shown as well."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.reports.drawing.chart import short_text

COLUMNS = 8
"""Columns of a block, at most."""
CELL = 60
"""Letters of a cell."""

MEANINGS = {
    "map": "A landmark is a content that keeps its place from version to version; all others lie beside the landmark most like them.",
    "clusters": "A cluster is a group of contents more like each other than the rest. Its name is the words most typical of it.",
    "outliers": "An outlier is a row unlike everything else. Similarity is the cosine to the nearest landmark: 1 is the same.",
    "duplicates": "Exact duplicates have one content; near ones have vectors of a cosine above the limit. A group lies around one chunk.",
    "neighbours": "The neighbours of a chunk are 10 to k other contents of highest cosine. Recall: the share that was found, of a sample.",
    "balance": "A group has one value of a field. Spread: mean of 1 - cosine to its centre; distance: from there to the centre of all.",
    "bias": "Effect: how much nearer one list of words is to an attribute than another, in standard deviations; p: by permutation.",
    "tasks": "Accuracy: the share of held-out labels told by neighbours or by a linear model. Spearman: of cosines and scores.",
    "drift": "Divergence: Jensen-Shannon over clusters, in bits, beside the most that chance gives. Moved: rows that changed cluster, net.",
    "labels": "A label is suggested by what was given; accuracy: of given ones by the others; unlabelled: none is likely enough.",
}
"""kind -> what its words mean."""


@dataclass(frozen=True)
class Block:
    """A table of texts."""

    title: str
    """Empty: of the whole summary."""
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    numbers: frozenset[str]
    """Columns that are aligned at the right."""


REASON = "nothing"
"""The key of a summary that says why there is little in it."""


def blocks(summary: Mapping[str, Any], longest: int, title: str = "") -> list[Block]:
    """Single figures first, then a table for each list and each mapping, of at most `longest` rows."""
    single = {key: value for key, value in summary.items() if _is_line(value)}
    numbers = frozenset({"value"} if all(map(_is_number, single.values())) else ())
    made = (
        [Block(title, ("measure", "value"), [(worded(key), _line(key, value)) for key, value in single.items()], numbers)] if single else []
    )
    for key, value in summary.items():
        name = f"{title}: {worded(key)}" if title else worded(key)
        if isinstance(value, Mapping) and not _is_table(value):
            made += blocks(value, longest, name)
        elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) and not _is_row(one) for one in value):
            for place, one in enumerate(value[:longest], 1):
                called = next((text for text in _record(one).values() if isinstance(text, str)), place)
                made += blocks(_record(one), longest, f"{name} {short_text(called, CELL)}")
        elif not _is_line(value):
            made.append(_block(key, name, value, longest))
    return made


def _is_line(value: Any) -> bool:
    """Whether it is a single value, or a list of single values, which has room in a line."""
    if isinstance(value, list | tuple):
        return not any(isinstance(one, Mapping | list | tuple) for one in value)
    return not isinstance(value, Mapping)


def _is_table(value: Mapping[str, Any]) -> bool:
    """Whether each of its values is a row."""
    return bool(value) and all(isinstance(one, Mapping) and _is_row(one) for one in value.values())


def _is_row(value: Mapping[str, Any]) -> bool:
    return all(map(_is_line, value.values()))


def _line(key: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        return short_text(", ".join(cell(key, one) for one in value) or "none", CELL)
    return cell(key, value)


def _block(key: str, title: str, value: Any, longest: int) -> Block:
    records = [{"name": name, **one} for name, one in value.items()] if isinstance(value, Mapping) else list(map(_record, value))
    names = list(dict.fromkeys(name for record in records for name in record))[:COLUMNS]
    rows = [tuple(_line(name if name != "value" else key, record.get(name)) for name in names) for record in records[:longest]]
    numbers = {worded(name) for name in names if all(_is_number(record.get(name)) for record in records)}
    more = f", {longest:,} of {len(records):,}" if len(records) > longest else ""
    return Block(title + more, tuple(map(worded, names)), rows, frozenset(numbers))


def _record(one: Any) -> Mapping[str, Any]:
    if isinstance(one, list | tuple):
        return {str(place): value for place, value in enumerate(one, 1)}
    return one if isinstance(one, Mapping) else {"value": one}


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def worded(key: str) -> str:
    """`mean_cosine` as it is said."""
    return short_text(str(key).replace("_", " "), CELL)


def cell(key: str, value: Any) -> str:
    """With its unit where the key names one: shares in %, seconds, bytes. What is a name and no amount stays as it is."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(key, value)
    if not _is_line(value) or isinstance(value, list | tuple):
        return short_text(json.dumps(value, ensure_ascii=False, default=str), CELL)
    return short_text(value, CELL)


def _number(key: str, value: float) -> str:
    last = str(key).rpartition("_")[2]
    if last in ("cluster", "version", "landmark"):
        return str(value)
    if last in ("share", "moved"):
        return f"{value:.1%}".replace("%", " %")
    if last == "seconds":
        return f"{value:,.1f} s"
    if last == "bytes":
        return f"{value / 1e6:,.1f} MB"
    if isinstance(value, int):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.2g}"
