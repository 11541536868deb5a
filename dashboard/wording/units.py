"""Figures with their units, as a person reads them. Filters of the templates."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from markupsafe import Markup, escape

NOTHING = "–"
"""Where nobody knows: not the same as zero."""
_BYTES = ("B", "kB", "MB", "GB", "TB", "PB")
_LEAST_MONEY = 0.0001
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def count(value: float | None) -> str:
    """1234567 -> 1,234,567."""
    return NOTHING if value is None else f"{round(value):,}"


def number(value: float | None, digits: int = 3) -> str:
    """A measure: 0.98765 -> 0.988."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def figure(value: float | None) -> str:
    """A measure of any size, with four digits that say something: 0.000065242 -> 6.524e-05, 311.0 -> 311."""
    return NOTHING if value is None else f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def share(value: float | None, digits: int = 1) -> str:
    """0.1234 -> 12.3 %. What is not all is never rounded up to all, and what is not nothing never to nothing."""
    if value is None:
        return NOTHING
    least = 10.0**-digits
    percent = 100 * value
    if 0 < percent < least:
        return f"< {least:.{digits}f} %"
    if 100 - least < percent < 100:
        return f"> {100 - least:.{digits}f} %"
    return f"{percent:.{digits}f} %"


def size(value: float | None) -> str:
    """Bytes, in powers of a thousand: 1234567 -> 1.2 MB."""
    if value is None:
        return NOTHING
    power = 0
    while value >= 999.5 and power < len(_BYTES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.0f} {_BYTES[power]}" if power == 0 or value >= 99.5 else f"{value:.1f} {_BYTES[power]}"


def duration(seconds: float | None) -> str:
    """In its two greatest units: 3725 -> 1 h 2 min."""
    if seconds is None:
        return NOTHING
    if 0 < seconds < 0.1:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.0005 else "< 1 ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    for place, (span, name) in enumerate(_SPANS):
        if whole >= span:
            below, smaller = (*_SPANS, (1, "s"))[place + 1]
            rest = whole % span // below
            return f"{whole // span} {name} {rest} {smaller}" if rest else f"{whole // span} {name}"
    raise AssertionError(whole)


def money(amount: float | None, currency: str | None) -> str:
    """With its currency; small amounts with more digits, and what is not nothing never as nothing."""
    if amount is None:
        return NOTHING
    if 0 < amount < _LEAST_MONEY:
        return f"< {_LEAST_MONEY} {currency or ''}".strip()
    digits = 2 if abs(amount) >= 1 or amount == 0 else 4
    return f"{amount:,.{digits}f} {currency or ''}".strip()


def moment(value: str | datetime | None) -> datetime | None:
    """A time of ours, ISO 8601; None for what is none."""
    if not value:
        return None
    at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)


def when(value: str | datetime | None) -> Markup | str:
    """A time, UTC: how long ago within a day, else its date; the whole of it as a tooltip."""
    at = moment(value)
    if at is None:
        return NOTHING
    near = abs(datetime.now(UTC) - at) < timedelta(days=1)
    return _time(at, ago(at) if near else f"{at:%d %b %H:%M}" if at.year == datetime.now(UTC).year else f"{at:%d %b %Y}")


def exact(value: str | datetime | None) -> Markup | str:
    """A time, UTC, to the minute."""
    at = moment(value)
    return NOTHING if at is None else _time(at, f"{at:%Y-%m-%d %H:%M}")


def _time(at: datetime, shown: str) -> Markup:
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S}", shown)


def ago(at: datetime) -> str:
    """How long since, or until, in one unit."""
    seconds = (datetime.now(UTC) - at).total_seconds()
    span = next((f"{abs(seconds) // span:.0f} {name}" for span, name in _SPANS if abs(seconds) >= span), "moments")
    return f"{span} ago" if seconds >= 0 else f"in {span}"


def short(value: str | None, length: int = 12) -> Markup | str:
    """A long name by its end, which is what tells it from others; the whole of it as a tooltip."""
    if not value:
        return NOTHING
    own = value.rpartition(".")[2]
    shown = own if len(own) <= length else f"{own[:length]}…"
    return Markup('<span title="{}">{}</span>').format(value, shown)


def written(value: Any) -> str:
    """A value of a spec, as JSON, without what it leaves out."""
    return orjson.dumps(_said(value)).decode()


def _said(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _said(member) for key, member in value.items() if member not in (None, "", [], {})}
    return [_said(member) for member in value] if isinstance(value, list) else value


def ticked(text: str) -> Markup:
    """A sentence of ours, in which what stands between backticks is code."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts))


FILTERS: dict[str, Any] = {
    "count": count,
    "number": number,
    "figure": figure,
    "share": share,
    "size": size,
    "duration": duration,
    "money": money,
    "when": when,
    "exact": exact,
    "written": written,
    "ticked": ticked,
    "short": short,
}
