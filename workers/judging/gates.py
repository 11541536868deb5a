"""The gates: what a version must show before readers get it, in the order in which they are told.

hard         the rows of its chunk table and no others, vectors that can be compared, and that the model makes again of the same texts
promotion    it finds what exact search finds, what readers found before, and what people say is right
information  nothing depends on it

A new one is a function here: of a Case, it yields what it found. One that could not look says so with `unmeasured`.
"""

from collections.abc import Callable, Iterable

from pipelines.measures.gate import Gate
from workers.judging.case import Case
from workers.judging.hard_gates import letters, recomputed, removed, rows, vectors
from workers.judging.promotion_gates import index_recall, labelled_queries, overlap
from workers.judging.report_gates import balance, bias, tasks

Measured = Callable[[Case], Iterable[Gate]]
HARD: tuple[Measured, ...] = (rows, vectors, recomputed, letters, removed)
PROMOTION: tuple[Measured, ...] = (index_recall, overlap, labelled_queries, bias, balance, tasks)
GATES = HARD + PROMOTION


def judge(case: Case) -> list[Gate]:
    """Hold a version against all of its gates. Raises SpecError for a file of labelled queries that cannot be read."""
    return [gate for measure in GATES for gate in measure(case)]
