"""The commands as functions: what the command line calls, and scripts may.

`config`: the spec's file, else $REVECTOR_CONFIG, else revector.toml. `store`: a folder or `s3://` URI, before $REVECTOR_STORE and the
spec's. Without `name` the spec's only collection is meant. Where the store is named, those need no spec of which it is not said that they
do. All raise SpecError for a spec that is not there or not right, and StorageError for a store that fails.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import orjson

from flows.request import Config, Request
from pipelines.errors import RevectorError, SpecError
from storage.collection import Collection, collections
from storage.history import catalog, decisions
from storage.history.evaluations import Evaluation
from storage.marts.handing import Handed, hand_on, leave
from storage.marts.postgres import address_of
from storage.reading import status as standing
from storage.reading.filters import AnyOf, Condition
from storage.reading.published import compare_versions
from storage.reading.versions import PUBLISHED
from workers import search as searching
from workers.encoders.machine import PROCESSOR, Machine
from workers.judging import comparison, in_full
from workers.judging.comparison import Comparison
from workers.learning.build_bridge import BridgeResult, build_bridge
from workers.observing.telling import Plan, Report, Result, silent
from workers.planning.plan import make_plan
from workers.planning.target import Target
from workers.reports import exporting, run_reports
from workers.reports.exporting import Exported, Look
from workers.reports.run_reports import Reported, Wish
from workers.runs.apply import apply as drive
from workers.upkeep import maintaining
from workers.upkeep.steps import Upkeep


def plan(
    name: str | None = None,
    config: Config = None,
    *,
    store: str | None = None,
    allow_removal: bool = False,
    report: Report = silent,
) -> Plan:
    """What `apply` would do now. Touches nothing. Needs a spec. `allow_removal`: as of `apply`. Raises ModelError and SourceError."""
    target = _target(Request(name, config, store), allow_removal)
    made = make_plan(target, report)
    declared = target.spec.reports.kinds
    reports = declared if made.pending else run_reports.lacking(target.collection, target.spec) if declared else ()
    return replace(made, notes=[*made.notes, f"`apply` makes reports after it: {', '.join(reports)}"]) if reports else made


def apply(
    name: str | None = None,
    config: Config = None,
    *,
    store: str | None = None,
    saved: Plan | None = None,
    allow_removal: bool = False,
    report: Report = silent,
    run_id: str | None = None,
) -> Result:
    """Bring a collection up to date and publish it. Needs a spec.

    `saved`: a plan that must still hold, else PlanStale. `allow_removal`: however many documents go, and if no file is found any more;
    else `gates.max_removed` and SourceMissing are in the way. `run_id`: of whoever submits the run; None: a new one. Raises Conflict while
    another run has the collection, ModelError, SourceError and WorkerError; what was committed until then is kept.
    """
    return drive(_target(Request(name, config, store), allow_removal), saved, report, run_id)


def _target(request: Request, allow_removal: bool) -> Target:
    return request.target.allowing_removal() if allow_removal else request.target


def save_plan(plan: Plan, file: str | PathLike[str]) -> None:
    """Keep a plan for `apply --plan`."""
    Path(file).write_bytes(orjson.dumps(plan, option=orjson.OPT_INDENT_2))


def load_plan(file: str | PathLike[str]) -> Plan:
    """A plan that `save_plan` kept. Raises SpecError if it is none."""
    try:
        return Plan(**orjson.loads(Path(file).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise SpecError(f"expected a plan in {file} (`revector plan --out {file}` writes one), found {type(error).__name__}") from None


def status(name: str | None = None, config: Config = None, *, store: str | None = None) -> dict[str, Any]:
    """All collections of the spec and the store: generations, versions, coverage, backlog, dead letters, last run.

    Of one that is named also the dead letters themselves, as `letters`.
    """
    request = Request(name, config, store)
    where = request.opened
    if name is None:
        known = {str(collection): collection for collection in collections(where)}
        known |= {name: Collection(where, name) for name in request.collections}
        return {"store": where.root, "collections": [standing.collection_status(known[name]) for name in sorted(known)]}
    one = request.known
    return {"store": where.root, "collections": [standing.collection_status(one) | {"letters": standing.dead_letters(one)}]}


def search(
    name: str,
    query: str,
    config: Config = None,
    *,
    store: str | None = None,
    k: int = 10,
    where: Iterable[Condition | AnyOf | tuple[str, str]] = (),
    bridge: bool = False,
) -> list[dict[str, Any]]:
    """The nearest chunks of the published version, best first.

    `where`: conditions on fields of the metadata, or on `doc_id`, all of which must be met, and one of each `AnyOf`; a pair is a field
    and the value that it must have. `bridge`: the spec's model encodes the query, also while another's vectors are published; that needs
    a spec. Gives `[{chunk_id, doc_id, score, text, metadata}]`, score = cosine. Raises NotFound, ModelError, and SpecError for a
    condition that the table cannot be asked.
    """
    request = Request(name, config, store)
    declared = request.declared if bridge else request.collections.get(name)
    models = (declared.model, *declared.candidates) if declared else ()
    conditions = [condition if isinstance(condition, Condition | AnyOf) else Condition(*condition) for condition in where]
    machine = Machine(precision=declared.workers.precision) if declared else PROCESSOR
    return searching.search(request.stored, query, k, conditions, models, bridge, machine)


def bridge(name: str, config: Config = None, *, store: str | None = None, report: Report = silent) -> BridgeResult:
    """Learn to map queries of the spec's model into the space of what is published, for `search` with `bridge`. Needs a spec.

    Raises NotFound if nothing is published, RevectorError if too little is, ModelError.
    """
    return build_bridge(Request(name, config, store).target, report)


def history(name: str | None = None, config: Config = None, *, store: str | None = None) -> dict[str, Any]:
    """`published` versions, `runs` with what they cost, and `evaluations`, each oldest first."""
    return standing.history(Request(name, config, store).known)


def diff(name: str, a: int, b: int, config: Config = None, *, store: str | None = None) -> dict[str, Any]:
    """Documents and chunks added, removed and changed from version `a` of the vectors to `b`, with examples. Raises NotFound."""
    request = Request(name, config, store)
    rows = catalog.publications(request.stored)
    return {"collection": name, "from": a, "to": b, **compare_versions(request.opened, rows, a, b)}


def evaluate(
    name: str | None = None, generation: str = PUBLISHED, config: Config = None, *, store: str | None = None, run_id: str | None = None
) -> Evaluation:
    """Hold what readers have, or a generation, against all of its gates, and keep what they found. Needs a spec, which has the thresholds.

    `run_id`: of whoever submits it. Raises NotFound and ModelError.
    """
    return in_full.evaluate(Request(name, config, store).spec, name, generation, run_id)


def compare(name: str, a: str, b: str, config: Config = None, *, store: str | None = None) -> Comparison:
    """Measures of two generations, what they share, and the queries that changed most. Needs a spec.

    `a`, `b`: names, beginnings of their last parts, or "published". Raises NotFound and ModelError.
    """
    return comparison.compare(Request(name, config, store).spec, name, a, b)


def report(
    name: str | None = None,
    kinds: Sequence[str] = (),
    config: Config = None,
    *,
    store: str | None = None,
    wish: Wish | None = None,
    tell: Report = silent,
    run_id: str | None = None,
) -> Reported:
    """Reports of what readers have: of `kinds`, else those that the spec declares, else a map. Needs a spec, which has their options.

    What was reported before is found again, and of the rest only what is new is looked at. `wish`: another version, another one to compare
    with, or a new atlas. Raises NotFound, ModelError, and Conflict if another report is being made of the same generation.
    """
    return run_reports.report(Request(name, config, store).spec, name, kinds, wish, tell, run_id)


def export(
    name: str | None,
    to: str,
    out: str | PathLike[str],
    config: Config = None,
    *,
    store: str | None = None,
    wish: Wish | None = None,
    look: Look | None = None,
    tell: Report = silent,
) -> Exported:
    """A version for other tools: `to` is page, png, projector, atlas or parquet, `out` a file or folder that is not there yet.

    Needs a spec. Raises NotFound, and SpecError for a path that is there.
    """
    return exporting.export(Request(name, config, store).spec, name, to, Path(out), wish, look, tell)


def export_marts(
    name: str | None = None,
    config: Config = None,
    *,
    store: str | None = None,
    out: str | PathLike[str] | None = None,
    postgres: str | None = None,
) -> list[Handed]:
    """Bring the marts of a collection up to date in the store, or those of all that it has.

    `out`: a folder that is not there yet, for copies. `postgres`: the address of a database to fill, or `env:NAME` of a variable that has
    it; else that which the spec names. Raises SpecError, and StorageError for what the database says.
    """
    request = Request(name, config, store)
    folder = Path(out) if out is not None else None
    if folder and folder.exists():
        raise SpecError(f"expected a new path, found {folder}: name another, or remove it")
    known = [request.known] if name is not None else collections(request.opened)
    named = [postgres or request.marts_of(str(one)).postgres for one in known]
    addresses = [address_of(where) if where else None for where in named]
    return [hand_on(one, address, folder) for one, address in zip(known, addresses, strict=True)]


def promote(
    name: str, generation: str, config: Config = None, *, store: str | None = None, why: str = "", force: bool = False
) -> catalog.Publication:
    """Publish the newest finished state of another generation: one move of the pointer. `why`: for the history.

    Raises NotFound, and GateFailed for one that failed its gates, or is behind what readers have, unless `force`.
    """
    request = Request(name, config, store)
    made = decisions.promote(request.stored, generation, why, force)
    leave(request.stored, marts=request.marts_of(request.collection))
    return made


def rollback(
    name: str | None = None, config: Config = None, *, store: str | None = None, why: str = "", to: int | None = None
) -> catalog.Publication:
    """Publish again what was published before; again and again, it goes further back. Readers stay there until `resume` or `promote`.

    `to`: a published version instead. `why`: for the history. Raises NotFound.
    """
    request = Request(name, config, store)
    made = decisions.rollback(request.stored, why, to)
    leave(request.stored, marts=request.marts_of(request.collection))
    return made


def resume(name: str | None = None, config: Config = None, *, store: str | None = None, why: str = "") -> catalog.Publication:
    """Release a rollback: publish the newest version that passed its gates. `why`: for the history. Raises NotFound if none holds."""
    request = Request(name, config, store)
    made = decisions.resume(request.stored, why)
    leave(request.stored, marts=request.marts_of(request.collection))
    return made


def maintain(
    name: str | None = None,
    config: Config = None,
    *,
    store: str | None = None,
    erase: bool = False,
    report: Report = silent,
    run_id: str | None = None,
) -> Upkeep:
    """Compact, index, and remove what neither a kept publication nor a run needs. Needs a spec, which has the retention.

    `erase`: leave no byte of what is not in the corpus. Raises Conflict while a run has the collection.
    """
    request = Request(name, config, store)
    if erase:
        return maintaining.erase(request.target, report, run_id)
    return maintaining.maintain(request.stored, request.declared.retention, request.chunk_table, report, run_id, request.declared.marts)


def drop(
    name: str, generation: str, config: Config = None, *, store: str | None = None, force: bool = False, report: Report = silent
) -> Upkeep:
    """Remove a generation. Needs a spec. Raises SpecError if readers have it, or if the spec declares it, unless `force`."""
    return maintaining.drop(Request(name, config, store).target, generation, force, report)


def init(file: str | PathLike[str]) -> Path:
    """Write a commented spec. Raises RevectorError if there is one."""
    path = Path(file)
    template = Path(__file__).with_name("template.toml").read_bytes()
    try:
        with path.open("xb") as out:
            out.write(template)
    except FileExistsError:
        raise RevectorError(f"expected no file at {path}, found one: it was left as it is") from None
    return path
