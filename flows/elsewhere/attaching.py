"""A run that somebody else started: found again, followed, cancelled. By the store, which knows every run that has begun; a run on a
cluster also by the cluster, which has its log, and knows jobs that have not begun."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flows.elsewhere.outcome import show, show_record
from flows.elsewhere.submission import KIND, attempt_id, ended, follow
from flows.request import Request
from flows.show.lines import as_progress
from flows.show.progress import progress
from pipelines.errors import NotFound, WorkerError
from storage.collection import Collection, collections
from storage.history.heartbeat import cancel
from storage.history.ledger import Run, runs
from storage.history.watch import Sight, Watch, newest
from storage.who import whoami
from workers.cluster.jobs import Job, Jobs, connect
from workers.observing.telling import Report

LOOK_SECONDS = 0.5
LISTEN_SECONDS = 8.0
"""For a run to find that it was cancelled, and to end; a job on a cluster is stopped then."""
CANCEL_SECONDS = 120.0
"""For one to end that only it can end."""
SUCCESSOR_SECONDS = 30.0
"""For whoever follows a job whose driver died to submit the next attempt."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run that the store knows, or the cluster that it is a job of, or both."""

    run: Run
    jobs: Jobs | None
    """Where it is a job, and can be reached."""
    job: Job | None
    """As it was there at the first look."""

    @property
    def begun(self) -> bool:
        """Whether the store knows it: one with nothing to do never begins."""
        return self.run.exists("heartbeat.json")


def find(request: Request, beginning: str, cluster: str | None, say: Say) -> KnownRun:
    """The run whose id begins so; of several attempts the newest.

    `cluster`: where to look besides the store; None: where the run's record says, and for one that the store does not know, where the
    spec says. Raises NotFound; SpecError if there are several.
    """
    store = request.opened
    begun = {run.run_id: run for collection in collections(store) for run in runs(collection)}
    id = newest(begun, beginning)
    run = begun[id] if id else None
    for jobs in _clusters(request, run, cluster, say):
        if job := _newest_job(jobs, id or beginning):
            return KnownRun(Run(Collection(store, job.metadata["collection"]), job.id), jobs, job)
    if run is None:
        hint = "" if cluster else "; of a job that has not begun only its cluster knows: --cluster"
        raise NotFound(f"expected a run that begins with {beginning!r}, found none: `revector history` lists them{hint}")
    return KnownRun(run, None, None)


def _clusters(request: Request, run: Run | None, cluster: str | None, say: Say) -> Iterator[Jobs]:
    """Those on which it may be a job. One that cannot be reached ends the search, unless the store knows the run, too."""
    where = (run.read("intent.json") or {}).get("where", {}) if run else {}
    if cluster:
        yield connect(cluster)
    elif where.get("kind") == KIND:
        try:
            yield connect(where["cluster"])
        except WorkerError as error:
            say(f"note: by the store alone: {error}")
    elif run is None:
        declared = {collection.run.cluster for collection in request.collections.values() if collection.run.cluster}
        yield from map(connect, sorted(declared))


def _newest_job(jobs: Jobs, beginning: str) -> Job | None:
    known = {job.id: job for job in jobs.ours()}
    id = newest(known, beginning)
    return known[id] if id else None


def attach(known: KnownRun, json: bool, say: Say) -> int:
    """Follow a run to its end on stderr, and show its result. Gives its exit code. Raises the error that it ended with, and WorkerError
    if it died."""
    if known.jobs and known.job:
        return _attach_job(known.jobs, known.job, json, say)
    with progress() as report:
        sight = _watch(known.run, report, lambda sight: sight.state == "going on")
    intent = known.run.read("intent.json") or {}
    if sight.result is None:
        raise WorkerError(_dead(known.run, intent, sight))
    return show_record(intent, sight.result, json)


def _attach_job(jobs: Jobs, job: Job, json: bool, say: Say) -> int:
    while True:
        done, result = follow(jobs, job.id)
        if done is not None and not done.lost:
            break
        say(f"the driver of run {job.id} died: waiting for another attempt ...")
        job = _successor(jobs, job)
    end = ended(done, result)
    if end.result is not None:
        show(job.metadata["command"], end.result, json)
    return end.code


def _successor(jobs: Jobs, job: Job) -> Job:
    deadline = time.monotonic() + SUCCESSOR_SECONDS
    later = attempt_id(job.metadata["run"], int(job.metadata["attempt"]) + 1)
    while (after := jobs.find(later)) is None:
        if time.monotonic() > deadline:
            raise WorkerError(f"expected another attempt of run {job.id}, found none: {_again(job.metadata)} goes on from there")
        time.sleep(LOOK_SECONDS)
    return after


def _again(metadata: Mapping[str, str]) -> str:
    return f"`revector {metadata['command']} {metadata['collection']}`"


def _watch(run: Run, report: Report, wanted: Callable[[Sight], bool]) -> Sight:
    """Look while that is `wanted`."""
    watch, reported = Watch(run), None
    while True:
        sight = watch.look()
        if sight.progress and sight.progress != reported:
            reported = sight.progress
            report(as_progress(reported))
        if not wanted(sight):
            return sight
        time.sleep(LOOK_SECONDS)


def _dead(run: Run, intent: dict[str, Any], sight: Sight) -> str:
    where = intent.get("where", {})
    sign = "its process is gone" if sight.state == "dead" else "it gives no sign of life"
    place = f" (process {where['pid']} on {where['host']})" if "pid" in where else ""
    command = {"erase": "maintain --erase"}.get(intent.get("upkeep", "apply"), intent.get("upkeep", "apply"))
    return f"expected run {run.run_id} to go on, found that {sign}{place}: `revector {command} {run.collection}` goes on from there"


def stop(known: KnownRun, say: Say) -> str:
    """Cancel a run that goes on, and wait until it has ended. Gives how, as `how` does. Raises WorkerError if it does not end."""
    if not known.begun:
        assert known.jobs and known.job
        stopped = known.jobs.stop(known.job.id)
        return "cancelled" if stopped is None or stopped.state == "STOPPED" else stopped.state.lower()
    cancel(known.run, whoami())
    say(f"asked run {known.run.run_id} to stop ...")
    return _wait(known, say)


def how(known: KnownRun) -> str | None:
    """How a run has ended: the status of its record, "dead", or the state of a job that never began it; None if it goes on."""
    if not known.begun:
        return known.job.state.lower() if known.job and known.job.ended else None
    sight = Watch(known.run).look()
    return None if sight.state == "going on" else _status(sight)


def _wait(known: KnownRun, say: Say) -> str:
    began = time.monotonic()

    def within(seconds: float) -> Callable[[Sight], bool]:
        return lambda sight: sight.state == "going on" and time.monotonic() - began < seconds

    with progress() as report:
        sight = _watch(known.run, report, within(LISTEN_SECONDS if known.jobs else CANCEL_SECONDS))
        if sight.state == "going on" and known.jobs:
            say("it does not listen: stopping its job ...")
            known.jobs.stop(known.run.run_id)
            sight = Watch(known.run).look()
            return _status(sight) if sight.result else "cancelled"
    if sight.state == "going on":
        raise WorkerError(f"expected run {known.run.run_id} to end within {CANCEL_SECONDS:.0f} s, found it going on: end its process")
    return _status(sight)


def _status(sight: Sight) -> str:
    return str(sight.result["status"]) if sight.result else "dead"
