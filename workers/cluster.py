"""Ray: connecting to it, and reading a corpus on it."""

import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from pipelines.documents import SourceShard
from pipelines.errors import WorkerError
from workers.ingest import Ingest, Ingested, ingest_shard

OBJECT_STORE_BYTES = 256 << 20
INGEST_SECONDS = 3600.0
"""After which a source shard that is being read counts as hung."""
_RAY_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux: bind to loopback only
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # would zip the working directory and start workers through uv
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
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
        for name, value in _RAY_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    import ray

    if not ray.is_initialized():
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


def ingest_on_ray(ray: Any, ingest: Ingest, shards: Sequence[SourceShard]) -> Iterator[Ingested]:
    """`ingest_shard` of each, as CPU tasks, in order; a bounded number ahead of the consumer."""
    task = ray.remote(num_cpus=1)(ingest_shard)
    common = ray.put(ingest)
    ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting: deque[Any] = deque()
    for shard in shards:
        if len(waiting) == ahead:
            yield _ingested(ray, waiting.popleft())
        waiting.append(task.remote(common, shard))
    while waiting:
        yield _ingested(ray, waiting.popleft())


def _ingested(ray: Any, call: Any) -> Ingested:
    """What the task found, or the error that it raised, as if it had been raised here."""
    try:
        found: Ingested = ray.get(call, timeout=INGEST_SECONDS)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:  # its worker died, or it hangs
        found_instead = type(error).__name__
        raise WorkerError(f"expected a source shard to be read within {INGEST_SECONDS:.0f} s, found {found_instead}: run again") from error
    return found


def run_inline(ingest: Ingest, shards: Iterable[SourceShard]) -> Iterator[Ingested]:
    """`ingest_shard` of each, here: for what is not worth starting Ray."""
    return (ingest_shard(ingest, shard) for shard in shards)
