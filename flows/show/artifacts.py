"""What a person sees of a flow run: progress, tables, a report. A server that is away for a while must not end a run of hours."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.show.lines import Record
from flows.show.progress import describe
from flows.show.words import counts, documents, measured, money, outcome, short, version
from workers.observing.telling import Progress

if TYPE_CHECKING:
    from storage.history.catalog import Publication


UPDATE_SECONDS = 1.0
"""Between two updates of the progress artifact."""
Rows = list[dict[str, Any]]


class ProgressArtifact:
    """How far a run is."""

    def __init__(self, key: str, text: str = "starting") -> None:
        made = create_progress_artifact(0.0, key, text)
        assert isinstance(made, UUID)
        self._id = made
        self._updated = 0.0

    def __call__(self, moment: Progress) -> None:
        """Show a moment, if the last one is a second ago."""
        if time.monotonic() - self._updated >= UPDATE_SECONDS:
            self.show(100.0 * moment.chunks / moment.total if moment.total else 0.0, describe(moment))
            self._updated = time.monotonic()

    def show(self, percent: float, text: str) -> None:
        with suppress(httpx.HTTPError):
            update_progress_artifact(self._id, percent, text)


class PlanTable:
    """What a run found to do, before the first forward pass: of the corpus, and of each generation."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._rows: Rows = []

    def __call__(self, record: Record) -> None:
        """Show what an event of its log adds."""
        match record["event"]:
            case "corpus read":
                about, names = record["table"], [name for name in record if name.startswith(("documents_", "chunks_"))]
            case "work found":
                about, names = record["generation"], ["forward_passes", "chunks", "reused", "removed"]
            case _:
                return
        self._rows.append({"of": about, "to do": counts({name.replace("_", " "): record[name] for name in names})})
        show_table(self._key, self._rows, "what there is to do")


def show_table(key: str, rows: Rows, text: str) -> None:
    with suppress(httpx.HTTPError):
        create_table_artifact(rows, key, text)


def show_report(key: str, markdown: str, text: str) -> None:
    with suppress(httpx.HTTPError):
        create_markdown_artifact(markdown, key, text)


def show_link(key: str, address: str, text: str) -> None:
    """A link to what was published: of a folder or a bucket."""
    with suppress(httpx.HTTPError):
        create_link_artifact(address if "://" in address else f"file://{address}", text, key)


def headline(result: Mapping[str, Any]) -> str:
    """What a run did, in one sentence."""
    name, status, dead = result["collection"], result["status"], result["dead_letters"]
    pinned = f"; {result['notes'][0]}" if result.get("pin") else ""
    if status == "nothing":
        return f"{name} is current: nothing to do{pinned}"
    more = {"built": f": {result['reason']}", "partial": f" ({dead:,})"}.get(status, "")
    return f"{name} {outcome(status, result['version'], result['generation'])}{more}{pinned}"


def result_table(result: Mapping[str, Any]) -> Rows:
    """A row for each measure of a run: what there was to do, then what it took."""
    embed, seconds, cost = result["embed"], result["seconds"], result.get("cost")
    rows = {
        "change": result["change"],
        "documents": documents(result["documents"], result["failed"]),
        "chunks": counts(result["chunks"]),
        "forward passes": embed["contents"],
        "reused": result["reuse"]["chunks"],
        "tokens": embed["tokens"],
        "seconds": round(seconds["total"], 1),
        "seconds in the model": round(seconds["model"], 1),
        "dead letters": result["dead_letters"],
        "version": result["version"],
        **({"cost": money(cost["total"], cost["currency"])} if cost else {}),
    }
    return [{"measure": measure, "value": value} for measure, value in rows.items()]


def gate_table(gates: Sequence[Mapping[str, Any]]) -> Rows:
    """A row for each check of a version."""
    return [
        {
            "check": gate["name"],
            "kind": gate["kind"],
            "value": gate["value"],
            "threshold": gate["threshold"],
            "passed": "yes" if gate["passed"] else "NO",
            "detail": gate["detail"],
        }
        for gate in gates
    ]


def failures(gates: Sequence[Mapping[str, Any]]) -> str:
    """Why a version must not be published."""
    return "; ".join(f"{gate['name']}: {gate['detail']}" for gate in gates if not gate["passed"])


def report(result: Mapping[str, Any], before: "Publication | None", after: "Publication | None") -> str:
    """A run in Markdown: what readers had and have, each generation, and what is left to a person."""
    parts = [f"# {headline(result)}", _readers(before, after), _generations(result)]
    if result["dead_letters"]:
        parts.append(
            f"## {result['dead_letters']:,} dead letters\n\nInputs that could not be embedded; the next run tries them again. "
            f"`revector status {result['collection']}` lists them with their reasons."
        )
    parts += [f"> {note}" for note in result.get("notes", [])]
    if result["status"] == "built":
        parts.append(f"Nothing was published. `revector evaluate {result['collection']} {short(result['generation'])}` tells more.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _readers(before: "Publication | None", after: "Publication | None") -> str:
    if after is None:
        return "Readers have nothing yet."
    if before == after:
        return f"Readers have what they had: {version(after.version, f'`{after.generation}`')}, {after.chunks:,} chunks."
    titles = ("readers", "generation", "version", "chunks", "dead letters", "since")
    return markdown_table(titles, [("before", *_cells(before)), ("now", *_cells(after))])


def _cells(row: "Publication | None") -> tuple[str, ...]:
    if row is None:
        return ("–",) * 5
    return f"`{row.generation}`", str(row.version), f"{row.chunks:,}", f"{row.dead_letters:,}", row.at


def _generations(result: Mapping[str, Any]) -> str:
    titles = ("generation", "model", "role", "status", "forward passes", "reused", "gates")
    return markdown_table(titles, [_built(generation) for generation in result["generations"]]) if result["generations"] else ""


def _built(generation: Mapping[str, Any]) -> tuple[str, ...]:
    named = (str(generation[name]) for name in ("generation", "model", "role", "status"))
    numbers = (generation["embed"]["contents"], generation["reuse"]["chunks"])
    return (*named, *(f"{number:,}" for number in numbers), failures(generation["gates"]) or "passed")


def beside(served: Mapping[str, Any], judged: Mapping[str, Any]) -> str:
    """Two evaluated versions in Markdown, a row for each check."""
    theirs = {gate["name"]: gate["value"] for gate in served["gates"]}
    rows = [
        (
            gate["name"],
            *(measured(value, "–") for value in (theirs.get(gate["name"]), gate["value"], gate["threshold"])),
            "yes" if gate["passed"] else "**no**",
            gate["detail"],
        )
        for gate in judged["gates"]
    ]
    new, old = (version(made["version"], f"`{made['generation']}`") for made in (judged, served))
    titles = ("check", "readers have", "candidate", "limit", "passed", "detail")
    return f"## The candidate, {new}, beside {old}\n\n{markdown_table(titles, rows)}"


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
