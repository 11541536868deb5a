"""A command that is sent to a Ray cluster ends there as it would here, can be left, found again and stopped, and survives its driver."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from flows import apply
from flows.elsewhere.submission import Order, perform
from pipelines.errors import WorkerError
from pipelines.spec.parsing import load_spec
from storage.collection import Collection
from storage.history.fence import take_fence
from storage.history.ledger import Run
from storage.history.watch import newest
from storage.store.lance import Store
from tests.conftest import Workplace
from tests.support.jobserver import TOKEN, JobServer, job_server
from workers.cluster.connection import RAY_ENVIRONMENT
from workers.cluster.job_access import is_loopback
from workers.cluster.jobs import Job, Jobs, connect

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")]  # Ray's own

ON_GPUS = 'workers = { actors = 2, gpus_per_actor = 1, label = { pool = "gpu" } }'
DOCUMENTS = {f"d{number}": " ".join([f"text number {number}"] * 30) for number in range(900)}
ELSEWHERE = "0.0.0.0"
"""An address of this machine that does not say so."""
QUIET = {"TERM": "dumb", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobServer]:
    with job_server(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def token(server: JobServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process may submit jobs."""
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(server.token))


@pytest.fixture
def jobs(server: JobServer, token: None) -> Jobs:
    return connect(server.url)


@pytest.fixture
def corpus(workplace: Workplace) -> Workplace:
    workplace.spec(rest=ON_GPUS)
    workplace.write("a.parquet", DOCUMENTS)
    return workplace


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """However a test ends, its commands do, too."""
    yield
    for process in STARTED:
        process.kill()
        process.wait()
    STARTED.clear()


class Command:
    """`revector` as a person runs it, in a process of its own."""

    def __init__(self, here: Workplace, *arguments: str, environment: dict[str, str] | None = None, module: str = "flows.cli") -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("REVECTOR_", "RAY_"))}
        root = str(Path(__file__).parents[3])
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            cwd=here.root,
            env=kept | QUIET | {"PYTHONPATH": root} | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        STARTED.append(self.process)

    def says(self, wanted: str) -> str:
        """What it has told a person once it says `wanted`. Fails if it never does."""
        assert self.process.stderr
        told = ""
        while wanted not in told:
            line = self.process.stderr.readline()
            assert line, told
            told += line
        return told

    def end(self) -> "Command":
        self.out, self.err = self.process.communicate(timeout=120)
        self.code = self.process.returncode
        return self

    @property
    def result(self) -> Any:
        return json.loads(self.out)


def until(probe: Callable[[], Any], seconds: float = 120.0) -> Any:
    """What `probe` gives once that is true. Fails if it never is."""
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
    return found


@contextmanager
def held(here: Workplace) -> Iterator[Callable[[], None]]:
    """Actors wait at their first shard, until what is given is called."""
    hold = here.root / "hold"
    hold.touch()
    try:
        yield hold.unlink
    finally:
        hold.unlink(missing_ok=True)


def actors(here: Workplace) -> dict[int, str]:
    """Process ids of the actors that a model was loaded in, and the pools of their nodes."""
    notes = here.root / "nodes"
    return {int(note.name): note.read_text() for note in notes.iterdir()} if notes.exists() else {}


def alive(pids: Any) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]]


def drivers(here: Workplace) -> list[int]:
    """Process ids of the runs so far."""
    return [json.loads(fence.read_bytes())["pid"] for fence in sorted((here.root / "store/_revector/docs/fence").glob("*.json"))]


def run_ids(here: Workplace) -> list[str]:
    return sorted(folder.name for folder in (here.root / "store/_revector/docs/runs").glob("*"))


def record(here: Workplace, run_id: str) -> Any:
    return Run(Collection(Store(here.store), "docs"), run_id).read("result.json")


def check_whole(here: Workplace) -> None:
    """Nothing is lost, nothing doubled."""
    assert here.texts() == {f"{id}#0": text for id, text in DOCUMENTS.items()}


def test_a_command_on_a_cluster_ends_as_here_on_the_nodes_that_the_spec_names_and_carries_no_secret(
    server: JobServer, jobs: Jobs, corpus: Workplace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = {"AWS_SECRET_ACCESS_KEY": "canary-7d1f", "REVECTOR_CANARY": "canary-7d1f"}
    sent = Command(corpus, "apply", "--json", f"--cluster={server.url}", environment=server.environment() | secret).end()
    here = Workplace(tmp_path_factory.mktemp("here"))
    here.spec()
    here.write("a.parquet", DOCUMENTS)
    local = apply(config=here.config)

    assert sent.code == 0, sent.err
    assert f"run {sent.result['run_id']} begins on {server.url}" in sent.err
    for measure in ("collection", "generation", "space", "status", "documents", "chunks", "embed", "dead_letters"):
        assert sent.result[measure] == getattr(local, measure)
    assert corpus.published().equals(here.published())
    assert set(actors(corpus).values()) == {"gpu"}
    assert record(corpus, sent.result["run_id"])["status"] == "published"
    where = Run(Collection(Store(corpus.store), "docs"), sent.result["run_id"]).read("intent.json")["where"]
    assert (where["kind"], where["cluster"], where["submission"]) == ("ray job", server.url, sent.result["run_id"])

    details = jobs._client.get_job_info(sent.result["run_id"])
    everything = f"{details} {jobs._client.get_job_logs(sent.result['run_id'])} {sent.err} {sent.out}"
    assert TOKEN not in everything
    assert "canary" not in everything


def test_exit_codes_come_through(server: JobServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    def place(gates: str = "") -> Workplace:
        made = Workplace(tmp_path_factory.mktemp("place"))
        made.spec(source='uri = "data/*.jsonl", id = "id", text = "text"', rest=gates)
        (made.root / "data").mkdir()
        (made.root / "data/a.jsonl").write_text("this is not JSON\n")
        return made

    gate_fails, partial, taken = place("gates = { max_failed = 0 }"), place("gates = { max_failed = 1 }"), place()
    take_fence(Collection(Store(taken.store), "docs"), "the-other-run")
    with ThreadPoolExecutor() as pool:
        ended = list(
            pool.map(
                lambda where: Command(where, "apply", "--json", f"--cluster={server.url}", environment=server.environment()).end(),
                (gate_fails, partial, taken),
            )
        )
        usage = pool.submit(_misused, server, gate_fails)
    assert [command.code for command in ended] == [3, 4, 5]
    assert [command.result["status"] for command in ended[:2]] == ["built", "partial"]
    assert "run the-other-run of docs is in progress" in ended[2].err.splitlines()[-1]
    assert usage.result() == 64


def _misused(server: JobServer, here: Workplace) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(server.token))
        return perform(Order("apply", load_spec(here.config), "docs", ("--nonsense",)), server.url, None, lambda _: None).code


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"RAY_AUTH_TOKEN": "of another cluster"}, "found another, which it does not take"),
        ({"HOME": "/nowhere"}, "found none: put it into a file that RAY_AUTH_TOKEN_PATH names"),
        (
            {"RAY_AUTH_TOKEN_PATH": "/nowhere/token"},
            "expected Ray's token in /nowhere/token (RAY_AUTH_TOKEN_PATH), found FileNotFoundError",
        ),
    ],
)
def test_without_the_right_token_one_line_says_so(
    server: JobServer, monkeypatch: pytest.MonkeyPatch, told: dict[str, str], message: str
) -> None:
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WorkerError) as refused:
        connect(server.url)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


class OpenToAll(BaseHTTPRequestHandler):
    """Answers as a Jobs API that asks nobody for a token, and fails if it is told one."""

    def do_GET(self) -> None:
        assert "Authorization" not in self.headers
        known = self.path == "/api/version"
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(b'{"ray_version": "2.60.0"}' if known else b"Job revector does not exist")


def test_a_cluster_elsewhere_that_takes_jobs_from_anybody_is_refused_and_so_are_paths_of_this_machine(
    server: JobServer, corpus: Workplace
) -> None:
    for handler, told in (
        (OpenToAll, "found one that takes jobs from anybody: start it"),
        (BaseHTTPRequestHandler, "something else .HTTP 501"),
    ):
        with HTTPServer(("127.0.0.1", 0), handler) as answering:
            Thread(target=answering.serve_forever, daemon=True).start()
            try:
                with pytest.raises(WorkerError, match=told):
                    connect(f"http://{ELSEWHERE}:{answering.server_port}")
            finally:
                answering.shutdown()
    with pytest.raises(WorkerError, match=r"expected Ray's Jobs API at http://127.0.0.1:1, found ConnectionError"):
        connect("http://127.0.0.1:1")
    assert [is_loopback(f"http://{host}:1") for host in ("127.0.0.2", "localhost", "[::1]", "10.0.0.1", "localhost.example")] == [
        True,
        True,
        True,
        False,
        False,
    ]

    corpus.spec(model='name = "./model"', rest='gates = { queries = "queries.jsonl" }\nreports = { labels = { seeds = "seeds.csv" } }')
    sent = Command(corpus, "apply", f"--cluster={server.url.replace('127.0.0.1', ELSEWHERE)}", environment=server.environment()).end()
    assert sent.code == 64
    for place in (f"store = {corpus.store}", "source.uri = ", "gates.queries = ", "reports.labels.seeds = ", "model.name = "):
        assert place in sent.err


def test_a_follower_that_is_stopped_stops_its_job_and_leaves_nothing(server: JobServer, corpus: Workplace) -> None:
    with held(corpus):
        sent = Command(corpus, "apply", f"--cluster={server.url}", environment=server.environment())
        at_work = until(lambda: len(found := actors(corpus)) == 2 and found)
        sent.process.terminate()
        sent.end()
        until(lambda: not alive([*drivers(corpus), *at_work]))
    assert sent.code == 130
    assert sent.err.splitlines()[-1] == "revector: stopped; the same command goes on from here"
    (run_id,) = run_ids(corpus)
    assert record(corpus, run_id)["status"] == "cancelled"


def test_a_driver_that_is_killed_is_replaced_and_whoever_watches_is_shown_the_next(server: JobServer, corpus: Workplace) -> None:
    with held(corpus) as let_go:
        sent = Command(corpus, "apply", "--json", f"--cluster={server.url}", environment=server.environment())
        until(lambda: len(actors(corpus)) == 2)
        (first,) = run_ids(corpus)
        watching = Command(corpus, "attach", first[:12], "--json", environment=server.environment())
        (driver,) = drivers(corpus)
        os.kill(driver, signal.SIGKILL)
        until(lambda: len(run_ids(corpus)) == 2)
        let_go()
        sent.end()
        watching.end()
    assert sent.code == watching.code == 0, sent.err + watching.err
    assert f"the driver of run {first} died (exit code -9)" in sent.err
    assert run_ids(corpus) == [first, f"{first}-2"]
    assert sent.result == watching.result
    assert (sent.result["run_id"], sent.result["status"]) == (f"{first}-2", "published")
    check_whole(corpus)


def test_a_run_that_was_left_is_found_again_by_its_id_followed_by_the_store_alone_and_cancelled(
    server: JobServer, jobs: Jobs, corpus: Workplace
) -> None:
    with held(corpus):
        left = Command(corpus, "apply", "--detach", "--json", f"--cluster={server.url}", environment=server.environment()).end()
        assert left.code == 0, left.err
        run_id = left.result["run_id"]
        assert left.result == {"run_id": run_id, "cluster": server.url}
        until(lambda: actors(corpus))
        same = Command(corpus, "apply", f"--run-id={run_id}", f"--cluster={server.url}", environment=server.environment())
        stranger = Command(corpus, "attach", run_id, environment={"HOME": "/nowhere"})  # has no token
        until(lambda: jobs.find(run_id))
        followed = stranger.says("starting the model")  # its progress
        cancelled = Command(corpus, "cancel", run_id[:18], "--json", environment={"HOME": "/nowhere"}).end()
        same.end()
        stranger.end()
    assert (cancelled.code, cancelled.result) == (0, {"run_id": run_id, "status": "cancelled"})
    assert (same.code, stranger.code) == (130, 130)
    assert f"run {run_id} goes on on" in same.err
    assert "note: by the store alone: expected the token" in followed
    assert [job.id for job in jobs.ours()].count(run_id) == 1
    assert (found := jobs.find(run_id)) and (found.state, found.exit_code) == ("FAILED", 130)
    again = Command(corpus, "cancel", run_id, environment=server.environment()).end()
    assert (again.code, again.out) == (0, f"run {run_id} had ended before: cancelled\n")


def test_a_job_that_has_not_begun_its_run_is_cancelled_by_the_cluster(server: JobServer, corpus: Workplace) -> None:
    left = Command(corpus, "apply", "--detach", "--json", f"--cluster={server.url}", environment=server.environment()).end()
    run_id = left.result["run_id"]
    unknown = Command(corpus, "cancel", run_id, environment=server.environment())
    ended = Command(corpus, "cancel", run_id, "--json", f"--cluster={server.url}", environment=server.environment()).end()
    assert (ended.code, ended.result["status"]) == (0, "cancelled"), ended.err
    assert unknown.end().code in (0, 1)


def test_a_process_is_followed_and_told_to_be_dead(server: JobServer, corpus: Workplace) -> None:
    environment = RAY_ENVIRONMENT | server.environment() | {"RAY_ADDRESS": server.address}
    with held(corpus):
        running = Command(corpus, "apply", "docs", f"--store={corpus.store}", environment=environment, module="tests.support.held")
        until(lambda: actors(corpus))
        (run_id,) = run_ids(corpus)
        watching = Command(corpus, "attach", run_id)
        time.sleep(1.0)
        running.process.kill()
        running.end()
        watching.end()
        told = Command(corpus, "cancel", run_id).end()
    assert watching.code == 1
    assert "found that its process is gone" in watching.err.splitlines()[-1]
    assert "`revector apply docs` goes on from there" in watching.err
    assert (told.code, told.out) == (0, f"run {run_id} had died before\n")


def test_the_newest_attempt_of_a_run_is_meant_by_its_beginning() -> None:
    ids = ["20260301T030000000000-aa", "20260301T030000000000-aa-2", "20260301T030000000000-aa-10", "20260302T030000000000-ab-1"]
    assert newest(ids, "20260301") == ids[2]
    assert newest(ids, ids[1]) == ids[1]
    assert newest([*ids, f"{ids[1]}-2"], ids[1]) == f"{ids[1]}-2"
    assert newest(ids, "2027") is None


@pytest.mark.parametrize(
    ("exit_code", "error", "lost"),
    [(-9, None, True), (137, None, True), (None, "JOB_SUPERVISOR_ACTOR_DIED", True), (None, "RUNTIME_ENV_SETUP_FAILURE", False)]
    + [(code, "JOB_ENTRYPOINT_COMMAND_ERROR", False) for code in (1, 3, 4, 5, 64, 130)],
)
def test_which_ends_are_the_loss_of_a_driver(exit_code: int | None, error: str | None, lost: bool) -> None:
    assert Job("id", "FAILED", exit_code, {}, error, "").lost is lost
