"""Ray: connecting to it, and reading a corpus on it."""

import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from itertools import groupby
from typing import Any

import pyarrow as pa

from pipelines.documents import DeadLetter, SourceShard
from pipelines.errors import WorkerError
from workers.ingest import ROWS, SEEN, Ingest, Ingested, ingest_shard
from workers.nodes import describe, elsewhere

OBJECT_STORE_BYTES = 256 << 20
INGEST_SECONDS = 3600.0
"""After which a source shard that is being read counts as hung."""
RETRIES = 3
"""Of a source shard whose process or node died."""
RAY_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux: bind to loopback only
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # would zip the working directory and start workers through uv
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_task_oom_retries": "3",  # of a source shard; by default without end
}


def on_cluster() -> bool:
    """Whether there is a Ray already that work can go to."""
    ray = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and ray.is_initialized())


def start_ray(closing: ExitStack) -> Any:
    """Ray, connected: to the cluster that RAY_ADDRESS names (as in a Ray Job), else to one of its own on this machine.

    `closing` disconnects it again, unless it was connected before.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        for name, value in RAY_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    import ray

    if not ray.is_initialized():
        closing.enter_context(redirect_stdout(sys.stderr))  # Ray prints what befalls the cluster
        on_stop = signal.getsignal(signal.SIGTERM)
        try:
            _connect(ray, address)
        except Exception as error:  # Ray raises nothing narrower when a node does not come up
            raise WorkerError(
                f"expected Ray to start, found {type(error).__name__}: {error}: is the machine short of memory or very busy?"
            ) from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_stop)  # Ray puts its own there: a stop would not unwind as Ctrl-C does
        closing.callback(ray.shutdown)
    return ray


def _connect(ray: Any, address: str | None) -> None:
    with warnings.catch_warnings():
        # Lance and lancedb warn of forks. Ray's are followed by an exec at once.
        warnings.filterwarnings("ignore", message=".*fork", category=Warning)
        if address:
            ray.init(address=address, log_to_driver=False)
        else:
            quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
            ray.init(address="local", object_store_memory=OBJECT_STORE_BYTES, **quiet)


def ingest_on_ray(ray: Any, ingest: Ingest, shards: Sequence[SourceShard], label: Mapping[str, str]) -> Iterator[Ingested]:
    """`ingest_shard` of each, as CPU tasks, in order; a bounded number ahead of the consumer. Ray repeats those that a lost node had.

    `label`: of the nodes that the actors are meant for: others go first. Raises what reading raises, WorkerError if there is no answer.
    """
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(ingest_shard)
    common = ray.put(ingest)
    waiting: deque[tuple[SourceShard, Any]] = deque()

    def read(shard: SourceShard) -> Any:
        return task.options(**elsewhere(ray, label)).remote(common, shard)

    def result() -> Ingested:
        shard, call = waiting.popleft()
        try:
            return _answer(ray, call)
        except _deaths(ray) as error:
            return _apart(ray, shard, read, error)

    for shard in shards:
        while len(waiting) >= _ahead(ray):
            yield result()
        waiting.append((shard, read(shard)))
    while waiting:
        yield result()


def _ahead(ray: Any) -> int:
    """Tasks that keep the cluster as it is now busy."""
    return 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))


def _answer(ray: Any, call: Any) -> Ingested:
    """What the task found, or the error that it raised, as if it had been raised here. Raises _deaths if its processes died."""
    try:
        found: Ingested = ray.get(call, timeout=INGEST_SECONDS)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except _deaths(ray):
        raise
    except ray.exceptions.RayError as error:
        within, instead = f"within {INGEST_SECONDS:.0f} s", type(error).__name__
        raise WorkerError(f"expected a source shard to be read {within}, found {instead} on {describe(ray)}: run again") from error
    return found


def _deaths(ray: Any) -> tuple[type[Exception], ...]:
    """What Ray raises when a task's process has died each time that it was tried."""
    return ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError


def _apart(ray: Any, shard: SourceShard, read: Callable[[SourceShard], Any], error: Exception) -> Ingested:
    """A shard that ended each process that read it, now file by file: the one that does it is a dead letter, the others are read."""
    files = [SourceShard(tuple(pieces)) for _, pieces in groupby(shard.pieces, lambda piece: piece.file)]
    if len(files) == 1:
        letter = DeadLetter("file", shard.pieces[0].file.path, "", f"{type(error).__name__}: no process survived reading it")
        return Ingested(SEEN.empty_table(), ROWS.empty_table(), [], 0, [letter])
    found = []
    for file in files:
        try:
            found.append(_answer(ray, read(file)))
        except _deaths(ray) as again:
            found.append(_apart(ray, file, read, again))
    return Ingested(
        seen=pa.concat_tables([each.seen for each in found]),
        rows=pa.concat_tables([each.rows for each in found]),
        fragments=[fragment for each in found for fragment in each.fragments],
        fresh=sum(each.fresh for each in found),
        dead=[letter for each in found for letter in each.dead],
        seconds=sum(each.seconds for each in found),
    )


def run_inline(ingest: Ingest, shards: Iterable[SourceShard]) -> Iterator[Ingested]:
    """`ingest_shard` of each, here: for what is not worth starting Ray."""
    return (ingest_shard(ingest, shard) for shard in shards)
