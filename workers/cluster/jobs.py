"""Ray's Jobs API: commands that a cluster runs by itself, and that go on when whoever submitted them does not.

A submission id is taken once: submitting the same again finds what is there.
"""

import logging
import os
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import requests

from pipelines.errors import SpecError, WorkerError
from workers.cluster.job_access import ANSWER_SECONDS, Admission, admission, refused
from workers.cluster.job_log import Tail

AWAY_SECONDS = 300.0
"""That the Jobs API may be away, while a job goes on: a head node that is replaced takes a minute or two."""
POLL_SECONDS = 0.5
"""Between two looks at a job."""
STOP_SECONDS = 7
"""That a job which is stopped has to end its actors and write its record, before Ray kills it."""
SUBMIT_SECONDS = 120.0
"""For the cluster to take a job: one that has just started, or is very busy, has nobody yet who does."""
OURS = {"revector": "1"}
"""In the metadata of each job."""

JobState = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]


@dataclass(frozen=True, slots=True)
class Submission:
    """A command to be run as a job of a cluster, which takes an id only once."""

    id: str
    """Of the job, and of the run."""
    command: tuple[str, ...]
    """As the cluster's image finds it."""
    files: Mapping[str, bytes]
    """In the folder that it runs in, by name."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """No secrets: everybody who sees the job sees these."""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the cluster knows it at this moment."""

    id: str
    state: JobState
    exit_code: int | None
    """Of its driver; None before its end, and if the cluster does not know. The number of a signal, negative."""
    metadata: Mapping[str, str]
    error: str | None
    """Ray's kind of error, if it failed."""
    message: str
    """Ray's, for a person."""

    @property
    def ended(self) -> bool:
        return self.state in ("STOPPED", "SUCCEEDED", "FAILED")

    @property
    def lost(self) -> bool:
        """Whether its driver died, by a signal or with its node, rather than ended by itself."""
        if self.state != "FAILED":
            return False
        if self.exit_code is None:
            return self.error in _DEATHS
        return self.exit_code < 0 or (self.exit_code > _BY_SIGNAL and self.exit_code != _INTERRUPTED)


_DEATHS = ("JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE", "JOB_SUPERVISOR_ACTOR_START_FAILURE")
"""How Ray tells that the node, or the process beside the driver, is gone."""
_BY_SIGNAL = 128
_INTERRUPTED = 130
"""How the command line ends when it is asked to."""


class Jobs:
    """The jobs of one cluster. Every question waits for a cluster that is away for a while; WorkerError if it stays away."""

    def __init__(self, client: Any, address: str, versions: tuple[str, str]) -> None:
        self._client = client
        self.address = address
        self.versions = versions
        """Of Ray: here, and on the cluster."""
        self._failures = (RuntimeError, requests.ConnectionError, requests.Timeout)

    def submit(self, submission: Submission) -> bool:
        """Start a job; False if there was one of that id already: a reply that was lost, or another who submitted the same.

        Raises WorkerError if the cluster refuses it, SpecError if the id is that of a job of another collection.
        """
        deadline = time.monotonic() + SUBMIT_SECONDS
        while True:
            try:
                self._send(submission)
                return True
            except self._failures as error:
                why, final = _last_line(str(error)), 0 < _status(error) < 500 or time.monotonic() > deadline
            known = self.find(submission.id)  # waits for a cluster that is away, and knows whether it came through
            if known is not None:
                break
            if final:
                raise WorkerError(f"expected {self.address} to take job {submission.id}, found {why}")
            time.sleep(1.0)
        if known.metadata.get("collection") != submission.metadata["collection"]:
            raise SpecError(f"expected {known.id} to be free on {self.address}, found a job of something else: take another id")
        return False

    def _send(self, submission: Submission) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, data in submission.files.items():
                (Path(folder) / name).write_bytes(data)
            self._client.submit_job(
                # `exec`: the driver's own exit code and signals, not those of a shell around it
                entrypoint=f"exec {shlex.join(submission.command)}",
                submission_id=submission.id,
                runtime_env={"working_dir": folder, "env_vars": {**submission.environment, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}},
                metadata={**submission.metadata, **OURS},
            )

    def find(self, id: str) -> Job | None:
        """The job as it stands now; None if the cluster knows no such job."""
        details = self._ask(lambda: self._client.get_job_info(id))
        return _job(details) if details else None

    def ours(self) -> list[Job]:
        """All jobs of revector that the cluster remembers."""
        jobs = (_job(details) for details in self._ask(self._client.list_jobs) if details.submission_id)
        return [job for job in jobs if job.metadata.items() >= OURS.items()]

    def follow(self, id: str, tell: Callable[[str], None]) -> Job | None:
        """Give each line of its log to `tell`, from the first, until the job has ended. None if the cluster has forgotten it."""
        with Tail(self._client, id) as tail:
            while (job := self.find(id)) is not None and not job.ended:
                for line in tail.lines(POLL_SECONDS):
                    tell(line)
        for line in tail.rest(self._log(id) if job else ""):
            tell(line)
        return job

    def _log(self, id: str) -> str:
        """The whole log so far; empty if it went with the node that it was on."""
        return self._ask(lambda: self._client.get_job_logs(id)) or ""

    def stop(self, id: str) -> Job | None:
        """Ask it to end, and wait until it has; what it leaves behind after STOP_SECONDS is killed. None if there is no such job."""
        while (job := self.find(id)) is not None and not job.ended:
            self._ask(lambda: self._client.stop_job(id))
            deadline = time.monotonic() + STOP_SECONDS + 3.0
            while (job := self.find(id)) is not None and not job.ended and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS / 2)
        return job

    def _ask(self, request: Callable[[], Any]) -> Any:
        """What the cluster answers, None for what it does not know. Asks again while it is away; raises WorkerError after AWAY_SECONDS."""
        deadline = time.monotonic() + AWAY_SECONDS
        while True:
            try:
                return request()
            except self._failures as error:
                status = _status(error)
                if status == 404:
                    return None
                if 0 < status < 500:
                    raise WorkerError(f"expected an answer of {self.address}, found {_last_line(str(error))}") from None
                if time.monotonic() > deadline:
                    patience = f"{AWAY_SECONDS / 60:.0f} min"
                    raise WorkerError(f"expected an answer of {self.address} within {patience}, found none: jobs may go on") from None
            time.sleep(1.0)


def connect(address: str) -> Jobs:
    """The jobs of the cluster whose Jobs API is at `address`. Raises SpecError and WorkerError as `admission` does."""
    admitted = admission(address)
    import ray

    with _unset("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # they would go before the address that was asked for
        return Jobs(_client(admitted), admitted.address, (str(ray.__version__), admitted.version))


def _client(admitted: Admission) -> Any:
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging"):
        logging.getLogger(name).setLevel(logging.WARNING)  # they tell of each file that is sent
    client = JobSubmissionClient(admitted.address, headers=dict(admitted.headers))
    request = client._do_request

    def within_time(*arguments: Any, **options: Any) -> Any:
        try:
            return request(*arguments, timeout=ANSWER_SECONDS, **options)
        except AuthenticationError:
            raise refused(admitted.address) from None

    client._do_request = within_time  # Ray's own waits for ever
    return client


@contextmanager
def _unset(*names: str) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _job(details: Any) -> Job:
    state: JobState = details.status.value
    outcome = (details.driver_exit_code, details.metadata or {}, details.error_type, details.message or "")
    return Job(details.submission_id, state, *outcome)


def _status(error: Exception) -> int:
    """The HTTP status, which Ray's client keeps in the text of its error only; 0 if it has none."""
    match = re.match(r"Request failed with status code (\d+)", str(error))
    return int(match[1]) if match else 0


def _last_line(text: str) -> str:
    """What a traceback that a server sent is about, in at most 300 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" .")]
    return lines[-1][:300] if lines else "nothing"
