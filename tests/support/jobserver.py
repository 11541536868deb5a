"""A Ray cluster that takes jobs from whoever has its token: a head with the Jobs API, and nodes with fake GPUs and labels.

It is in processes of its own, on this machine's loopback. Run as a module it is the process that holds them: it prints the address of the
Jobs API and the cluster's, and ends them all when its stdin closes.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.several import MEMORY, QUICK

GPU_NODES = 2
GPUS = 2
TOKEN = "tests-only-7f3a9c5e1b8d2460"
"""Known, so that a test can look for it where it must not be."""


@dataclass(frozen=True)
class JobServer:
    """The cluster, from outside."""

    url: str
    """Of the Jobs API."""
    address: str
    """For RAY_ADDRESS."""
    token: Path
    """The file with the token."""

    def environment(self) -> dict[str, str]:
        """For who may submit jobs."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token)}


@contextmanager
def job_server(folder: Path, module: str = "tests.support.held") -> Iterator[JobServer]:
    """One head that has no CPU for work, one node to read on, and nodes of two GPUs each with the label pool = gpu.

    `module`: what its nodes run as `revector`.
    """
    token = folder / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    _install(folder / "bin" / "revector", module)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REVECTOR_")}
    path = f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PATH": path}
    command = [sys.executable, "-m", "tests.support.jobserver"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout
            told = process.stdout.readline()
            assert told, (folder / "log").read_text()
            yield JobServer(token=token, **json.loads(told))
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait(60)


def _install(script: Path, module: str) -> None:
    script.parent.mkdir(exist_ok=True)
    root = Path(__file__).parents[2]
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{root}:$PYTHONPATH" exec "{sys.executable}" -P -m {module} "$@"\n')
    script.chmod(0o755)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints
    from workers.cluster.connection import RAY_ENVIRONMENT

    os.environ.update({name: value for name, value in RAY_ENVIRONMENT.items() if name != "RAY_AUTH_MODE"} | QUICK)
    import ray
    from ray.cluster_utils import Cluster

    port, gcs = free_port(), free_port()
    # What starts a job's driver would else look for a Ray on this machine, and take the newest
    os.environ["RAY_ADDRESS"] = f"{ray.util.get_node_ip_address()}:{gcs}"

    def node(**options: Any) -> dict[str, Any]:
        # Ray's fixed port for the agent that starts jobs is taken by any other Ray on this machine, and nothing would tell
        return {"object_store_memory": MEMORY, "dashboard_agent_listen_port": free_port(), **options}

    head = node(num_cpus=0, gcs_server_port=gcs, include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=port)
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(**node(num_cpus=1, labels={"pool": "cpu"}))
    for rack in range(GPU_NODES):
        cluster.add_node(**node(num_cpus=GPUS, num_gpus=GPUS, labels={"pool": "gpu", "rack": str(rack)}))
    print(json.dumps({"url": f"http://127.0.0.1:{port}", "address": cluster.address}), file=answers, flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
