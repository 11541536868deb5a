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
from flows.flow_run.flow_job import HOOKS, FlowJob, attend, failed, turn
from flows.flow_run.parameters import CandidateModel, CollectionName, ConfigFile, StoreUri
from flows.show import artifacts
from flows.show.words import short
from flows.sync import bring_up, readers, tell
from pipelines.errors import SpecError
from pipelines.spec.declared import ModelSpec
from pipelines.spec.parsing import dump_spec
from workers.observing.telling import silent


@flow(name="revector-upgrade", flow_run_name="upgrade {collection}", retries=0, log_prints=False, **HOOKS)
def upgrade(
    collection: CollectionName,
    config: ConfigFile = "revector.toml",
    store: StoreUri | None = None,
    model: CandidateModel | None = None,
    promote: bool = False,
) -> dict[str, Any]:
    """Build the generations of the spec's candidates, or of `model`, beside what readers have; judge them in full; promote if told to.

    The state is Promoted, AwaitingDecision (built, and a person's to promote: always so while a rollback holds), Nothing or Superseded;
    or failed: GateFailed, Conflict.
    The artifact `revector-<collection>-upgrade` holds what was measured beside what readers have, and says what to type. Gives
    `{collection, status, generations: [{generation, passed, gates}]}`. Raises as `sync` does, and SpecError if there is no candidate.
    """
    with attend(collection, config, store) as job, _with_candidate(job, model) as trial, turn(job) as refused:
        state: Any = refused or _Upgrade(job, trial, model, promote).perform()
        result: dict[str, Any] = state
        return result


@contextmanager
def _with_candidate(job: FlowJob, model: ModelSpec | None) -> Iterator[FlowJob]:
    """The job; if there is a model, by a spec with that candidate. Raises SpecError without any candidate."""
    if model is None:
        if not job.declared.candidates:
            raise SpecError(f"expected candidates of {job.collection} in {job.request.config}, or a model to try, found none")
        yield job
        return
    declared = job.declared.model_copy(update={"candidates": (model, *job.declared.candidates)})
    spec = job.request.spec.model_copy(update={"collections": {job.collection: declared}})
    with tempfile.TemporaryDirectory(prefix="revector-") as folder:
        file = Path(folder) / "revector.json"
        file.write_bytes(dump_spec(spec, job.collection))
        yield job.by(str(file))


class _Upgrade:
    """What one flow run does, in order. `trial`: the job by the spec that has the candidates."""

    def __init__(self, job: FlowJob, trial: FlowJob, model: ModelSpec | None, promote: bool) -> None:
        self._job = job
        self._trial = trial
        self._model = model
        self._promote = promote

    def perform(self) -> State[Any]:
        built = bring_up(self._trial)
        if built.result is None:
            return failed(built)
        live = built if built.result["generations"] else follow(self._trial.command("plan"), silent)
        if live.result is None:
            return failed(live)
        names = self._candidates(live.result["generations"])
        if not names:
            return Completed(name="Nothing", message="what readers have is of this model already", data=self._data("nothing", []))
        if self._promote and len(names) > 1:
            raise SpecError(f"expected one candidate to promote, found {len(names)}: name its model")
        served = judge(self._trial, PUBLISHED, PUBLISHED)
        judged = [judge(self._trial, name, short(name)) for name in names]
        for done in (served, *judged):
            if done.result is None:
                return failed(done)
        return self._decide(served.result or {}, [done.result or {} for done in judged])

    def _candidates(self, generations: Sequence[Mapping[str, Any]]) -> list[str]:
        """Those to judge, of the ones that a run or a plan names: of the model that was asked for, or of all candidates."""
        candidates = [one for one in generations if one["role"] == "candidate"]
        if self._model is None:
            return [one["generation"] for one in candidates]
        if self._model == self._job.declared.model:
            return []
        return [one["generation"] for one in candidates if one["model"] == self._model.name][:1]

    def _decide(self, served: Mapping[str, Any], judged: Sequence[dict[str, Any]]) -> State[Any]:
        rejected = [candidate for candidate in judged if not candidate["passed"]]
        promoted = self._promote and not rejected and not self._pinned()
        if promoted:
            done = self._move(judged[0]["generation"])
            if done.result is None:
                return failed(done)
        status = "gate failed" if len(rejected) == len(judged) else "promoted" if promoted else "awaiting decision"
        message = "; ".join(headline(candidate) for candidate in judged)
        artifacts.show_report(self._job.key("upgrade"), _report(self._job, status, served, judged, self._model), message)
        if status == "gate failed":
            return Failed(name="GateFailed", message=message)
        name = "Promoted" if promoted else "AwaitingDecision"
        return Completed(name=name, message=message, data=self._data(status, judged))

    def _pinned(self) -> bool:
        """What a person went back to while this went on, or before, no schedule takes from readers."""
        from storage.history.decisions import find_pin

        return find_pin(self._job.request.stored) is not None

    def _move(self, generation: str) -> Done:
        """Promote it, and tell others."""
        job = self._job
        why = f"flow run {job.flow_run.name}, which judged it in full"
        done = follow(self._trial.command("promote", generation, f"--why={why}"), silent)
        if done.result is not None:
            epoch = done.result["epoch"]
            tell(job, *readers(job, lambda row: row.epoch == epoch))
        return done

    def _data(self, status: str, judged: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        kept = ("generation", "version", "passed", "gates")
        return {
            "collection": self._job.collection,
            "status": status,
            "generations": [{name: candidate[name] for name in kept} for candidate in judged],
        }


def _report(job: FlowJob, status: str, served: Mapping[str, Any], judged: Sequence[Mapping[str, Any]], model: ModelSpec | None) -> str:
    """What was measured beside what readers have, and what is left to a person."""
    parts = [f"# {job.collection}: {status}", *(artifacts.beside(served, candidate) for candidate in judged)]
    if status == "awaiting decision":
        parts.append(_to_type(job, [candidate for candidate in judged if candidate["passed"]], model))
    if status == "promoted" and model:
        parts.append(f"{_keep(model)} To make it the spec's own, put it as `model`; `revector rollback {job.collection}` takes it back.")
    return "\n\n".join(parts) + "\n"


def _to_type(job: FlowJob, passed: Sequence[Mapping[str, Any]], model: ModelSpec | None) -> str:
    """The commands that a person chooses from."""
    request = job.request
    where = f"--config {request.config}" + (f" --store {request.store}" if request.store else "")
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
    keys = ", ".join(f"{name} = {_toml(value)}" for name, value in model.model_dump(exclude_defaults=True, exclude_none=True).items())
    keys = keys or f'name = "{model.name}"'
    return f"The model is not in the spec: the next sync leaves its generation as it is. `candidates = [{{ {keys} }}]` keeps it current."


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
