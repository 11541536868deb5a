"""A Ray cluster of several nodes on this machine, in a process of its own: the Ray of the test session stays as it is.

Run as a module it is that process: it reads commands as JSON lines, and answers each with a line.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

QUICK = {
    # A lost node is noticed in a second, not in sixteen.
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "300",
    "RAY_health_check_timeout_ms": "1500",
    "RAY_health_check_failure_threshold": "4",
}
MEMORY = 80 << 20


@dataclass(frozen=True)
class SeveralNodes:
    """A cluster, from outside."""

    process: subprocess.Popen[str]
    address: str

    def add(self, cpus: int = 1, gpus: int = 0, **labels: str) -> str:
        """Start one more node. Gives its id."""
        return str(self._ask(do="add", cpus=cpus, gpus=gpus, labels=labels))

    def kill(self, node_id: str) -> None:
        """SIGKILL its raylet."""
        self._ask(do="kill", node_id=node_id)

    def survey(self) -> list[dict[str, Any]]:
        """`workers.cluster.nodes.survey` of it."""
        return list(self._ask(do="survey"))

    def _ask(self, **command: Any) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def several_nodes() -> Iterator[SeveralNodes]:
    """A cluster with nothing but a head that has one CPU."""
    command = [sys.executable, "-m", "tests.support.several"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            yield SeveralNodes(process, json.loads(process.stdout.readline()))
        finally:
            assert process.stdin
            process.stdin.close()  # it ends its nodes, and then itself
            process.wait(60)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints
    from workers.cluster.connection import RAY_ENVIRONMENT

    os.environ.update(RAY_ENVIRONMENT | QUICK)
    import ray
    from ray.cluster_utils import Cluster

    from workers.cluster.nodes import survey

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": MEMORY})
    ray.init(cluster.address, log_to_driver=False)
    nodes: dict[str, Any] = {}

    def tell(answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    tell(cluster.address)
    for line in sys.stdin:
        match json.loads(line):
            case {"do": "add", "cpus": cpus, "gpus": gpus, "labels": labels}:
                node = cluster.add_node(num_cpus=cpus, num_gpus=gpus, labels=labels, object_store_memory=MEMORY)
                nodes[node.node_id] = node
                tell(node.node_id)
            case {"do": "kill", "node_id": node_id}:
                cluster.remove_node(nodes.pop(node_id), allow_graceful=False)
                tell(None)
            case {"do": "survey"}:
                tell([asdict(node) for node in survey(ray)])
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
