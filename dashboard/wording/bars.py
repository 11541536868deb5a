"""Bars, as numbers that a template draws as SVG: parts of a whole, and amounts of days."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

COLOURS = 6
"""That the style sheet has for parts; what comes after the largest shares one more."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A part, or a day, and its amount."""

    name: str
    amount: float


@dataclass(frozen=True, slots=True)
class Drawn(Bar):
    """A bar where it is drawn, in hundredths of the width."""

    start: float
    width: float
    height: float
    """In hundredths of the highest."""
    colour: int


def stacked(bars: Sequence[Bar]) -> list[Drawn]:
    """Parts, one after another, over the whole width. The largest have colours of their own."""
    whole = sum(bar.amount for bar in bars)
    largest = sorted(range(len(bars)), key=lambda number: -bars[number].amount)[:COLOURS]
    colours = {number: colour for colour, number in enumerate(sorted(largest))}
    drawn, start = [], 0.0
    for number, bar in enumerate(bars):
        width = 100 * bar.amount / whole if whole else 0.0
        drawn.append(Drawn(bar.name, bar.amount, round(start, 3), round(width, 3), 100.0, colours.get(number, COLOURS)))
        start += width
    return drawn


def daily(amounts: Mapping[date, float], days: int) -> list[Drawn]:
    """The last `days` days, up to today, UTC; those without an amount are empty."""
    today = datetime.now(UTC).date()
    every = [today - timedelta(days=back) for back in reversed(range(days))]
    most = max((amounts.get(day, 0.0) for day in every), default=0.0)
    width = 100 / days
    return [
        Drawn(
            day.isoformat(), amounts.get(day, 0.0), round(number * width, 3), round(width * 0.8, 3), _share(amounts.get(day, 0.0), most), 0
        )
        for number, day in enumerate(every)
    ]


def _share(amount: float, most: float) -> float:
    return round(100 * amount / most, 3) if most else 0.0
