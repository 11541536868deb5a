"""A command that runs on a Ray cluster as a job, and looks from here as if it ran here: progress, result, exit code, Ctrl-C.

What travels: the spec of the one collection, the command, and no credential. The cluster's own image has revector, and its nodes their own
right to the store.
"""

import logging
import re
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import orjson

from flows.show.lines import READ, Lines, Record
from flows.show.progress import progress
from pipelines.errors import SpecError, WorkerError
from pipelines.logs import LOGGER
from pipelines.redaction import redact
from pipelines.spec.declared import Spec
from pipelines.spec.parsing import dump_spec
from storage.who import WHERE, new_run_id, whoami
from workers.cluster.job_access import is_loopback
from workers.cluster.jobs import Job, Jobs, Submission, connect

ATTEMPTS = 3
"""Of a run whose driver dies."""
CONFIG = "revector.json"
"""The spec, where the command runs."""
KIND = "ray job"
"""In the ledger, of a run on a cluster."""
MODELS = "/models/"
"""Where the images, or a volume, have model folders."""
STOPPED = 130
"""Exit code of a command that was stopped."""


@dataclass(frozen=True, slots=True)
class Order:
    """A command for one collection."""

    command: Literal["apply", "maintain", "evaluate", "report"]
    spec: Spec
    collection: str
    arguments: tuple[str, ...] = ()
    """Of the command line, beside those that every order has."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """That `arguments` name, relative to the folder in which the job runs."""

    def line(self, run_id: str) -> tuple[str, ...]:
        """The command line. The store is said again: the nodes' own environment goes before the file."""
        options = (f"--config={CONFIG}", f"--store={self.spec.store}", f"--run-id={run_id}", "--json")
        return ("revector", self.command, self.collection, *self.arguments, *options)


@dataclass(frozen=True, slots=True)
class Ended:
    run_id: str
    code: int
    """As the command line ends: that of the job's own command."""
    result: dict[str, Any] | None
    """None of a command that ended with an error, or was stopped."""


def submit(order: Order, jobs: Jobs, first: str, attempt: int = 1) -> bool:
    """Start it as a job of the id `attempt_id`; False if there is one already."""
    run_id = attempt_id(first, attempt)
    where = {"kind": KIND, "cluster": jobs.address, "submission": run_id}
    who = f"{whoami()}@{socket.gethostname()}"
    return jobs.submit(
        Submission(
            id=run_id,
            command=order.line(run_id),
            files={CONFIG: dump_spec(order.spec, order.collection), **order.files},
            environment={**READ, WHERE: orjson.dumps(where).decode()},
            metadata={"collection": order.collection, "command": order.command, "run": first, "attempt": str(attempt), "who": who},
        )
    )


def perform(order: Order, cluster: str, run_id: str | None, say: Callable[[str], None]) -> Ended:
    """Run it to its end, following it on stderr; a driver that dies is replaced by another attempt, which goes on where it was.

    `say` is told what a person should know. Interrupted, it stops the job, waits until it has stopped, and raises KeyboardInterrupt.
    Raises SpecError for places that the cluster's nodes cannot have, WorkerError for a cluster that cannot be used, and a driver that
    cannot be kept alive.
    """
    jobs = _connect(order, cluster, say)
    first = run_id or new_run_id()
    for attempt in range(1, ATTEMPTS + 1):
        id = attempt_id(first, attempt)
        try:
            new = submit(order, jobs, first, attempt)
            say(f"run {id} {'begins' if new else 'goes on'} on {jobs.address}; Ctrl-C stops it, --detach would leave it there")
            job, result = follow(jobs, id)
        except KeyboardInterrupt:
            say(f"stopping run {id} ...")
            jobs.stop(id)
            raise
        if job is not None and not job.lost:
            return ended(job, result)
        if attempt < ATTEMPTS:
            say(f"the driver of run {id} died ({_death(job)}): going on with another")
    raise WorkerError(f"expected a driver that lives, found that {ATTEMPTS} died one after another ({_death(job)}): is its node too small?")


def detach(order: Order, cluster: str, run_id: str | None, say: Callable[[str], None]) -> str:
    """Start it, and leave it there: nobody replaces a driver that dies. Gives its id. Raises WorkerError as `perform` does."""
    jobs = _connect(order, cluster, say)
    id = run_id or new_run_id()
    submit(order, jobs, id)
    return id


def _connect(order: Order, cluster: str, say: Callable[[str], None]) -> Jobs:
    if not is_loopback(cluster):
        refuse_local(order.spec, order.collection, f"the cluster at {cluster}")
    jobs = connect(cluster)
    here, there = jobs.versions
    if here != there:
        say(f"note: Ray is {here} here and {there} on {jobs.address}: install the same if the job is not taken")
    return jobs


def attempt_id(first: str, attempt: int) -> str:
    """The id of the next attempts of a run whose first one has the id `first`."""
    return first if attempt == 1 else f"{first}-{attempt}"


def follow(jobs: Jobs, id: str) -> tuple[Job | None, dict[str, Any] | None]:
    """Show a job's progress and log on stderr until it has ended. Gives the job, None if the cluster forgot it, and what it put out."""
    with progress() as report:
        lines = Lines(report, _relay, _write)
        return jobs.follow(id, lines), lines.result


def _relay(record: Record) -> None:
    """Log what was logged there, as if it had been here."""
    about = {"at", "level", "event"}
    level = logging.getLevelNamesMapping().get(record["level"].upper(), logging.INFO)
    common = {"name": LOGGER.name, "levelno": level, "levelname": record["level"].upper(), "msg": record["event"]}
    created = datetime.fromisoformat(record["at"]).timestamp()
    fields = {name: value for name, value in record.items() if name not in about}
    if LOGGER.isEnabledFor(level):
        LOGGER.handle(logging.makeLogRecord({**common, "created": created, "fields": fields}))


_OF_RAY = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+\s+INFO .+ -- |Running entrypoint for job ")
"""How Ray says that it does what it was asked to."""


def _write(text: str) -> None:
    if not _OF_RAY.match(text):
        sys.stderr.write(redact(text) + "\n")
        sys.stderr.flush()


def ended(job: Job, result: dict[str, Any] | None) -> Ended:
    """How a job ended that was not lost. Raises WorkerError if its command was not even started."""
    if job.state == "STOPPED":
        return Ended(job.id, STOPPED, None)
    if job.exit_code is None:
        raise WorkerError(f"expected the cluster to start job {job.id}, found {job.error}: {redact(' '.join(job.message.split()))[:500]}")
    if job.exit_code in _NO_COMMAND:
        raise WorkerError(f"expected revector on the cluster's head, found no such command (exit code {job.exit_code}): look at its image")
    return Ended(job.id, job.exit_code, result)


_NO_COMMAND = (126, 127)
"""What a shell says of a command that it does not find, or may not run."""


def refuse_local(spec: Spec, collection: str, where: str) -> None:
    """Raise SpecError if the spec names places of this machine, which `where` does not have."""
    declared = spec.collections[collection]
    places = {"store": spec.store, "source.uri": declared.source.uri, "gates.queries": declared.gates.queries or "s3://"}
    for kind in declared.reports.kinds:
        options = declared.reports.options(kind)
        places |= {f"reports.{kind}.{key}": uri for key in options.files if (uri := getattr(options, key))}
    local = [f"{key} = {place}" for key, place in places.items() if "://" not in place]
    models = {"model": declared.model, **{f"candidates.{number}": model for number, model in enumerate(declared.candidates)}}
    local += [f"{key}.name = {model.name}" for key, model in models.items() if _is_here(model.name)]
    if local:
        raise SpecError(f"expected s3:// places for {where}, found paths of this machine: {', '.join(local)}")


def _is_here(model: str) -> bool:
    return model.startswith("/") and not model.startswith(MODELS)


def _death(job: Job | None) -> str:
    if job is None:
        return "the cluster has forgotten it"
    return f"exit code {job.exit_code}" if job.exit_code is not None else str(job.error)
