"""What is said of a run, a version or a sum alike wherever it is shown: on a terminal, in an artifact of Prefect, in the demo."""

from collections.abc import Mapping, Sequence

_OUTCOMES = {
    "published": "published",
    "partial": "published, with dead letters",
    "built": "built, not published",
    "pinned": "built, and kept from readers by a rollback",
    "nothing": "published before",
}


def outcome(status: str, number: int | None, generation: str) -> str:
    """How an `apply` ended that had something to do, or found a version that had only to be published."""
    return f"{_OUTCOMES[status]}: {version(number, generation)}"


def version(number: int | None, generation: str) -> str:
    return f"version {number} of {generation}"


def short(generation: str) -> str:
    """The part of a generation's name that a person types."""
    return generation.rpartition(".")[2]


def counts(values: Mapping[str, int], names: Sequence[str] | None = None) -> str:
    """`20 added, 0 removed`: of all `values`, or of those named."""
    return ", ".join(f"{values[name]:,} {name}" for name in names or values)


def documents(values: Mapping[str, int], failed: Mapping[str, int]) -> str:
    """`20 added, 0 changed, 0 removed, 5 unchanged`, and those that are stale, if any are."""
    stale = failed.get("stale", 0)
    told = counts(values, ("added", "changed", "removed", "unchanged"))
    return f"{told}, {stale:,} stale (in files that cannot be read)" if stale else told


def money(amount: float, currency: str) -> str:
    """To the cent; less than a unit to two digits: it may be all there is."""
    return f"{amount:,.2f} {currency}" if amount >= 1 else f"{amount:.2g} {currency}"


def measured(value: float | None, unknown: str = "-") -> str:
    """A value or a limit of a gate: whole numbers whole, others to three digits behind the point."""
    if value is None:
        return unknown
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3f}"


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def one_line(text: str, width: int) -> str:
    """The beginning of a text. Without control characters: a document must not steer the terminal."""
    joined = " · ".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    shown = "".join(letter for letter in joined if letter.isprintable())
    return shown if len(shown) <= width else shown[: width - 1] + "…"
