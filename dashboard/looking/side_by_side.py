"""Two versions beside each other: what both have for one question, and the questions that they answer most differently."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.measures.quality import overlap
from storage.reading.neighbourhoods import Hit, compare_neighbourhoods
from storage.reading.neighbours import searched
from storage.store.lance import take
from storage.tables.version import Version

QUESTIONS = 30
"""Contents that are asked for: a fixed sample, the same for the same contents."""
FIRST = 3
"""Answers of each side that are shown."""
MOST_KEPT = 50

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ranked:
    """An answer, with its rank on either side, from 1; None where it is not among the first."""

    answer: Answer
    first: int | None
    second: int | None
    first_score: float | None
    second_score: float | None

    @property
    def moved(self) -> int | None:
        """Ranks up (positive) or down from the first to the second; None if only one side has it."""
        return None if self.first is None or self.second is None else self.first - self.second


@dataclass(frozen=True, slots=True)
class Ranks:
    """What two versions answer to one question."""

    places: list[Ranked]
    """By the better of their ranks."""
    overlap: float | None
    by: str
    """What answers are the same by: "chunk_id", or "doc_id" where documents were cut in different ways."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A stored chunk, and what is nearest to it in two versions, by the vector that each has of it."""

    chunk_id: str
    text: str
    overlap: float
    first: list[Answer]
    """`chunk_id`, `score`."""
    second: list[Answer]


@dataclass(frozen=True, slots=True)
class Shifts:
    """Of a sample of stored chunks, those first that two versions answer most differently."""

    mean: float | None
    """Overlap; None if nothing could be compared."""
    by: str
    questions: list[Probe]


def rank(first: Sequence[Answer], second: Sequence[Answer], k: int, by: str) -> Ranks:
    """The answers of both sides, `chunk_id, doc_id, score ...`, each best first."""
    sides = [_once(answers, by) for answers in (first, second)]
    ranks = [{key: number for number, key in enumerate(side, 1)} for side in sides]
    places = [
        Ranked(
            sides[0].get(key) or sides[1][key],
            ranks[0].get(key),
            ranks[1].get(key),
            sides[0][key]["score"] if key in sides[0] else None,
            sides[1][key]["score"] if key in sides[1] else None,
        )
        for key in dict.fromkeys([*sides[0], *sides[1]])
    ]
    places.sort(key=lambda place: (min(place.first or k + 1, place.second or k + 1), place.first or k + 1))
    return Ranks(places, overlap(list(sides[0]), list(sides[1]), k), by)


def same_by(first: Version, second: Version) -> str:
    """What tells that two answers are the same."""
    return "chunk_id" if first.chunk_table == second.chunk_table else "doc_id"


def _once(answers: Sequence[Answer], by: str) -> dict[str, Answer]:
    """Each thing by its best answer."""
    found: dict[str, Answer] = {}
    for answer in answers:
        found.setdefault(answer[by], answer)
    return found


class Beside:
    """One for a server: comparisons that were made are kept, for versions never change. One is made at a time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], Shifts] = OrderedDict()
        self._making = threading.Lock()

    def changed(self, first: Version, second: Version) -> Shifts:
        """Takes a second at 200,000 rows, and is kept."""
        key = tuple((side.generation, side.number, side.chunk_table, side.chunk_version) for side in (first, second))
        with self._making:
            if key not in self._kept:
                self._kept[key] = _changed(first, second)
                while len(self._kept) > MOST_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


def _changed(first: Version, second: Version) -> Shifts:
    """By search as readers have it: exact comparison takes longer the more rows there are."""
    found = compare_neighbourhoods(first.vectors, second.vectors, QUESTIONS, searched)
    known = [one for one in found.neighbourhoods if one.overlap is not None]
    known.sort(key=lambda one: (one.overlap, one.address))
    asked = _named(first, [one.address for one in known], ["chunk_id", "text"])
    questions = [
        Probe(row["chunk_id"], row["text"], one.overlap or 0.0, _answers(first, one.first), _answers(second, one.second))
        for row, one in zip(asked, known, strict=True)
    ]
    return Shifts(found.mean, found.by, questions)


def _answers(version: Version, hits: Sequence[Hit]) -> list[Answer]:
    shown = hits[:FIRST]
    rows = _named(version, [hit.address for hit in shown], ["chunk_id"])
    return [{**row, "score": hit.score} for row, hit in zip(rows, shown, strict=True)]


def _named(version: Version, addresses: Sequence[int], columns: Sequence[str]) -> list[Answer]:
    if not addresses:
        return []
    rows: list[Answer] = take(version.vectors, np.array(addresses, np.uint64), columns).to_pylist()
    return rows
