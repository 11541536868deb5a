"""A run as a person sees it: one live line on a terminal, a plain line now and then elsewhere, JSON lines for a parent process."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import orjson

from flows.show.lines import JSON_LINES
from flows.show.words import duration
from workers.observing.telling import Progress, Report

PLAIN_SECONDS = 5.0


@contextmanager
def progress() -> Iterator[Report]:
    """A Report that shows itself on stderr as suits it."""
    if os.environ.get(JSON_LINES) == "json":
        yield _json_line
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _live() as report:
            yield report
    else:
        yield _PlainLines()


def describe(moment: Progress) -> str:
    """One line: what, how far, how fast, how much was reused, how long still."""
    loading = moment.stage == "embed" and not moment.tokens
    parts: list[str] = ["starting the model" if loading else moment.stage]
    if moment.total is not None:
        parts.append(f"{moment.chunks:,} of {moment.total:,} chunks")
    if moment.tokens_per_second:
        parts.append(f"{moment.tokens_per_second:,.0f} tokens/s")
    if moment.seconds_left is not None:
        parts.append(f"{duration(moment.seconds_left)} left")
    if moment.reused and moment.chunks:
        parts.append(f"{moment.reused / moment.chunks:.0%} reused")
    if moment.documents:
        parts.append(f"{moment.documents:,} documents read")
    return " · ".join(parts)


def _json_line(moment: Progress) -> None:
    sys.stderr.write(orjson.dumps({"kind": "progress", **asdict(moment)}).decode() + "\n")
    sys.stderr.flush()


class _PlainLines:
    """At most a line every few seconds, and one for each stage."""

    def __init__(self) -> None:
        self._stage = ""
        self._last = 0.0

    def __call__(self, moment: Progress) -> None:
        if moment.stage != self._stage or time.monotonic() - self._last >= PLAIN_SECONDS:
            self._stage, self._last = moment.stage, time.monotonic()
            sys.stderr.write(describe(moment) + "\n")
            sys.stderr.flush()


@contextmanager
def _live() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=10), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking at the corpus", total=None)

        def report(moment: Progress) -> None:
            bar.update(task, description=describe(moment), total=moment.total, completed=moment.chunks)

        yield report
