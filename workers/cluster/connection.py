"""Ray: connecting to it, and reading a corpus on it."""

import os
import shutil
import signal
import sys
import threading
import warnings
from contextlib import ExitStack, redirect_stdout
from typing import Any

from pipelines.errors import WorkerError

OBJECT_STORE_BYTES = 256 << 20
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
    """Whether there is a Ray already that work can go to: the one of RAY_ADDRESS, or one that this process is connected to."""
    ray = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and ray.is_initialized())


def start_ray(closing: ExitStack) -> Any:
    """Ray, connected: to the cluster that RAY_ADDRESS names (as in a Ray Job), else to one of its own on this machine.

    `closing` disconnects it again, unless it was connected before; of one on this machine nothing stays.
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
            session = _connect(ray, address)
        except Exception as error:  # Ray raises nothing narrower when a node does not come up
            raise WorkerError(
                f"expected Ray to start, found {type(error).__name__}: {error}: is the machine short of memory or very busy?"
            ) from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_stop)  # Ray puts its own there: a stop would not unwind as Ctrl-C does
        if not address:  # else it is not ours
            closing.callback(shutil.rmtree, session, ignore_errors=True)
        closing.callback(ray.shutdown)
    return ray


def _connect(ray: Any, address: str | None) -> str:
    """Gives the folder of its logs and sockets, which a Ray that ends leaves behind."""
    with warnings.catch_warnings():
        # Lance and lancedb warn of forks. Ray's are followed by an exec at once.
        warnings.filterwarnings("ignore", message=".*fork", category=Warning)
        if address:
            context = ray.init(address=address, log_to_driver=False)
        else:
            quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
            context = ray.init(address="local", object_store_memory=OBJECT_STORE_BYTES, **quiet)
    return str(context.address_info["session_dir"])
