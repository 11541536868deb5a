"""The Prefect flow: when a collection is brought up to date. Thin: the work, and the right to commit, are the driver's.

The driver is `revector apply` in a process of its own. The flow never starts Ray: Ray takes over SIGTERM, with which Prefect cancels.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any
from uuid import UUID

import httpx
import orjson
from prefect import flow, get_run_logger
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import State
from prefect.concurrency.asyncio import AcquireConcurrencySlotTimeoutError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.states import Completed, Failed

from flows.cli import STOP_AT_EOF
from flows.progress import JSON_LINES, describe
from pipelines.errors import RevectorError
from pipelines.redaction import redact
from pipelines.spec import load_spec
from workers.report import Progress

GRACE_SECONDS = 8.0
"""For the driver to end its actors and write its record; Prefect itself kills the flow 30 s after it asked."""
UPDATE_SECONDS = 1.0
"""Between two updates of the progress artifact."""
SLOT_SECONDS = 330.0
"""To wait for the collection's slot: the slot of a flow that was killed frees after 300."""
ENDED = (0, 3, 4)
"""Exit codes that come with a result: done, a gate failed, partial."""


@flow(name="revector-sync", flow_run_name="sync {collection}", retries=0, log_prints=False)
def sync(collection: str, config: str = "revector.toml", store: str | None = None) -> dict[str, Any]:
    """Bring a collection up to date and publish it: `revector apply` as a Prefect flow. Gives what `apply --json` does.

    The state is Published, Partial (published, with dead letters) or Nothing, all of them completed; or failed: GateFailed (built, not
    published) or Conflict (another run has the collection). Artifacts: `revector-<collection>-progress` and `revector-<collection>-result`,
    in lower case and with dashes. Raises SpecError, and RevectorError with the driver's one line. However the flow ends, the driver does
    not go on; what it committed is kept, and the next run goes on from there.
    """
    load_spec(config, store).collection(collection)
    key = f"revector-{collection.lower().replace('_', '-')}"
    try:
        with _slot(f"revector-{collection}"):
            done = _drive(_command(collection, config, store), f"{key}-progress")
    except AcquireConcurrencySlotTimeoutError:
        done = _Done(5, None, f"expected the slot of {collection} within {SLOT_SECONDS:.0f} s, found another run in progress: wait for it")
    if done.result is not None:
        create_table_artifact(_table(done.result), f"{key}-result", _headline(done.result))
    state: Any = _state(done)  # Prefect gives its data to the caller, or raises
    result: dict[str, Any] = state
    return result


@dataclass(frozen=True, slots=True)
class _Done:
    """How a driver ended."""

    code: int
    """Its exit code; the number of a signal, negative."""
    result: dict[str, Any] | None
    """What it put on stdout."""
    line: str
    """The last line on stderr that was not progress: the error, if there was one."""


@contextmanager
def _slot(name: str) -> Iterator[None]:
    """One flow at a time. A courtesy to those who wait: what guards the commits is the fence in the store."""
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)  # a limit that a person set stays as it is
        except ObjectNotFound:
            with suppress(ObjectAlreadyExists):
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
    with concurrency(name, occupy=1, timeout_seconds=SLOT_SECONDS):
        yield


def _command(collection: str, config: str, store: str | None) -> list[str]:
    command = [sys.executable, "-m", "flows.cli", "apply", collection, "--json", f"--config={config}"]
    return [*command, f"--store={store}"] if store else command


def _drive(command: list[str], key: str) -> _Done:
    """Run the driver, and show how far it is as the artifact `key`."""
    artifact = create_progress_artifact(0.0, key, "starting")
    assert isinstance(artifact, UUID)
    with TemporaryFile() as out, _process(command, out) as process:
        assert process.stderr is not None
        line = _follow(process.stderr, artifact)
        code = process.wait()
        out.seek(0)
        result = orjson.loads(out.read()) if code in ENDED else None
    if result is not None:
        _show(artifact, 100.0, _headline(result))
    return _Done(code, result, line)


@contextmanager
def _process(command: list[str], out: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    """The driver, in a session of its own; stopped, if it still runs, whichever way this is left.

    The driver's stdin is a pipe that nobody writes to: a flow that is killed cannot stop it, but the pipe closes.
    """
    environment = os.environ | {JSON_LINES: "json", STOP_AT_EOF: "1"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """SIGTERM to the driver, on which it ends its Ray. After the grace, or if interrupted again: SIGKILL to what is left of its group."""
    try:
        process.terminate()
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _follow(lines: Iterable[str], artifact: UUID) -> str:
    """Show progress and log everything else, until the driver closes its stderr. Gives the last line that was not progress."""
    log = get_run_logger()
    last, updated = "", 0.0
    for line in lines:
        moment = _moment(line)
        if moment is None:
            last = redact(line.strip())
            log.info(last)
        elif time.monotonic() - updated >= UPDATE_SECONDS:
            _show(artifact, 100.0 * moment.chunks / moment.total if moment.total else 0.0, describe(moment))
            updated = time.monotonic()
    return last.removeprefix("revector: ")


def _moment(line: str) -> Progress | None:
    try:
        told = orjson.loads(line)
        return Progress(**told) if told.pop("kind") == "progress" else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _show(artifact: UUID, percent: float, text: str) -> None:
    with suppress(httpx.HTTPError):  # a server that is away for a while must not end a run of hours
        update_progress_artifact(artifact, percent, text)


def _table(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each measure."""
    embed, seconds = result["embed"], result["seconds"]
    rows = {
        "documents": _counts(result["documents"]),
        "chunks": _counts(result["chunks"]),
        "forward passes": embed["contents"],
        "reused": result["reuse"]["chunks"],
        "tokens": embed["tokens"],
        "seconds": round(seconds["total"], 1),
        "seconds in the model": round(seconds["model"], 1),
        "dead letters": result["dead_letters"],
        "version": result["version"],
    }
    return [{"measure": measure, "value": value} for measure, value in rows.items()]


def _counts(values: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in values.items())


def _headline(result: Mapping[str, Any]) -> str:
    """One sentence, in Markdown."""
    name, version, dead = f"**{result['collection']}**", f"version {result['version']} of `{result['generation']}`", result["dead_letters"]
    match result["status"]:
        case "nothing":
            return f"{name} is current: nothing to do"
        case "built":
            return f"{name} was built, not published: {result['reason']}"
        case "partial":
            return f"{name} published {version}, with {dead:,} dead letters"
        case _:
            return f"{name} published {version}"


def _state(done: _Done) -> State[dict[str, Any]]:
    """What Prefect shows. Raises RevectorError for what a person has to look at."""
    match done:
        case _Done(0 | 4, dict(result), _):
            return Completed(name=result["status"].capitalize(), message=_headline(result), data=result)
        case _Done(3, dict(result), _):
            return Failed(name="GateFailed", message=_headline(result))
        case _Done(5, _, line):
            return Failed(name="Conflict", message=line)
        case _Done(code, _, line):
            raise RevectorError(line if code > 0 and line else f"expected the driver to end by itself, found exit code {code}: run again")
