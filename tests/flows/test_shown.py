"""A terminal and Prefect's artifacts say the same of a run, a version and a sum."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from flows import evaluate
from flows.show import artifacts, terminal, verdicts
from pipelines.measures.gate import Gate
from tests.conftest import Workplace
from workers.observing.costs import Cost
from workers.observing.telling import Result

STATUSES = ("published", "partial", "built", "nothing")


def result(**more: Any) -> Result:
    counted = {"added": 1200, "changed": 0, "removed": 3, "unchanged": 7}
    fields: dict[str, Any] = {
        "collection": "docs",
        "generation": "docs.vectors.1f0c2b3a9d4e",
        "space": "s",
        "change": "data",
        "documents": counted,
        "chunks": counted,
        "embed": {"contents": 1100, "chunks": 1200, "tokens": 50_000},
        "reuse": {"chunks": 100},
        "run_id": "r",
        "status": "published",
        "version": 3,
        "dead_letters": 0,
        "seconds": {"total": 10.0, "model": 8.0},
        "tokens_per_second": 5000.0,
        "cost": Cost(0.00417, {}, "EUR"),
        "gates": [Gate("dead letters", "hard", 0.5, 0.01, False, "half of them")],
        "reason": "dead letters: half of them",
    }
    return Result(**fields | more)


def on_terminal(shown: Any, capsys: pytest.CaptureFixture[str]) -> str:
    shown()
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("status", STATUSES)
def test_of_a_run(status: Any, capsys: pytest.CaptureFixture[str]) -> None:
    done = result(status=status)
    text = on_terminal(lambda: terminal.result(done), capsys)
    told = json.loads(json.dumps(asdict(done)))
    shown = {row["measure"]: row["value"] for row in artifacts.result_table(told)}
    assert shown["documents"] in text and "1,200 added, 0 changed, 3 removed, 7 unchanged" in text
    assert shown["cost"] == "0.0042 EUR" and shown["cost"] in text
    if status != "nothing":
        assert text.startswith(artifacts.headline({**told, "reason": "", "dead_letters": 0}).removesuffix(": ").removesuffix(" (0)"))


def test_of_a_verdict(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    workplace.write("a.parquet", {f"d{number}": f"text {number}" for number in range(20)})
    workplace.apply()
    made = evaluate("docs", config=workplace.config)
    text = on_terminal(lambda: verdicts.evaluation(made), capsys)
    told = {**json.loads(json.dumps(asdict(made))), "passed": made.passed}
    report = artifacts.beside(told, told)
    for row in report.splitlines()[4:]:
        _, name, value, *_ = (cell.strip() for cell in row.split("|"))
        assert f"{name} {value.replace('–', '-')}" in text
