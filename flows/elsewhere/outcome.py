"""How a run ended, as its own command would have shown it: what it put out, and its exit code."""

from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter

from flows.elsewhere.submission import STOPPED
from flows.show import figures, terminal, verdicts
from flows.show.output import put
from pipelines import errors
from pipelines.errors import RevectorError
from storage.history.evaluations import Evaluation
from workers.observing.telling import Result
from workers.reports.run_reports import Reported
from workers.upkeep.steps import Upkeep


def show(command: str, result: dict[str, Any], json: bool, profile: bool = False) -> None:
    """On stdout: the result of `apply`, `maintain`, `evaluate` or `report`, as it was read from a job or the ledger."""
    tell: dict[str, Callable[[], None]] = {
        "apply": lambda: terminal.result(TypeAdapter(Result).validate_python(result), profile),
        "maintain": lambda: terminal.upkeep(TypeAdapter(Upkeep).validate_python(result)),
        "evaluate": lambda: verdicts.evaluation(TypeAdapter(Evaluation).validate_python(result)),
        "report": lambda: figures.reported(TypeAdapter(Reported).validate_python(result)),
    }
    put(json, result, tell[command])


def show_record(intent: dict[str, Any], record: dict[str, Any], json: bool) -> int:
    """Show the record that a run left in the ledger. Gives its exit code. Raises the error that it ended with."""
    status = record["status"]
    if status == "failed":
        raise _error(record["error"])
    if status == "cancelled":
        return STOPPED
    result = {name: value for name, value in record.items() if name not in ("at", "dead")}
    if "upkeep" in intent:
        show("maintain", result, json)
        return 0
    show("apply", result, json)
    return TypeAdapter(Result).validate_python(result).exit_code


def _error(text: str) -> RevectorError:
    """As it was raised there: of a kind that is ours, or of any other."""
    name, _, message = text.partition(": ")
    kind = getattr(errors, name, None)
    return kind(message) if isinstance(kind, type) and issubclass(kind, RevectorError) else RevectorError(text)
