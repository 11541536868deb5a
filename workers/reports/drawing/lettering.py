"""Names on a map without one upon another."""

from collections.abc import Iterable, Sequence

Box = tuple[float, float, float, float]
"""left, bottom, right, top."""

_SHIFTS = [(0.0, 0.0)] + [(x, y) for y in (0.55, -0.55, 1.1, -1.1, 0.0) for x in (0.0, 0.3, -0.3)]
"""Where a name may go, in its own widths and heights, if its centre is taken."""


def arrange(wanted: Iterable[tuple[float, float, float, float]], room: Box, gap: float) -> list[Box | None]:
    """A box for each of `wanted` (its centre's x and y, its width and height), within `room` and `gap` apart.

    The first ones are served first: give the largest cluster first. None: no room near its centre.
    """
    taken: list[Box] = []
    given: list[Box | None] = []
    for x, y, wide, high in wanted:
        boxes = (_around(x + across * wide, y + up * high, wide, high) for across, up in _SHIFTS)
        free = next((box for box in boxes if _inside(box, room) and not _touches(box, taken, gap)), None)
        given.append(free)
        if free:
            taken.append(free)
    return given


def _around(x: float, y: float, wide: float, high: float) -> Box:
    return x - wide / 2, y - high / 2, x + wide / 2, y + high / 2


def _inside(box: Box, room: Box) -> bool:
    return box[0] >= room[0] and box[1] >= room[1] and box[2] <= room[2] and box[3] <= room[3]


def _touches(box: Box, taken: Sequence[Box], gap: float) -> bool:
    left, bottom, right, top = box
    return any(
        left < right_ + gap and left_ < right + gap and bottom < top_ + gap and bottom_ < top + gap
        for left_, bottom_, right_, top_ in taken
    )


def in_lines(name: str, letters: int) -> str:
    """A name broken at its spaces into lines of about `letters`: a block takes less room on a map than a line."""
    lines: list[str] = []
    for word in name.split():
        if lines and len(lines[-1]) + 1 + len(word) <= letters:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)
