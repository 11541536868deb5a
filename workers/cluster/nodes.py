"""The nodes of a Ray cluster: which have places for actors, where other work goes, and what is installed on each."""

import platform
import socket
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipelines.errors import WorkerError
from pipelines.spec.running import WorkersSpec

NODE_ID = "ray.io/node-id"
"""The label that Ray gives each node itself."""
PACKAGES = ("ray", "revector", "torch", "pylance", "pyarrow")
"""Whose versions a node must share with the others: they decide what is exchanged, and what a vector is."""
SURVEY_SECONDS = 60.0
"""That all nodes may take to answer: a process is started on each."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node as a task on it found it."""

    node_id: str
    """Ray's own."""
    host: str
    versions: Mapping[str, str]
    """Of python and PACKAGES; "none" for what is not installed."""
    clock: float
    """Seconds that it is ahead of this process, within some hundredths: the way of the answer counts in."""
    cpus: float
    gpus: float
    labels: Mapping[str, str]
    """Without those that Ray gives itself."""


def survey(ray: Any) -> list[Node]:
    """Ask each live node, by a task of its own that needs no CPU. Raises WorkerError if one does not answer."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(_look)
    nodes = {node["NodeID"]: node for node in _alive(ray)}
    calls = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote(): node
        for node_id, node in nodes.items()
    }
    answers, waiting, until = [], list(calls), time.monotonic() + SURVEY_SECONDS
    while waiting:
        # One at a time: the clock is read when the answer comes.
        done, waiting = ray.wait(waiting, num_returns=1, timeout=max(0.0, until - time.monotonic()))
        arrived = time.time()
        if not done:
            silent = ", ".join(sorted(_name(calls[call]) for call in waiting))
            raise WorkerError(f"expected an answer of every node within {SURVEY_SECONDS:.0f} s, found none of {silent}: is it overloaded?")
        answers.append(_node(ray, calls[done[0]], done[0], arrived))
    return sorted(answers, key=lambda node: (node.host, node.node_id))


def _look() -> tuple[str, dict[str, str], float]:
    """Runs on the node: host, versions, and its clock, read last."""
    versions = {"python": platform.python_version()} | {package: _version(package) for package in PACKAGES}
    return socket.gethostname(), versions, time.time()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _node(ray: Any, node: Mapping[str, Any], call: Any, arrived: float) -> Node:
    try:
        host, versions, clock = ray.get(call)
    except ray.exceptions.RayError as error:
        kind = type(getattr(error, "cause", None) or error).__name__
        raise WorkerError(f"expected node {_name(node)} to run a task, found {kind}: is revector installed there?") from error
    has = node["Resources"]
    return Node(node["NodeID"], host, versions, clock - arrived, has.get("CPU", 0.0), has.get("GPU", 0.0), _labels(node))


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})"


def actor_options(workers: WorkersSpec, unfit: Collection[str] = ()) -> dict[str, Any]:
    """Ray's options of an actor, which goes on none of the nodes `unfit` (node ids). No restarts, no retries: those are the pool's."""
    avoid = {NODE_ID: f"!in({','.join(sorted(unfit))})"} if unfit else {}
    selector = avoid | workers.label
    options: dict[str, Any] = {"num_cpus": 1, "num_gpus": workers.gpus_per_actor, "max_restarts": 0, "max_task_retries": 0}
    if not workers.gpus_per_actor:
        options["scheduling_strategy"] = "SPREAD"  # else Ray fills half a node before it goes to the next one: cores elsewhere would idle
    return options | ({"label_selector": selector} if selector else {})


def elsewhere(ray: Any, label: Mapping[str, str]) -> dict[str, Any]:
    """Ray's options of a task for a CPU: on nodes that lack one of the actors' labels, if there are any."""
    others = [{"label_selector": {key: _opposite(value)}} for key, value in label.items()]
    if not any(node["Resources"].get("CPU") and not fits(node.get("Labels", {}), label) for node in _alive(ray)):
        return {}
    return {**others[0], "fallback_strategy": others[1:]} if others[1:] else {**others[0]}


def places(ray: Any, workers: WorkersSpec, unfit: Collection[str] = ()) -> int:
    """How many actors the cluster as it is could hold, those that it holds counted in."""
    return sum(_places(node["Resources"], workers.gpus_per_actor) for node in _fitting(ray, workers, unfit))


def cores_each(ray: Any, workers: WorkersSpec, actors: int) -> int:
    """CPUs that each actor of this node has for itself, at least 1, when so many `actors` are spread over the cluster.

    To be asked on the node: which one that will be, nobody knows before.
    """
    own = ray.get_runtime_context().get_node_id()
    nodes = {node["NodeID"]: node["Resources"] for node in _fitting(ray, workers, ())}
    room = {node_id: _places(has, workers.gpus_per_actor) for node_id, has in nodes.items()}
    return max(1, int(nodes[own].get("CPU", 0)) // max(1, _spread(room, actors)[own])) if own in nodes else 1


def _spread(room: Mapping[str, int], actors: int) -> Counter[str]:
    """How many actors each node gets if they go round; none gets more than it has room for."""
    held: Counter[str] = Counter()
    for _ in range(min(actors, sum(room.values()))):
        held[min((node for node in room if held[node] < room[node]), key=held.__getitem__)] += 1
    return held


def _fitting(ray: Any, workers: WorkersSpec, unfit: Collection[str]) -> Iterable[Mapping[str, Any]]:
    return [node for node in _alive(ray) if node["NodeID"] not in unfit and fits(node.get("Labels", {}), workers.label)]


def _places(has: Mapping[str, float], gpus: float) -> int:
    """Actors that a node has room for. A part of a GPU is of one GPU: of two halves that are left no actor gets a whole."""
    cpus, whole = int(has.get("CPU", 0)), int(has.get("GPU", 0))
    if not gpus:
        return cpus
    return min(cpus, whole * int(1 / gpus) if gpus <= 1 else int(whole / gpus))


def fits(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a node has what Ray's `selector` asks for: "a", "!a", "in(a,b)" or "!in(a,b)" of each label."""
    return all(_holds(labels.get(key), wanted) for key, wanted in selector.items())


def _holds(value: str | None, wanted: str) -> bool:
    bare = wanted.removeprefix("!")
    among = [label.strip() for label in bare[3:-1].split(",")] if bare.startswith("in(") else [bare]
    return (value in among) != wanted.startswith("!")


def _opposite(wanted: str) -> str:
    return wanted.removeprefix("!") if wanted.startswith("!") else f"!{wanted}"


def node_of(actor: Any) -> str | None:
    """The node that an actor is on or died on, from Ray's own table; None while it has no place."""
    from ray._private.state import actors  # the public way asks the dashboard, which need not run

    address = actors(actor._actor_id.hex()).get("Address", {})
    return address["NodeID"] if address.get("IPAddress") else None


def is_alive(ray: Any, node_id: str | None) -> bool:
    """Whether the node is there, as far as the cluster knows: it takes seconds to notice a loss."""
    return any(node["NodeID"] == node_id for node in _alive(ray))


def needs(workers: WorkersSpec) -> str:
    """What one actor asks for, in words."""
    return f"1 CPU, {workers.gpus_per_actor:g} GPU" + (f" and labels {workers.label}" if workers.label else "")


def describe(ray: Any) -> str:
    """What the cluster has, in words: nodes that are alike as one."""
    alike = Counter(_offer(node) for node in _alive(ray))
    return "; ".join(f"{count} x {offer}" if count > 1 else offer for offer, count in sorted(alike.items())) or "no nodes"


def _offer(node: Mapping[str, Any]) -> str:
    has = node["Resources"]
    return f"{has.get('CPU', 0):g} CPU, {has.get('GPU', 0):g} GPU, labels {_labels(node)}"


def _labels(node: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in sorted(node.get("Labels", {}).items()) if key != NODE_ID}


def _alive(ray: Any) -> list[Mapping[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
