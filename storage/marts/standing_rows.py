"""Rows of what there is: publications, generations, how far these are, and how a collection stands as a whole. No table is scanned."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.spec.declared import CollectionSpec, ModelSpec
from storage.collection import Collection
from storage.history.built import find_built
from storage.history.catalog import Publication
from storage.history.decisions import pinning
from storage.history.declaration import declaration
from storage.marts.run_rows import Row, at
from storage.reading.status import state_of
from storage.store.lance import table_meta
from storage.tables.chunk_table import ChunkTable
from storage.tables.generations import Generation, generations


@dataclass(frozen=True, slots=True)
class Looked:
    """What a run saw of the source when it compared that with what is stored."""

    at: datetime
    newest_source: datetime | None
    documents: int
    chunks: int
    spec: CollectionSpec
    """By which it looked."""


def version_rows(history: Iterable[Publication]) -> list[Row]:
    """Of the publications of a collection."""
    return [
        {
            **{name: getattr(row, name) for name in _SAME},
            "model": row.model_spec().get("name"),
            "restores": row.restores or None,
            "published_at": at(row.at),
            "removed_at": at(row.removed),
        }
        for row in history
    ]


_SAME = (
    *("collection", "epoch", "action", "generation", "version", "chunk_version", "space", "chunks", "dead_letters", "run_id"),
    *("who", "why"),
)


def generation_rows(collection: Collection, history: Sequence[Publication]) -> list[Row]:
    """Of the generations that the store has."""
    here = history[-1] if history else None
    return [_generation_row(generation, here) for generation in generations(collection)]


def _generation_row(generation: Generation, here: Publication | None) -> Row:
    collection = generation.collection
    dataset = collection.store.open(generation.name)
    meta = table_meta(dataset)
    table = ChunkTable(collection, meta["chunking"])
    chunk_version, rows = table.version, int(dataset.count_rows())
    built, newest = find_built(collection, generation.name), declaration(collection)
    finished = built is not None and (built.publication.version, built.publication.chunk_version) == (dataset.version, chunk_version)
    kept = newest is None or generation.name in newest.live
    chunks = table.count(chunk_version)
    indices, fragments = dataset.describe_indices(), dataset.get_fragments()
    return {
        "collection": collection.name,
        "generation": generation.name,
        "role": _role(generation.name, here, newest.declared if newest else "", kept),
        "state": state_of(generation, here, built, finished, kept),
        "model": meta["model"]["name"],
        "model_settings": settings_of(meta["model"]),
        "space": meta["space"]["id"],
        "dimension": meta["space"]["dimension"],
        "version": dataset.version,
        "chunks": chunks,
        "vectors": rows,
        "pending": max(0, chunks - rows) if finished or built is None else None,  # else rows may be of chunks that are gone
        "finished": finished,
        "passed": built.passed if built else None,
        "bytes": sum(file.file_size_bytes or 0 for fragment in fragments for file in fragment.data_files()),
        "fragments": len(fragments),
        "index_type": indices[0].index_type if indices else None,
        "unindexed_rows": rows - indices[0].num_rows_indexed if indices else None,
    }


def settings_of(model: Mapping[str, Any]) -> str | None:
    """What a model's record says besides its name, as JSON; None if all is as usual. Two models may differ in nothing else."""
    unusual = ModelSpec(**model).model_dump(exclude_defaults=True, exclude={"name"})
    return orjson.dumps(unusual).decode() if unusual else None


def _role(name: str, here: Publication | None, declared: str, kept: bool) -> str:
    if here is not None and here.generation == name:
        return "published"
    if name == declared:
        return "declared"
    return "candidate" if kept else "left"


def coverage_rows(generation_rows: Iterable[Row], newest_source: datetime | None, now: datetime) -> list[Row]:
    """How far generations are today."""
    return [
        {name: row[name] for name in ("collection", "generation", "chunks", "vectors", "pending")}
        | {"day": now.date(), "newest_source_at": newest_source}
        for row in generation_rows
        if row["role"] != "left"
    ]


@dataclass(frozen=True, slots=True)
class Known:
    """The other rows of a collection, which its own sums up."""

    history: Sequence[Publication]
    generations: Sequence[Row]
    runs: pa.Table
    """Oldest first, as the others."""
    gates: pa.Table
    figures: pa.Table


def collection_row(collection: Collection, known: Known, before: Mapping[str, Any], looked: Looked | None, now: datetime) -> Row:
    """How it stands. `before`: the row as it was, {} without one: what this look does not tell stays."""
    here = known.history[-1] if known.history else None
    told = {**before, **(_told(looked) if looked else {})}
    return {
        **told,
        "collection": collection.name,
        "as_of": now,
        **_published(here, known),
        "pinned": pinning(known.history) is not None,
        "pending": _pending(known.generations, "published"),
        "coverage": _coverage(known.generations),
        "pending_elsewhere": _pending(known.generations, "declared", "candidate"),
        "dead_letters": next((count for count in reversed(known.runs["dead_letters"].to_pylist()) if count is not None), None),
        "failed_gates": _failed_gates(known),
        "alarms": _alarms(here, known.figures),
        "waiting": sum(row["role"] == "candidate" and row["state"] == "built" for row in known.generations),
        **_last(known.runs),
        **_money(told.get("currency"), known.runs, now),
        **_last_update(known.runs),
    }


def _coverage(rows: Iterable[Row]) -> float | None:
    """Of the generation that readers have, by one and the same version."""
    known = (row for row in rows if row["role"] == "published" and row["chunks"] and row["pending"] is not None)
    return next((1 - row["pending"] / row["chunks"] for row in known), None)


def _pending(rows: Iterable[Row], *roles: str) -> int | None:
    """Together; None if it is not known of one."""
    pending = [row["pending"] for row in rows if row["role"] in roles]
    return None if None in pending else sum(pending)


def _told(looked: Looked) -> Row:
    spec = looked.spec
    return {
        "looked_at": looked.at,
        "newest_source_at": looked.newest_source,
        "documents": looked.documents,
        "chunks": looked.chunks,
        "monthly_budget": spec.prices.monthly,
        "currency": spec.prices.currency if spec.prices.monthly is not None else None,
        "schedule": spec.schedule.sync,
        "timezone": spec.schedule.timezone,
        "paused": spec.schedule.paused,
    }


def _published(here: Publication | None, known: Known) -> Row:
    if here is None:
        return dict.fromkeys(("generation", "model", "space", "version", "epoch", "published_at", "published_by", "vectors"))
    return {
        "generation": here.generation,
        "model": here.model_spec().get("name"),
        "space": here.space,
        "version": here.version,
        "epoch": here.epoch,
        "published_at": at(here.at),
        "published_by": here.who,
        "vectors": here.chunks,
    }


def _failed_gates(known: Known) -> int:
    """Of the newest judgement of each generation that is in use."""
    used = [row["generation"] for row in known.generations if row["role"] != "left"]
    judged = (known.gates.filter(pc.equal(known.gates["generation"], generation)) for generation in used)
    return sum(_failed(rows, "evaluation_id") for rows in judged)


def _failed(rows: pa.Table, of: str) -> int:
    """Those that did not pass, of the last row's judgement or report, whose id is in the column `of`."""
    return int(pc.sum(pc.invert(rows.filter(pc.equal(rows[of], rows[of][-1]))["passed"])).as_py()) if len(rows) else 0


def _alarms(here: Publication | None, figures: pa.Table) -> int:
    """Of the newest report of each kind, of what readers have."""
    if here is None:
        return 0
    own = figures.filter(pc.and_(pc.equal(figures["generation"], here.generation), pc.equal(figures["version"], here.version)))
    own = own.sort_by("reported_at")
    return sum(_failed(own.filter(pc.equal(own["kind"], kind)), "identity") for kind in pc.unique(own["kind"]).to_pylist())


def _last(runs: pa.Table) -> Row:
    names = ("run_id", "what", "status", "began", "ended", "error", "token")
    last: Row = runs.slice(len(runs) - 1).to_pylist()[0] if len(runs) else dict.fromkeys(names)
    return {f"last_{name}": last[name] for name in names[1:-1]} | {"last_run": last["run_id"], "token": last["token"]}


def _last_update(runs: pa.Table) -> Row:
    """Upkeep that went well after an update that failed has not made up for that."""
    updates = runs.filter(pc.equal(runs["what"], "apply"))
    last = updates.slice(len(updates) - 1).to_pylist()[0] if len(updates) else {}
    return {"update_run": last.get("run_id"), "update_status": last.get("status")}


def _money(currency: str | None, runs: pa.Table, now: datetime) -> Row:
    """Of this month, in the currency of the budget, else of the newest run that has one: amounts of two are never added or compared."""
    rows = runs.select(["began", "cost", "currency"]).to_pylist()
    priced = [row for row in rows if row["currency"] and row["began"] and (row["began"].year, row["began"].month) == (now.year, now.month)]
    currency = currency or (priced[-1]["currency"] if priced else None)
    own = [row["cost"] or 0.0 for row in priced if row["currency"] == currency]
    return {"month_cost": sum(own) if own else None, "currency": currency}
