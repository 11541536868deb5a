"""Several nodes: actors go where the spec wants them, other work goes elsewhere, and what is lost with a node is done again."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.spec.running import WorkersSpec
from tests.conftest import Workplace
from tests.support.observed import Notes
from tests.support.several import SeveralNodes, several_nodes
from workers.cluster.connection import RAY_ENVIRONMENT
from workers.cluster.nodes import cores_each, elsewhere, fits, places

FILES, DOCUMENTS = 4, 100
GIVE_UP = 60.0
"""Seconds; only a failing test takes so long."""


@dataclass(frozen=True)
class Nodes:
    """A head, two nodes with two GPUs each, one with neither GPUs nor a pool."""

    cluster: SeveralNodes
    first: str
    second: str
    plain: str


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with several_nodes() as cluster:
        yield Nodes(
            cluster,
            cluster.add(cpus=4, gpus=2, pool="gpu", site="here"),
            cluster.add(cpus=4, gpus=2, pool="gpu", site="here", rack="b"),
            cluster.add(cpus=2, site="here"),
        )


@dataclass(frozen=True)
class Job:
    """`apply` in a process of its own, on the cluster."""

    process: subprocess.Popen[str]
    notes: Notes

    def result(self) -> dict[str, Any]:
        out, err = self.process.communicate()
        assert self.process.returncode == 0, err
        return dict(json.loads(out))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + GIVE_UP
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)

    def working(self, node: str, what: str = "embed") -> bool:
        return any(note["node"] == node for note in self.notes.read(what))

    def placed(self) -> list[tuple[str, str]]:
        """Node and GPU of each actor."""
        return [(note["node"], note["gpu"]) for note in self.notes.read("load")]


@contextmanager
def job(nodes: Nodes, workplace: Workplace, workers: str, **options: Any) -> Iterator[Job]:
    """With a corpus of FILES files of DOCUMENTS documents."""
    environment = RAY_ENVIRONMENT | {"RAY_ADDRESS": nodes.cluster.address}
    with observed(workplace, workers, environment, **options) as run:
        yield run


@contextmanager
def observed(workplace: Workplace, workers: str, environment: dict[str, str], **options: Any) -> Iterator[Job]:
    workplace.spec(rest=f"workers = {{ {workers} }}")
    for part in range(FILES):
        workplace.write(f"{part}.parquet", {f"d{part}.{number}": f"text number {number} of {part}" for number in range(DOCUMENTS)})
    notes = Notes(workplace.root / "notes")
    notes.folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.observed", json.dumps(options)],
        cwd=workplace.root,
        env=os.environ | environment | {"PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Job(process, notes)
        finally:
            process.kill()


def check_whole(workplace: Workplace) -> None:
    """Nothing is lost, nothing doubled."""
    expected = {f"d{part}.{number}#0": f"text number {number} of {part}" for part in range(FILES) for number in range(DOCUMENTS)}
    assert workplace.texts() == expected


def test_actors_are_one_a_gpu_on_labelled_nodes_and_files_are_read_elsewhere(nodes: Nodes, workplace: Workplace) -> None:
    with job(nodes, workplace, 'gpus_per_actor = 1, label = { pool = "gpu" }') as run:
        assert run.result()["status"] == "published"
    assert Counter(run.placed()) == {(node, gpu): 1 for node in (nodes.first, nodes.second) for gpu in "01"}
    assert not {note["node"] for note in run.notes.read("read")} & {nodes.first, nodes.second}
    check_whole(workplace)


def test_actors_without_gpus_are_spread_and_have_the_threads_of_their_own_node(nodes: Nodes, workplace: Workplace) -> None:
    with job(nodes, workplace, 'actors = 3, label = { site = "here" }') as run:
        assert run.result()["status"] == "published"
    threads = Counter((note["node"], note["threads"]) for note in run.notes.read("load"))
    assert threads == {(nodes.first, 4): 1, (nodes.second, 4): 1, (nodes.plain, 2): 1}


def test_half_a_gpu_each_is_two_actors_a_gpu(nodes: Nodes, workplace: Workplace) -> None:
    with job(nodes, workplace, 'gpus_per_actor = 0.5, label = { pool = "gpu", rack = "b" }') as run:
        assert run.result()["status"] == "published"
    assert Counter(run.placed()) == {(nodes.second, gpu): 2 for gpu in "01"}


def test_a_node_where_no_model_loads_is_left_out_and_files_are_read_on_the_actors_nodes_if_there_are_no_others(
    nodes: Nodes, workplace: Workplace
) -> None:
    with job(nodes, workplace, 'gpus_per_actor = 1, label = { rack = "!c" }', unfit=nodes.second, shard_seconds=0.7) as run:
        done = run.result()
    assert (done["status"], done["how"]) == ("published", "stand-in; left out 1 nodes: MemoryError in the worker")
    placed = Counter(node for node, _ in run.placed())
    assert placed.keys() == {nodes.first, nodes.second}
    assert placed[nodes.first] == 2
    assert placed[nodes.second] <= 4  # two, and those that were on their way when the first failed
    check_whole(workplace)


def test_a_place_that_no_node_offers_is_an_error_that_says_what_there_is(nodes: Nodes, workplace: Workplace) -> None:
    with job(nodes, workplace, 'gpus_per_actor = 1, ready = 1, label = { pool = "tpu" }') as run:
        _, err = run.process.communicate()
    assert "expected an actor with 1 CPU, 1 GPU and labels {'pool': 'tpu'} within 1 s, found a cluster of" in err
    assert "4 CPU, 2 GPU, labels {'pool': 'gpu', 'rack': 'b', 'site': 'here'}" in err


def test_what_a_lost_node_was_reading_and_embedding_is_done_again_in_the_same_run(nodes: Nodes, workplace: Workplace) -> None:
    reader, worker = nodes.cluster.add(cpus=4, part="spare"), nodes.cluster.add(cpus=2, gpus=1, pool="gpu", part="spare")
    with job(nodes, workplace, 'actors = 5, gpus_per_actor = 1, label = { pool = "gpu" }', read_seconds=1.5, shard_seconds=0.7) as run:
        run.wait_for(lambda: run.working(reader, "read"))
        nodes.cluster.kill(reader)
        run.wait_for(lambda: run.working(worker))
        nodes.cluster.kill(worker)
        done = run.result()
    assert (done["status"], done["dead"]) == ("published", 0)
    assert {note["done"] for note in run.notes.read("read") if note["node"] == reader} == {False}
    assert any(not note["done"] for note in run.notes.read("embed") if note["node"] == worker)
    check_whole(workplace)


@pytest.mark.parametrize("actors", ["", pytest.param("actors = 2, ", marks=pytest.mark.nightly)], ids=["as many as there are GPUs", "two"])
def test_a_run_waits_for_the_first_gpu_and_takes_up_those_that_come_later(nodes: Nodes, workplace: Workplace, actors: str) -> None:
    pool = f"late{len(actors)}"
    with job(nodes, workplace, f'{actors}gpus_per_actor = 1, label = {{ pool = "{pool}" }}', shard_seconds=0.5) as run:
        run.wait_for((workplace.root / "store").exists)
        early = nodes.cluster.add(cpus=1, gpus=1, pool=pool)
        run.wait_for(lambda: run.working(early))
        late = nodes.cluster.add(cpus=1, gpus=1, pool=pool)
        run.wait_for(lambda: run.working(late))
        assert run.result()["status"] == "published"
    assert Counter(run.placed()) == {(early, "0"): 1, (late, "0"): 1}
    check_whole(workplace)


def test_a_driver_that_is_killed_leaves_no_actor_behind(nodes: Nodes, workplace: Workplace) -> None:
    with job(nodes, workplace, 'actors = 2, label = { pool = "gpu" }', shard_seconds=60) as run:
        run.wait_for(lambda: len(run.notes.read("embed")) >= 2)
        run.process.kill()
        run.process.wait()
    pids = {note["pid"] for note in run.notes.read("embed")}
    until = time.monotonic() + GIVE_UP
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_actors_that_ray_kills_for_the_memory_that_they_leak_cost_no_input(workplace: Workplace) -> None:
    memory = {name: int(size) for name, size in re.findall(r"(\w+): +(\d+) kB", Path("/proc/meminfo").read_text())}
    threshold = 1 - (memory["MemAvailable"] - (3 << 20)) / memory["MemTotal"]  # 3 GiB above what is in use: Ray itself takes one
    monitor = {"RAY_memory_usage_threshold": f"{threshold:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
    with observed(workplace, "actors = 1", monitor, leak=300 << 20) as run:
        done = run.result()
    assert (done["status"], done["dead"]) == ("published", 0)
    assert len(run.placed()) > 1
    check_whole(workplace)


def test_a_survey_finds_every_node_with_its_versions_and_clock(nodes: Nodes) -> None:
    found = nodes.cluster.survey()
    assert {nodes.first, nodes.second, nodes.plain} <= {each["node_id"] for each in found}
    assert len({json.dumps(each["versions"]) for each in found}) == 1
    assert {"python", "ray", "revector", "torch", "pylance", "pyarrow"} == set(found[0]["versions"])
    assert all(abs(each["clock"]) < 5 for each in found)
    assert {each["gpus"] for each in found if each["labels"].get("site") == "here"} == {0, 2}


@pytest.mark.parametrize(
    ("value", "wanted", "held"),
    [
        *(("a", "a", True), ("b", "a", False), (None, "a", False)),
        *(("a", "!a", False), ("b", "!a", True), (None, "!a", True)),
        *(("b", "in(a,b)", True), ("c", "in(a, b)", False), ("b", "!in(a,b)", False), (None, "!in(a,b)", True)),
    ],
)
def test_a_label_is_held_against_what_ray_lets_one_ask_for(value: str | None, wanted: str, held: bool) -> None:
    labels = {} if value is None else {"pool": value}
    assert fits(labels, {"pool": wanted}) == held
    node = {"NodeID": "1", "Alive": True, "Resources": {"CPU": 1.0}, "Labels": labels}
    others = elsewhere(SimpleNamespace(nodes=lambda: [node]), {"pool": wanted})
    assert others == {} if held else fits(labels, others["label_selector"])


@pytest.mark.parametrize(("actors", "expected"), [(1, [1, 2, 7]), (3, [1, 2, 7]), (4, [1, 1, 7]), (6, [1, 1, 2]), (99, [1, 1, 1])], ids=str)
def test_actors_of_a_node_share_its_cores_and_no_others(actors: int, expected: list[int]) -> None:
    alive = [{"NodeID": str(at), "Alive": True, "Resources": {"CPU": cpus}} for at, cpus in enumerate([1.0, 2.0, 7.0])]

    def ray(node: int) -> SimpleNamespace:
        return SimpleNamespace(nodes=lambda: alive, get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: str(node)))

    assert [cores_each(ray(node), WorkersSpec(), actors) for node in range(3)] == expected


@pytest.mark.parametrize(("gpus", "expected"), [(0, 16), (0.3, 9), (0.5, 9), (0.6, 5), (1, 5), (2, 3)])
def test_places_are_counted_node_by_node(gpus: float, expected: int) -> None:
    resources = [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 1.0, "GPU": 4.0}, {"CPU": 7.0}]
    ray = SimpleNamespace(nodes=lambda: [{"NodeID": str(at), "Alive": True, "Resources": has} for at, has in enumerate(resources)])
    assert places(ray, WorkersSpec(gpus_per_actor=gpus)) == expected
