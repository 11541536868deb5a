"""Rows of judgements: gates that versions were held against, and figures of reports."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from storage.collection import Collection
from storage.history.evaluations import Evaluation, evaluations
from storage.marts.run_rows import Row, at
from storage.reports.kept_reports import KeptReport, reported_generations, reported_versions, reports_of

KEPT_ROWS = 100_000
"""Of a collection, the newest."""


def new_gates(collection: Collection, known: pa.Table) -> list[Row]:
    """Of judgements on record that are not in the mart `known`, oldest first."""
    made = evaluations(collection, set(pc.unique(known["evaluation_id"]).to_pylist()))
    return [row for evaluation in made for row in _gate_rows(evaluation)]


def _gate_rows(made: Evaluation) -> Iterator[Row]:
    for gate in made.gates:
        yield {
            "collection": made.collection,
            "evaluation_id": made.id,
            "gate": gate.name,
            "run_id": made.run_id,
            "generation": made.generation,
            "version": made.version,
            "judged_at": at(made.at),
            "who": made.who,
            "kind": gate.kind,
            "value": gate.value,
            "threshold": gate.threshold,
            "passed": gate.passed,
            "detail": gate.detail,
            "failing_rows": len(gate.rows),
        }


def new_figures(collection: Collection, known: pa.Table) -> list[Row]:
    """Of reports on record that are not in the mart `known`."""
    there = {*zip(*(known[name].to_pylist() for name in ("generation", "version", "kind", "identity")), strict=True)}
    reports = (
        report
        for generation in reported_generations(collection)
        for version in reported_versions(collection, generation)
        for report in reports_of(collection, generation, version, but={key[2:] for key in there if key[:2] == (generation, version)})
    )
    return [row for report in reports for row in _figures(report)]


def _figures(report: KeptReport) -> Iterator[Row]:
    """Of its gates, and all other plain numbers that it sums up."""
    common = {
        "collection": report.collection,
        "generation": report.generation,
        "version": report.version,
        "kind": report.kind,
        "identity": report.identity,
        "reported_at": at(report.at),
        "who": report.who,
        "run_id": report.run_id,
        "seconds": report.seconds,
    }
    for gate in report.gates:
        yield {**common, "measure": gate.name, "value": gate.value, "threshold": gate.threshold, "passed": gate.passed}
    held = {gate.name for gate in report.gates}
    for name, value in report.summary.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in held:
            yield {**common, "measure": name, "value": float(value), "threshold": None, "passed": True}
