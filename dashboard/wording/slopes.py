"""Two rankings side by side, with a line from where a thing was to where it is, drawn as SVG by the server."""

from collections.abc import Sequence

from markupsafe import Markup

ROW = 24
"""Pixels."""
WIDTH, NAME, GAP = 760, 300, 26
"""Of the whole, of a name on either side, and between a name and the lines."""
MOST_LETTERS = 38


def slopes(places: Sequence[tuple[str, int | None, int | None]], k: int) -> Markup:
    """`places`: what it is, and its rank on either side, from 1; None where it is not among the `k` first."""
    ranks = [rank for place in places for rank in place[1:] if rank is not None]
    height = ROW * (min(k, max(ranks)) if ranks else 0)
    if not height:
        return Markup("")
    parts = [part for name, first, second in places for part in _place(name, first, second)]
    return _WHOLE.format(WIDTH, height, Markup("").join(parts))


def _place(name: str, first: int | None, second: int | None) -> list[Markup]:
    kind = "only" if first is None or second is None else "same" if first == second else "up" if second < first else "down"
    short = name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"
    shown = f"◆ {short}" if kind == "only" else short
    parts = []
    if first is not None and second is not None:
        parts.append(_LINE.format(kind, NAME + GAP, _level(first), WIDTH - NAME - GAP, _level(second)))
    if first is not None:
        parts.append(_LEFT.format(kind, NAME, _level(first) + 4, name, shown, first, NAME + GAP - 6))
    if second is not None:
        parts.append(_RIGHT.format(kind, WIDTH - NAME, _level(second) + 4, name, shown, second, WIDTH - NAME - GAP + 6))
    return parts


def _level(rank: int) -> int:
    return ROW * rank - ROW // 2


_LINE = Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>')
_LEFT = Markup(
    '<text class="{0}" x="{1}" y="{2}" text-anchor="end"><title>{3}</title>{4}</text>'
    '<text class="rank" x="{6}" y="{2}" text-anchor="end">{5}</text>'
)
_RIGHT = Markup('<text class="{0}" x="{1}" y="{2}"><title>{3}</title>{4}</text><text class="rank" x="{6}" y="{2}">{5}</text>')
_WHOLE = Markup('<svg class="slopes" viewBox="0 0 {0} {1}" role="img" aria-label="ranks on the left, and on the right">{2}</svg>')
