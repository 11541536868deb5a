"""The commands as functions: what the command line calls, and scripts may."""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import orjson

from pipelines.errors import ModelError, RevectorError, SpecError
from pipelines.spec.declared import Spec
from pipelines.spec.parsing import check_name, load_spec
from storage.history import catalog, promotion
from storage.history.evaluations import Evaluation
from storage.reading import status as standing
from storage.reading.filters import Condition
from storage.reading.published import compare_versions
from storage.reading.versions import PUBLISHED
from storage.store.lance import Store
from workers import search as searching
from workers.judging import comparison, in_full
from workers.judging.comparison import Comparison
from workers.learning.build_bridge import BridgeResult, build_bridge
from workers.observing.report import Plan, Report, Result, silent
from workers.planning.plan import make_plan
from workers.planning.target import Target, resolve_target
from workers.runs.apply import apply as drive
from workers.upkeep import maintaining
from workers.upkeep.steps import Upkeep

Config = str | PathLike[str] | None


def plan(name: str | None = None, config: Config = None, *, store: str | None = None, report: Report = silent) -> Plan:
    """What `apply` would do now. Touches nothing."""
    return make_plan(_target(name, config, store), report)


def apply(
    name: str | None = None,
    config: Config = None,
    *,
    store: str | None = None,
    saved: Plan | None = None,
    report: Report = silent,
    run_id: str | None = None,
) -> Result:
    """Bring a collection up to date and publish it. `run_id`: of whoever submits the run; None: a new one."""
    return drive(_target(name, config, store), saved, report, run_id)


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
    spec = load_spec(config, store)
    where = Store(spec.store)
    if name is None:
        names = sorted({*spec.collections, *standing.collections(where)})
        return {"store": spec.store, "collections": [standing.collection_status(where, each) for each in names]}
    one = spec.collection(name)[0]
    return {"store": spec.store, "collections": [standing.collection_status(where, one) | {"letters": standing.dead_letters(where, one)}]}


def search(
    name: str,
    query: str,
    config: Config = None,
    *,
    store: str | None = None,
    k: int = 10,
    where: Iterable[Condition | tuple[str, str]] = (),
    bridge: bool = False,
) -> list[dict[str, Any]]:
    """The nearest chunks of the published version, best first.

    `where`: conditions on fields of the metadata, or on `doc_id`; a pair is a field and the value that it must have. `bridge`: the
    spec's model encodes the query, also while another's vectors are published.
    """
    spec = load_spec(config, store)
    declared = spec.collection(name)[1] if bridge else spec.collections.get(name)
    models = (declared.model, *declared.candidates) if declared else ()
    conditions = [each if isinstance(each, Condition) else Condition(*each) for each in where]
    return searching.search(Store(spec.store), check_name(name), query, k, conditions, models, bridge)


def bridge(name: str, config: Config = None, *, store: str | None = None, report: Report = silent) -> BridgeResult:
    """Learn to map queries of the spec's model into the space of what is published, for `search` with `bridge`."""
    return build_bridge(_target(name, config, store), report)


def history(name: str | None = None, config: Config = None, *, store: str | None = None) -> dict[str, Any]:
    """Published versions, runs, and what they cost."""
    spec = load_spec(config, store)
    return standing.history(Store(spec.store), spec.collection(name)[0])


def diff(name: str, a: int, b: int, config: Config = None, *, store: str | None = None) -> dict[str, Any]:
    """What changed between two published versions."""
    where = _store(config, store)
    return {"collection": name, "from": a, "to": b, **compare_versions(where, catalog.publications(where, check_name(name)), a, b)}


def evaluate(
    name: str | None = None, generation: str = PUBLISHED, config: Config = None, *, store: str | None = None, run_id: str | None = None
) -> Evaluation:
    """Hold what readers have, or a generation, against all of its gates, and keep what they found. `run_id`: of whoever submits it."""
    return in_full.evaluate(load_spec(config, store), name, generation, run_id)


def compare(name: str, a: str, b: str, config: Config = None, *, store: str | None = None) -> Comparison:
    """Two generations side by side."""
    return comparison.compare(load_spec(config, store), name, a, b)


def promote(
    name: str, generation: str, config: Config = None, *, store: str | None = None, why: str = "", force: bool = False
) -> catalog.Publication:
    """Publish the newest finished state of another generation. `force`: also if it failed its gates, or is behind."""
    return promotion.promote(_store(config, store), check_name(name), generation, why, force)


def rollback(name: str | None = None, config: Config = None, *, store: str | None = None, why: str = "") -> catalog.Publication:
    """Publish again what was published before."""
    spec = load_spec(config, store)
    return catalog.rollback(Store(spec.store), spec.collection(name)[0], why)


def maintain(
    name: str | None = None,
    config: Config = None,
    *,
    store: str | None = None,
    erase: bool = False,
    report: Report = silent,
    run_id: str | None = None,
) -> Upkeep:
    """Compact, index, and remove what neither a kept publication nor a run needs. `erase`: leave no byte of what is not in the corpus."""
    if erase:
        return maintaining.erase(_target(name, config, store), report, run_id)
    spec = load_spec(config, store)
    collection, declared = spec.collection(name)
    return maintaining.maintain(Store(spec.store), collection, declared.retention, _chunk_table(spec, collection), report, run_id)


def drop(
    name: str, generation: str, config: Config = None, *, store: str | None = None, force: bool = False, report: Report = silent
) -> Upkeep:
    """Remove a generation that readers do not have."""
    return maintaining.drop(_target(name, config, store), generation, force, report)


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


def _target(name: str | None, config: Config, store: str | None) -> Target:
    return resolve_target(load_spec(config, store), name)


def _chunk_table(spec: Spec, collection: str) -> str | None:
    """The chunk table that the spec declares; None where its model, whose tokenizer may have a part in it, is not at hand."""
    try:
        return resolve_target(spec, collection).chunk_table.name
    except ModelError:
        return None


def _store(config: Config, store: str | None) -> Store:
    return Store(load_spec(config, store).store)
