"""What is stored, for people and dashboards: status and history."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from pipelines.content.chunks import HASH
from pipelines.content.diff import diff_rows
from storage.collection import Collection
from storage.history.built import Built, find_built
from storage.history.catalog import Publication, is_there, publications
from storage.history.decisions import find_pin
from storage.history.declaration import declaration
from storage.history.evaluations import Evaluation, evaluations
from storage.history.ledger import newest_first, newest_run, runs
from storage.store.lance import table_meta
from storage.store.spill import Spill, by_hash, matched
from storage.tables.chunk_table import ChunkTable
from storage.tables.generations import Generation, generations


def collection_status(collection: Collection) -> dict[str, Any]:
    """Generations, versions, coverage, backlog, dead letters and the last run of one collection."""
    history = publications(collection)
    publication = history[-1] if history else None
    known = [_generation(generation, publication) for generation in generations(collection)]
    shown = next((entry for entry in known if publication and entry["name"] == publication.generation), known[-1] if known else {})
    last = last_run(collection)
    return {
        "name": collection.name,
        "published": {
            "generation": publication.generation,
            "version": publication.version,
            "space": publication.space,
            "at": publication.at,
            "chunks": publication.chunks,
            "gone": not is_there(collection.store, publication),
        }
        if publication
        else None,
        "pin": find_pin(collection, history),
        "generations": known,
        "chunks": shown.get("chunks", 0),
        "vectors": shown.get("vectors", 0),
        "backlog": shown.get("backlog", 0),
        "failed": last.get("failed") if last else None,
        "dead_letters": last.get("dead_letters", publication.dead_letters if publication else 0) if last else 0,
        "last_run": last,
    }


def _generation(generation: Generation, publication: Publication | None) -> dict[str, Any]:
    collection = generation.collection
    dataset = collection.store.open(generation.name)
    meta = table_meta(dataset)
    table = ChunkTable(collection, meta["chunking"])
    chunk_version = table.version
    built = find_built(collection, generation.name)
    finished = built is not None and (built.publication.version, built.publication.chunk_version) == (dataset.version, chunk_version)
    newest = declaration(collection)
    state = state_of(generation, publication, built, finished, kept=newest is None or generation.name in newest.live)
    settled = state == "superseded" or (finished and built is not None and not built.publication.dead_letters)
    backlog, stale = (0, 0) if settled else _lag(table.desired(chunk_version), generation.embedded(dataset.version))
    return {
        "name": generation.name,
        "version": dataset.version,
        "model": meta["model"]["name"],
        "space": meta["space"]["id"],
        "dimension": meta["space"]["dimension"],
        "chunks": table.count(chunk_version),
        "vectors": dataset.count_rows(),
        "state": state,
        "backlog": backlog,
        "stale": stale,
        "index": [index.index_type for index in dataset.describe_indices()],
    }


def state_of(generation: Generation, publication: Publication | None, built: Built | None, finished: bool, kept: bool) -> str:
    """`published`; `built` or `gates failed`: finished beside it; `superseded`: not kept current; `unfinished`: a run is in it, or was."""
    if publication is not None and publication.generation == generation.name:
        return "published"
    if not kept:
        return "superseded"
    if built is None or not finished:
        return "unfinished"
    return "built" if built.passed else "gates failed"


def _lag(desired: Iterator[pa.Table], embedded: Iterator[pa.Table]) -> tuple[int, int]:
    """Counts of chunk rows without a vector, and of vectors without a chunk row."""
    pending = stale = 0
    for wanted, stored in matched(_hashes(desired), _hashes(embedded)):
        difference = diff_rows(wanted, stored)
        pending, stale = pending + len(difference.pending), stale + len(difference.stale)
    return pending, stale


def _hashes(rows: Iterator[pa.Table]) -> Spill:
    spill = Spill(pa.schema([("row_hash", HASH)]), by_hash("row_hash"))
    for part in rows:
        spill.add(part)
    return spill


def last_run(collection: Collection) -> dict[str, Any] | None:
    """The record of the newest run, finished or not."""
    run = newest_run(collection)  # by the fence: ids are of whoever submits, and clocks differ
    return _short(run.read("intent.json") or {"run_id": run.run_id}, run.read("result.json")) if run else None


def history(collection: Collection) -> dict[str, Any]:
    """Published versions, all runs with what they cost, and what versions were judged by; oldest first."""
    listed = [_short(run.read("intent.json") or {"run_id": run.run_id}, run.read("result.json")) for run in runs(collection)]
    judged = [_judged(evaluation) for evaluation in evaluations(collection)]
    return {
        "collection": collection.name,
        "published": [asdict(row) | {"gone": not row.removed and not is_there(collection.store, row)} for row in publications(collection)],
        "runs": listed,
        "evaluations": judged,
    }


def _judged(made: Evaluation) -> dict[str, Any]:
    return {
        "id": made.id,
        "at": made.at,
        "generation": made.generation,
        "version": made.version,
        "run_id": made.run_id,
        "passed": made.passed,
        "values": {gate.name: gate.value for gate in made.gates},
        "failed": [gate.name for gate in made.gates if not gate.passed],
    }


def _short(intent: dict[str, Any], result: dict[str, Any] | None) -> dict[str, Any]:
    wanted = (
        "status",
        "version",
        "documents",
        "chunks",
        "embed",
        "reuse",
        "unread",
        "dead_letters",
        "failed",
        "seconds",
        "tokens_per_second",
        "cost",
        "nodes",
        "error",
        "reason",
    )
    outcome = {name: result[name] for name in wanted if name in result} if result else {"status": "unfinished"}
    return {
        "run_id": intent["run_id"],
        "began": intent.get("at"),
        "ended": result.get("at") if result else None,
        "who": intent.get("who"),
        "environment": intent.get("environment"),
        "change": intent.get("change"),
        **outcome,
    }


def dead_letters(collection: Collection) -> list[dict[str, Any]]:
    """The letters of the newest run that ended, at most as many as a record keeps."""
    for run in newest_first(collection):
        result = run.read("result.json")
        if result and "dead" in result:
            return list(result["dead"])
    return []
