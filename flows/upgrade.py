"""The flow that tries another model: builds its generation, judges it, and promotes it or leaves that to a person."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.evaluate import PUBLISHED, headline, judge
from flows.flow_run.child import Done, follow
from flows.flow_run.flow_job import HOOKS, Job, attend, failed, turn
from flows.flow_run.parameters import CandidateModel, Collection, ConfigFile, StoreUri
from flows.show import artifacts
from flows.show.words import short
from flows.sync import bring_up, readers, tell
from pipelines.errors import SpecError
from pipelines.spec.declared import ModelSpec
from pipelines.spec.parsing import dump_spec


@flow(name="revector-upgrade", flow_run_name="upgrade {collection}", retries=0, log_prints=False, **HOOKS)
def upgrade(
    collection: Collection,
    config: ConfigFile = "revector.toml",
    store: StoreUri | None = None,
    model: CandidateModel | None = None,
    promote: bool = False,
) -> dict[str, Any]:
    """Build the generations of the spec's candidates, or of `model`, beside what readers have; judge them in full; promote if told to.

    The state is Promoted, AwaitingDecision (built, and a person's to promote), Nothing or Superseded; or failed: GateFailed, Conflict.
    The artifact `revector-<collection>-upgrade` holds what was measured beside what readers have, and says what to type. Gives
    `{collection, status, generations: [{generation, passed, gates}]}`. Raises as `sync` does, and SpecError if there is no candidate.
    """
    with attend(collection, config, store) as job, _with_candidate(job, model) as derived, turn(job) as refused:
        state: Any = refused or _Upgrade(job, derived, model, promote).perform()
        result: dict[str, Any] = state
        return result


@contextmanager
def _with_candidate(job: Job, model: ModelSpec | None) -> Iterator[str]:
    """The spec's file; if there is a model, a derived one with that candidate. Raises SpecError without any candidate."""
    if model is None:
        if not job.declared.candidates:
            raise SpecError(f"expected candidates of {job.collection} in {job.config}, or a model to try, found none")
        yield job.config
        return
    declared = job.declared.model_copy(update={"candidates": (model, *job.declared.candidates)})
    spec = job.spec.model_copy(update={"collections": {job.collection: declared}})
    with tempfile.TemporaryDirectory(prefix="revector-") as folder:
        file = Path(folder) / "revector.json"
        file.write_bytes(dump_spec(spec, job.collection))
        yield str(file)


class _Upgrade:
    """What one flow run does, in order."""

    def __init__(self, job: Job, config: str, model: ModelSpec | None, promote: bool) -> None:
        self._job = job
        self._config = config
        self._model = model
        self._promote = promote

    def perform(self) -> State[Any]:
        built = bring_up(self._job, self._config)
        if built.result is None:
            return failed(built)
        live = built if built.result["generations"] else follow(self._job.command("plan", config=self._config), lambda _: None)
        if live.result is None:
            return failed(live)
        names = self._candidates(live.result)
        if not names:
            return Completed(name="Nothing", message="what readers have is of this model already", data=self._told("nothing", []))
        if self._promote and len(names) > 1:
            raise SpecError(f"expected one candidate to promote, found {len(names)}: name its model")
        served = judge(self._job, PUBLISHED, self._config, PUBLISHED)
        judged = [judge(self._job, name, self._config, short(name)) for name in names]
        for done in (served, *judged):
            if done.result is None:
                return failed(done)
        return self._decide(served.result or {}, [done.result or {} for done in judged])

    def _candidates(self, told: Mapping[str, Any]) -> list[str]:
        """The generations to judge, of what a run or a plan tells: of the model that was asked for, or of all candidates."""
        found = [each for each in told["generations"] if each["role"] == "candidate"]
        if self._model is None:
            return [each["generation"] for each in found]
        return [each["generation"] for each in found if self._model != self._job.declared.model and each["model"] == self._model.name][:1]

    def _decide(self, served: Mapping[str, Any], judged: Sequence[dict[str, Any]]) -> State[Any]:
        rejected = [each for each in judged if not each["passed"]]
        if self._promote and not rejected:
            done = self._move(judged[0]["generation"])
            if done.result is None:
                return failed(done)
        status = "gate failed" if len(rejected) == len(judged) else "promoted" if self._promote and not rejected else "awaiting decision"
        told = "; ".join(headline(each) for each in judged)
        artifacts.show_report(self._job.key("upgrade"), _report(self._job, status, served, judged, self._model), told)
        if status == "gate failed":
            return Failed(name="GateFailed", message=told)
        name = "Promoted" if status == "promoted" else "AwaitingDecision"
        return Completed(name=name, message=told, data=self._told(status, judged))

    def _move(self, generation: str) -> Done:
        """Promote it, and tell others."""
        job = self._job
        why = f"flow run {job.flow_run.name}, which judged it in full"
        done = follow(job.command("promote", generation, f"--why={why}", config=self._config), lambda _: None)
        if done.result is not None:
            epoch = done.result["epoch"]
            tell(job, *readers(job, lambda row: row.epoch == epoch))
        return done

    def _told(self, status: str, judged: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        kept = ("generation", "version", "passed", "gates")
        return {
            "collection": self._job.collection,
            "status": status,
            "generations": [{name: each[name] for name in kept} for each in judged],
        }


def _report(job: Job, status: str, served: Mapping[str, Any], judged: Sequence[Mapping[str, Any]], model: ModelSpec | None) -> str:
    """What was measured beside what readers have, and what is left to a person."""
    parts = [f"# {job.collection}: {status}", *(artifacts.beside(served, one) for one in judged)]
    if status == "awaiting decision":
        parts.append(_to_type(job, [each for each in judged if each["passed"]], model))
    if status == "promoted" and model:
        parts.append(f"{_keep(model)} To make it the spec's own, put it as `model`; `revector rollback {job.collection}` takes it back.")
    return "\n\n".join(parts) + "\n"


def _to_type(job: Job, passed: Sequence[Mapping[str, Any]], model: ModelSpec | None) -> str:
    """The commands that a person chooses from."""
    where = f"--config {job.config}" + (f" --store {job.store}" if job.store else "")
    lines = []
    for candidate in passed:
        generation = short(candidate["generation"])
        lines += [
            f"revector compare {job.collection} published {generation} {where}",
            f"revector promote {job.collection} {generation} {where} --why '...'",
        ]
    kept = f"\n\n{_keep(model)}" if model else ""
    return "\n".join(["## To decide", "", "```sh", *lines, "```"]) + kept


def _keep(model: ModelSpec) -> str:
    """How a model that is not in the spec stays current."""
    told = ", ".join(f"{name} = {_toml(value)}" for name, value in model.model_dump(exclude_defaults=True, exclude_none=True).items())
    told = told or f'name = "{model.name}"'
    return f"The model is not in the spec: the next sync leaves its generation as it is. `candidates = [{{ {told} }}]` keeps it current."


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
