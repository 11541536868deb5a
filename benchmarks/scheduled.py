"""Runs that nobody types, for real on one machine: Prefect's server, a process work pool, a worker, an S3 server. Prints a table.

A schedule and an event start runs, a second one waits, a cancel stops one; then the flow, its command, the worker and the server are
killed (SIGKILL) in the middle of a run, each once. Before each, documents are added; after each, the next run completes, and the
published table is counted: documents that are lost and documents that are there twice must be 0. Vectors are the stand-in's.

python -m benchmarks.scheduled [--documents 100000] [--cluster] [--hold SECONDS]

With `--cluster` the work goes to a Ray cluster of four nodes, with fake GPUs, labels and a token, by its Jobs API; and one collection is
brought up to date in three ways, to see what Prefect and the Jobs API cost.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.support.jobserver import job_server
from tests.support.objectstore import BUCKET, LOOPBACK, ObjectStore, free_port, serve

BIN = Path(sys.executable).parent
NAME = "docs"
EVERY_MINUTE = '"* * * * *"'
ON_EVENTS = "{ }"
LONGEST = 300.0
"""Seconds that anything may take."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    event: str
    seen: str
    seconds: float
    """From the event to what was seen."""
    later: str = ""
    """What the next run did."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--documents", type=int, default=100_000, help="Added before each run.")
    arguments.add_argument("--cluster", action="store_true", help="Send the work to a Ray cluster.")
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--hold", type=float, default=0, help="Seconds to leave everything up in the end, to look at its pages.")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as closing:
        stage = Stage(Path(folder), options.documents, options.cluster, closing)
        rows = []
        for act in [*ACTS, *(ACTS_ON_A_CLUSTER if options.cluster else ())]:
            rows += list(act(stage))
            print(f"  {rows[-1].event}: {rows[-1].seen} after {rows[-1].seconds:.1f} s; {rows[-1].later}", file=sys.stderr, flush=True)
        lines = ["| what happened | what was seen | seconds | the next run |", "|---|---|---|---|"]
        lines += [f"| {row.event} | {row.seen} | {row.seconds:.1f} | {row.later} |" for row in rows]
        print("\n".join(lines))
        if options.out:
            options.out.write_text("\n".join([*lines, ""]))
        time.sleep(options.hold)


class Stage:
    """The machine: everything that runs on it, and what one can ask of it."""

    def __init__(self, folder: Path, documents: int, cluster: bool, closing: ExitStack) -> None:
        self.folder = folder
        self.documents = documents
        self.added = 0
        self._closing = closing
        self._store = closing.enter_context(serve(folder / "s3", ObjectStore()))
        os.environ.update(self._store.environment())
        self.cluster = self._start_cluster(folder / "ray") if cluster else None
        self._port = free_port()
        os.environ.update(_prefect_environment(folder / "home", self._port))
        self.server = self.start_server()
        from prefect.client.orchestration import get_client

        self.client = closing.enter_context(get_client(sync_client=True))
        self.deploy(ON_EVENTS)
        self.worker = self.start_worker()

    @property
    def root(self) -> str:
        return f"s3://{BUCKET}/store"

    def add(self) -> None:
        """Another file of documents."""
        first, self.added = self.added, self.added + self.documents
        lines = (json.dumps({"id": f"d{number}", "text": f"the text of document {number}"}) for number in range(first, self.added))
        body = "\n".join(lines).encode()
        self._store.client().put_object(Bucket=BUCKET, Key=f"docs/{first:09d}.jsonl", Body=body)

    def deploy(self, schedule: str) -> None:
        gpus = 'workers = { actors = 2, gpus_per_actor = 1, label = { pool = "gpu" } }'
        where = f'run = {{ cluster = "{self.cluster}" }}\n{gpus}\n' if self.cluster else ""
        (self.folder / "revector.toml").write_text(
            f'store = "{self.root}"\n[collections.{NAME}]\nchunking = {{ by = "document" }}\n'
            'model = { name = "hash", dimensions = 384 }\n'
            f'source = {{ uri = "s3://{BUCKET}/docs/*.jsonl", id = "id", text = "text" }}\nschedule = {schedule}\n{where}'
        )
        self.revector("deploy")

    def revector(self, *arguments: str) -> None:
        subprocess.run([BIN / "revector", *arguments], cwd=self.folder, check=True, stdout=subprocess.DEVNULL)

    def _start_cluster(self, folder: Path) -> str:
        """Four nodes. The address of their Jobs API, for which this environment has the token from here on."""
        folder.mkdir()
        server = self._closing.enter_context(job_server(folder, "flows.cli"))
        os.environ.update(server.environment())
        return server.url

    def start_server(self) -> subprocess.Popen[bytes]:
        process = self._start("server", "start", "--host", LOOPBACK, "--port", str(self._port))
        until(lambda: _healthy(os.environ["PREFECT_API_URL"]))
        return process

    def start_worker(self) -> subprocess.Popen[bytes]:
        return self._start("worker", "start", "--pool", "revector")

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = self._closing.enter_context((self.folder / f"{arguments[0]}.log").open("ab"))
        process = subprocess.Popen(
            [BIN / "prefect", *arguments], cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._closing.callback(_end, process)
        return process

    def run(self) -> UUID:
        """Start a sync by hand."""
        deployment = self.client.read_deployment_by_name(f"revector-sync/{NAME}")
        return UUID(str(self.client.create_flow_run_from_deployment(deployment.id).id))

    def flow_run(self, id: UUID) -> Any:
        return self.client.read_flow_run(id)

    def state(self, id: UUID) -> str:
        return str(self.flow_run(id).state.name)

    def syncs(self) -> list[Any]:
        """Flow runs that have begun, oldest first."""
        from prefect.client.schemas.filters import FlowFilter, FlowFilterName
        from prefect.client.schemas.sorting import FlowRunSort

        wanted = FlowFilter(name=FlowFilterName(any_=["revector-sync"]))
        found = self.client.read_flow_runs(flow_filter=wanted, sort=FlowRunSort.START_TIME_ASC, limit=200)
        return [each for each in found if each.start_time]

    def finished(self, id: UUID) -> bool:
        return bool(self.flow_run(id).state.is_final())

    def ended(self, id: UUID) -> str:
        """Wait until a flow run has ended; the name of its state."""
        until(lambda: self.finished(id))
        return self.state(id)

    def at_work(self, id: UUID) -> "Pids":
        """Wait until a shard of a flow run's run is committed or on its way; its processes."""
        from flows.flow_run.presence import run_id, sign
        from storage.collection import Collection
        from storage.history.ledger import Run
        from storage.history.watch import holder
        from storage.store.lance import Store

        until(lambda: sign(self.flow_run(id)))
        run = Run(Collection(Store(self.root), NAME), run_id(self.flow_run(id)))
        until(lambda: run.collection.objects.names(run.key("shards")) or self.finished(id))
        if self.finished(id):
            raise RuntimeError(f"expected a run in the middle, found {self.flow_run(id).state}")
        told, driver = sign(self.flow_run(id)), holder(run)
        assert told and driver
        return Pids(told.process.pid, driver.pid)

    def next_run(self) -> str:
        """Run once more, and count what readers have."""
        from storage import open_published

        began = time.monotonic()
        id = self.run()
        name = self.ended(id)
        seconds = time.monotonic() - began
        ids = open_published(self.root, NAME).table.to_lance().to_table(columns=["doc_id"])["doc_id"].to_pylist()
        lost, twice = self.added - len(set(ids)), len(ids) - len(set(ids))
        table = {row["measure"]: row["value"] for row in json.loads(_artifact(self.client, id, f"revector-{NAME}-result"))}
        return f"{name} in {seconds:.0f} s, {table['forward passes']:,} forward passes; {len(ids):,} documents, {lost} lost, {twice} twice"


@dataclass(frozen=True)
class Pids:
    """The processes of a run."""

    flow: int
    driver: int
    """Also the session in which its Ray is."""


def _prefect_environment(home: Path, port: int) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://{LOOPBACK}:{port}/api",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def _healthy(address: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{address}/health", timeout=2).is_success
    except httpx.TransportError:
        return False


def _artifact(client: Any, flow_run: UUID, key: str) -> str:
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey

    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]), key=ArtifactFilterKey(any_=[key]))
    return str(client.read_artifacts(artifact_filter=wanted)[0].data)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process of ours with its session."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(probe: Callable[[], Any]) -> float:
    """Wait until `probe` gives something true. Gives the seconds that it took. Raises RuntimeError if it never does."""
    began = time.monotonic()
    while not probe():
        if time.monotonic() - began > LONGEST:
            raise RuntimeError(f"expected it within {LONGEST:.0f} s, found nothing")
        time.sleep(0.1)
    return time.monotonic() - began


def alive(driver: int) -> bool:
    """Whether a driver lives, a process of its session, or an actor that it had on a cluster."""
    return any(driver in (process.pid, process.session) or process.name.startswith("ray::Embed") for process in processes())


@dataclass(frozen=True)
class Process:
    """As the kernel tells."""

    pid: int
    name: str
    parent: int
    session: int


def processes() -> Iterator[Process]:
    """All that live."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            before, _, after = (folder / "stat").read_text().rpartition(") ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent, _, session, *_ = after.split()
        if state != "Z":
            yield Process(int(folder.name), before.partition("(")[2], int(parent), int(session))


def children(pid: int) -> list[int]:
    return [process.pid for process in processes() if process.parent == pid]


def scheduled(stage: Stage) -> Iterator[Row]:
    """A schedule starts a run."""
    stage.add()
    stage.deploy(EVERY_MINUTE)
    until(stage.syncs)
    first = stage.syncs()[0]
    late = (first.start_time - first.expected_start_time).total_seconds()
    yield Row("a cron of every minute is due", "Running", late)
    until(lambda: stage.finished(first.id))
    done = stage.flow_run(first.id)
    stage.deploy(ON_EVENTS)
    until(lambda: all(each.state.is_final() for each in stage.syncs()))
    yield Row("", stage.state(first.id), (done.end_time - first.expected_start_time).total_seconds(), stage.next_run())


def announced(stage: Stage) -> Iterator[Row]:
    """Five announcements in a moment start one run."""
    stage.add()
    known = {each.id for each in stage.syncs()}
    from flows.flow_run.events import announce

    began = time.monotonic()
    for _ in range(5):
        announce(stage.client, NAME)
    until(lambda: any(each.id not in known for each in stage.syncs()))
    yield Row("files are announced five times in a second", "Running", time.monotonic() - began)
    new = next(each for each in stage.syncs() if each.id not in known)
    name = stage.ended(new.id)
    time.sleep(15)
    runs = sum(each.id not in known for each in stage.syncs())
    yield Row("", f"{name}; runs that it started: {runs}", time.monotonic() - began - 15, stage.next_run())


def crowded(stage: Stage) -> Iterator[Row]:
    """Of three runs that begin together one works, one waits, and one gives way."""
    stage.add()
    began = time.monotonic()
    ids = [stage.run() for _ in range(3)]
    until(lambda: all(stage.finished(id) for id in ids))
    ends = sorted(map(stage.flow_run, ids), key=lambda run: run.end_time)
    seen = "in the order of their ends: " + ", ".join(str(each.state.name) for each in ends)
    yield Row(
        "three runs of the collection are started in a moment",
        seen,
        time.monotonic() - began,
        stage.next_run(),
    )


def cancelled(stage: Stage) -> Iterator[Row]:
    """A person cancels."""
    from prefect.states import Cancelling

    stage.add()
    id = stage.run()
    pids = stage.at_work(id)
    began = time.monotonic()
    stage.client.set_flow_run_state(id, Cancelling())
    until(lambda: not alive(pids.driver))
    gone = time.monotonic() - began
    until(lambda: stage.finished(id))
    yield Row(
        "a person cancels a run", f"no process of it after {gone:.1f} s; {stage.state(id)}", time.monotonic() - began, stage.next_run()
    )


def killed(what: str, victims: Callable[[Stage, Pids], list[int]], restore: Callable[[Stage], None]) -> Callable[[Stage], Iterator[Row]]:
    """Processes are killed in the middle of a run."""

    def act(stage: Stage) -> Iterator[Row]:
        stage.add()
        id = stage.run()
        pids = stage.at_work(id)
        began = time.monotonic()
        for pid in victims(stage, pids):
            os.kill(pid, signal.SIGKILL)
        restore(stage)
        until(lambda: stage.finished(id) and not alive(pids.driver))
        yield Row(f"kill -9 of {what}", stage.state(id), time.monotonic() - began, stage.next_run())

    return act


def new_worker(stage: Stage) -> None:
    stage.worker.wait()
    stage.worker = stage.start_worker()


def new_machine(stage: Stage) -> None:
    """A worker again, and the reconciler, as its deployment would every five minutes."""
    new_worker(stage)
    stage.revector("reconcile")


def new_server(stage: Stage) -> None:
    stage.server.wait()
    stage.server = stage.start_server()


ACTS: list[Callable[[Stage], Iterator[Row]]] = [
    scheduled,
    announced,
    crowded,
    cancelled,
    killed("the command that works", lambda _, pids: [pids.driver], lambda _: None),
    killed("the flow", lambda _, pids: [pids.flow], lambda _: None),
    killed("the worker", lambda stage, _: [stage.worker.pid], new_worker),
    killed("worker and flow; the reconciler", lambda stage, pids: [stage.worker.pid, pids.flow], new_machine),
    killed("the server", lambda stage, _: [stage.server.pid], new_server),
    killed("server and flow", lambda stage, pids: [stage.server.pid, pids.flow], new_server),
]


def overhead(stage: Stage) -> Iterator[Row]:
    """One collection, loaded and then found current, in three ways, each in a store of its own."""
    spec = stage.folder / "here.toml"
    text = (stage.folder / "revector.toml").read_text()
    spec.write_text("\n".join(line for line in text.splitlines() if not line.startswith(("run =", "workers ="))))

    def by_prefect(store: str) -> None:
        deployment = stage.client.read_deployment_by_name(f"revector-sync/{NAME}")
        run = stage.client.create_flow_run_from_deployment(deployment.id, parameters={"store": store})
        stage.ended(UUID(str(run.id)))

    ways: dict[str, Callable[[str], None]] = {
        "revector apply": lambda store: stage.revector("apply", NAME, f"--config={spec}", f"--store={store}"),
        "revector apply --cluster": lambda store: stage.revector("apply", NAME, f"--cluster={stage.cluster}", f"--store={store}"),
        "Prefect and the Jobs API": by_prefect,
    }
    for what in ("loaded", "found current"):
        for name, way in ways.items():
            began = time.monotonic()
            way(f"s3://{BUCKET}/overhead/{name.replace(' ', '_').replace('-', '')}")
            yield Row(f"{stage.added:,} documents {what} by {name}", "", time.monotonic() - began)


ACTS_ON_A_CLUSTER: list[Callable[[Stage], Iterator[Row]]] = [
    killed(
        "worker, flow and the command that follows the job; the reconciler",
        lambda stage, pids: [stage.worker.pid, *children(pids.flow), pids.flow],
        new_machine,
    ),
    overhead,
]


if __name__ == "__main__":
    main()
