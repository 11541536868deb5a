"""Rows of runs: what each did and took, stage by stage, what it could not do, and what a day cost."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from storage.collection import Collection
from storage.history.ledger import BROKEN_OFF, Run, runs

Row = dict[str, Any]

KEPT_RUNS = 10_000
"""Of a collection, the newest: their records go sooner."""
UNSETTLED = 20
"""Of the newest runs those that had left no result are looked at again."""
UNFINISHED = "unfinished"
HOUR = 3600.0


def new_runs(collection: Collection, known: pa.Table) -> list[tuple[Row, list[Row]]]:
    """Runs on record that are not in the mart `known`, or had not ended then: the row of each, and its stages."""
    told = list(zip(known["run_id"].to_pylist(), known["status"].to_pylist(), strict=True))
    settled = {run_id for place, (run_id, status) in enumerate(told) if status != UNFINISHED or place < len(told) - UNSETTLED}
    return [rows for run in runs(collection) if run.run_id not in settled for rows in _rows(run)]


def _rows(run: Run) -> list[tuple[Row, list[Row]]]:
    """None of a run that has left nothing: it never got the right to commit."""
    intent, result = run.read("intent.json"), run.read("result.json")
    if intent is None and result is None:
        return []
    return [(_run_row(run, intent or {}, result), _stage_rows(run, result or {}))]


def _run_row(run: Run, intent: Mapping[str, Any], result: Mapping[str, Any] | None) -> Row:
    told = result or {}
    documents, chunks, seconds = (told.get(name) or {} for name in ("documents", "chunks", "seconds"))
    made, cost, held = told.get("generations") or [], told.get("cost") or {}, _held(told)
    embedded = [one["embed"] for one in made] or ([told["embed"]] if "embed" in told else [])
    contents, served = (sum(one[unit] for one in embedded) for unit in ("contents", "chunks"))
    reused = sum(one["reuse"]["chunks"] for one in made) if made else (told.get("reuse") or {}).get("chunks", 0)
    nodes, shared = told.get("nodes"), reused + served - contents
    return {
        "collection": run.collection.name,
        "run_id": run.run_id,
        "what": intent.get("upkeep", "apply"),
        "began": at(intent.get("at")) or began(run.run_id),
        "ended": at(told.get("at")),
        "status": told.get("status", UNFINISHED),
        "change": intent.get("change"),
        "reason": told.get("reason") or intent.get("reason"),
        "who": intent.get("who"),
        "host": (intent.get("where") or {}).get("host"),
        "generation": intent.get("generation"),
        "version": told.get("version"),
        **{f"documents_{kind}": documents.get(kind) for kind in ("added", "changed", "removed", "unchanged")},
        **{f"chunks_{kind}": chunks.get(kind) for kind in ("added", "removed")},
        "contents_embedded": contents if embedded else None,
        "chunks_written": served + reused if embedded else None,
        "chunks_reused": shared if embedded else None,
        "reused_share": shared / (served + reused) if embedded and served + reused else None,
        "tokens": sum(one["tokens"] for one in embedded) if embedded else None,
        "tokens_per_second": told.get("tokens_per_second"),
        "seconds": seconds.get("total"),
        "model_seconds": seconds.get("model"),
        "cpu_hours": sum(one["cpu_seconds"] for one in held.values()) / HOUR if held else None,
        "gpu_hours": sum(one["gpu_seconds"] for one in held.values()) / HOUR if held else None,
        "nodes": len(nodes) if nodes is not None else None,
        "gpus": sum(len(node["gpus"]) for node in nodes) if nodes is not None else None,
        "cost": cost.get("total"),
        "currency": cost.get("currency"),
        "dead_letters": told.get("dead_letters"),
        "failed_gates": sum(not gate["passed"] for one in made for gate in one["gates"]) if made else None,
        "error": told.get("error"),
        "token": intent.get("token") or told.get("token"),
    }


def _stage_rows(run: Run, result: Mapping[str, Any]) -> list[Row]:
    clock, held = (result.get("profile") or {}).get("stages") or {}, _held(result)
    costs = (result.get("cost") or {}).get("stages") or {}
    return [
        {
            "collection": run.collection.name,
            "run_id": run.run_id,
            "stage": stage,
            "place": place,
            "seconds": clock.get(stage),
            "cpu_seconds": (held.get(stage) or {}).get("cpu_seconds"),
            "gpu_seconds": (held.get(stage) or {}).get("gpu_seconds"),
            "cost": costs.get(stage),
        }
        for place, stage in enumerate(dict.fromkeys([*clock, *held]))
    ]


def _held(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return dict((result.get("profile") or {}).get("held") or {})


def letter_rows(collection: Collection, ended: Mapping[str, Any], known: Iterable[Mapping[str, Any]]) -> list[Row] | None:
    """What the run of the row `ended` could not use. None if it does not tell. `known`: those of the run before."""
    result = Run(collection, ended["run_id"]).read("result.json") or {}
    if "dead" not in result:
        return None
    first_seen = {_letter(row): row["first_seen"] for row in known}
    rows = {_letter(row): row for row in (_letter_row(collection, ended, letter) for letter in result["dead"])}
    return [{**row, "first_seen": first_seen.get(letter, row["first_seen"])} for letter, row in rows.items()]


def _letter(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["stage"], row["file"], row["id"]


def _letter_row(collection: Collection, run: Mapping[str, Any], letter: Mapping[str, Any]) -> Row:
    return {
        "collection": collection.name,
        **{name: letter[name] for name in ("stage", "file", "id", "reason")},
        "inputs": letter.get("count", 1),
        "run_id": run["run_id"],
        "first_seen": run["ended"],
    }


def cost_rows(collection: Collection, runs: pa.Table) -> list[Row]:
    """What the runs of each day took."""
    rows = runs.select(["began", "status", "cost", "currency", *_ADDED]).to_pylist()
    days: dict[tuple[Any, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["began"]:
            days[row["began"].astimezone(UTC).date(), row["currency"] or ""].append(row)
    return [
        {
            "collection": collection.name,
            "day": day,
            "currency": currency,
            "runs": len(group),
            "failed": sum(row["status"] in BROKEN_OFF for row in group),
            "cost": sum(row["cost"] or 0.0 for row in group) if currency else None,
            **{name: sum(row[name] or 0 for row in group) for name in _ADDED},
        }
        for (day, currency), group in sorted(days.items())
    ]


_ADDED = ("cpu_hours", "gpu_hours", "tokens", "contents_embedded", "chunks_reused", "seconds")


def at(text: str | None) -> datetime | None:
    """A time of a record, ISO 8601."""
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def began(run_id: str) -> datetime | None:
    """When a run began, by its id; None where that is of whoever submitted it."""
    try:
        return datetime.strptime(run_id.partition("-")[0], "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)
    except ValueError:
        return None
