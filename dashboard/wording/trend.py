"""A small line of how a figure went, drawn as SVG by the server: it is there without any script."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT, EDGE = 240.0, 28.0, 4.0
"""Pixels."""
MOST_POINTS = 120


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement."""

    value: float
    passed: bool


def trend(points: Sequence[Point], threshold: float | None, about: str) -> Markup:
    """The newest of `points`, oldest first, with their threshold as a dashed line. What failed is a square. `about`: the tooltip."""
    shown = points[-MOST_POINTS:]
    if not shown:
        return Markup("")
    levels = [point.value for point in shown] + ([] if threshold is None else [threshold])
    low, high = min(levels), max(levels)
    span = (high - low) or 1.0
    step = (WIDTH - 2 * EDGE) / max(1, len(shown) - 1)

    def height(value: float) -> float:
        return HEIGHT / 2 if high == low else HEIGHT - EDGE - (value - low) / span * (HEIGHT - 2 * EDGE)

    places = [(EDGE + step * number, height(point.value)) for number, point in enumerate(shown)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    limit = "" if threshold is None else _LIMIT.format(height(threshold), WIDTH)
    marks = [_FAILED.format(x - 3, y - 3) for (x, y), point in zip(places, shown, strict=True) if not point.passed]
    last = "" if not shown[-1].passed else _LAST.format(*places[-1])
    return _WHOLE.format(WIDTH, HEIGHT, about, limit, line, Markup("").join(marks), last)


_LIMIT = Markup('<line class="limit" x1="0" x2="{1}" y1="{0:.1f}" y2="{0:.1f}"/>')
_FAILED = Markup('<rect class="failed" x="{:.1f}" y="{:.1f}" width="6" height="6"/>')
_LAST = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>')
_WHOLE = Markup(
    '<svg class="trend" width="{0:.0f}" height="{1:.0f}" viewBox="0 0 {0:.0f} {1:.0f}" role="img" aria-label="{2}">'
    '<title>{2}</title>{3}<polyline points="{4}"/>{5}{6}</svg>'
)
