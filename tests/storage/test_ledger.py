"""The ledger: of any number of writers one is first, and only the run that holds the last token commits."""

import itertools
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.errors import Conflict
from storage import who
from storage.history import heartbeat, ledger
from storage.history.fence import Fence, take_fence
from storage.history.heartbeat import Heartbeat, cancel
from storage.history.ledger import Run, runs
from storage.store.objects import Objects
from storage.who import new_run_id

HOLD = """
import sys, time
from storage.ledger import Heartbeat, Run, take_fence
from storage.objects import Objects
objects = Objects(sys.argv[1])
take_fence(objects, "c", "held")
with Heartbeat(Run(objects, "c", "held")):
    print("taken", flush=True)
    time.sleep(60)
"""
SOON = 0.2


@pytest.fixture
def objects(root: str) -> Objects:
    return Objects(root)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(seconds: float) -> None:
        raise AssertionError(f"expected an answer at once, found a wait of {seconds} s")

    monkeypatch.setattr(ledger, "time", SimpleNamespace(sleep=refuse))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, this process looks as if it ran on another host, where heartbeats are quick."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", SOON)
    monkeypatch.setattr(heartbeat, "LOOK_SECONDS", SOON / 4)
    return lambda: monkeypatch.setattr(who, "_host", lambda: "another")


@contextmanager
def holder(objects: Objects) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the token of collection `c`."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", HOLD, objects.root], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        yield process
    finally:
        process.kill()
        process.wait()


def test_run_is_refused_while_another_one_lives_and_follows_at_once_when_it_was_killed(objects: Objects, no_waiting: None) -> None:
    with holder(objects) as process:
        with pytest.raises(Conflict, match=f"run held of c is in progress .process {process.pid} on"):
            take_fence(objects, "c", "next")
        take_fence(objects, "another collection", "next")
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but still in the list of processes
        assert take_fence(objects, "c", "next").token == 2


def test_run_follows_at_once_when_the_last_one_has_ended_in_a_process_that_lives_on(objects: Objects, no_waiting: None) -> None:
    first = take_fence(objects, "c", "first")
    with pytest.raises(Conflict):
        take_fence(objects, "c", "second")
    Run(objects, "c", "first").write("result.json", {"status": "failed"})
    second = take_fence(objects, "c", "second")
    assert (first.token, second.token) == (1, 2)
    second.check()
    with pytest.raises(Conflict, match="run first of c was overtaken by run second"):
        first.check()


def test_process_with_the_number_of_a_dead_one_is_not_taken_for_it(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(who, "_start_time", lambda pid: "before the last reboot")
        take_fence(objects, "c", "first")
    assert take_fence(objects, "c", "second").token == 2


def test_process_that_ends_while_it_is_looked_at_is_dead(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    take_fence(objects, "c", "first")
    real = Path.read_text

    def vanish(path: Path) -> str:
        if path.name == "stat" and path.parts[1] == "proc":
            raise ProcessLookupError(3, "No such process", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_text", vanish)
    assert take_fence(objects, "c", "second").token == 2


def test_holder_on_another_host_is_overtaken_only_when_its_heart_stands_still(objects: Objects, elsewhere: Callable[[], None]) -> None:
    take_fence(objects, "c", "first")
    with Heartbeat(Run(objects, "c", "first")):
        elsewhere()
        for _ in range(2):
            with pytest.raises(Conflict, match="in progress"):
                take_fence(objects, "c", "second")
    assert take_fence(objects, "c", "second").token == 2


def test_holder_on_another_host_that_never_had_a_heartbeat_is_overtaken(objects: Objects, elsewhere: Callable[[], None]) -> None:
    take_fence(objects, "c", "first")
    elsewhere()
    assert take_fence(objects, "c", "second").token == 2


def test_overtaken_run_is_told_however_many_came_after_it(objects: Objects) -> None:
    fences: list[Fence] = []
    for name in ("a", "b", "c"):
        fences.append(take_fence(objects, "c", name))
        Run(objects, "c", name).write("result.json", {})
    for fence in fences[:2]:
        with pytest.raises(Conflict):
            fence.check()
    fences[2].check()


def test_of_runs_that_begin_at_once_one_gets_the_token(objects: Objects) -> None:
    barrier = threading.Barrier(8)

    def begin(name: str) -> bool:
        barrier.wait()
        try:
            take_fence(Objects(objects.root), "c", name)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(begin, map(str, range(8)))) == 1


def claim(root: str, writer: int) -> list[int]:
    objects = Objects(root)
    return [key for key in range(50) if objects.put_if_absent(f"keys/{key}", b"%d" % writer * 1000)]


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_of_any_number_of_writers_of_a_key_one_wins(objects: Objects, pool: str) -> None:
    if pool == "threads":
        with ThreadPoolExecutor(8) as threads:
            won = list(threads.map(claim, [objects.root] * 8, range(8)))
    else:
        with multiprocessing.get_context("spawn").Pool(3) as processes:
            won = processes.starmap(claim, [(objects.root, writer) for writer in range(3)], chunksize=1)
    assert sorted(key for keys in won for key in keys) == list(range(50))
    for writer, keys in enumerate(won):
        for key in keys:
            assert objects.get(f"keys/{key}") == b"%d" % writer * 1000
    assert objects.names("keys") == sorted(map(str, range(50)))  # nothing half-written lies beside them


def test_first_receipt_of_a_shard_is_kept_and_one_whose_reply_was_lost_counts_as_first(objects: Objects) -> None:
    run = Run(objects, "c", new_run_id())
    assert run.receipt(1, {"by": "first"})
    assert run.receipt(0, {"by": "another shard"})
    assert not run.receipt(1, {"by": "second"})
    assert run.receipt(1, {"by": "first"})
    assert [run.read(f"shards/{shard:06d}.json") for shard in (0, 1)] == [{"by": "another shard"}, {"by": "first"}]


def test_cancelled_run_is_interrupted_wherever_it_runs(objects: Objects) -> None:
    run = Run(objects, "c", "held")
    with pytest.raises(KeyboardInterrupt), Heartbeat(run) as heart:
        cancel(Run(Objects(objects.root), "c", "held"), "a person elsewhere")
        threading.Event().wait(30)
    assert heart.cancelled


def test_heartbeat_says_how_far_the_run_is(objects: Objects, elsewhere: Callable[[], None]) -> None:
    run, shards = Run(objects, "c", "held"), itertools.count()
    with Heartbeat(run, lambda: {"shards": next(shards)}):
        deadline = time.monotonic() + 30
        while (told := run.read("heartbeat.json")) and told["progress"]["shards"] < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert told == {"beat": told["beat"], "progress": {"shards": told["beat"]}}


def test_records_are_replaced_whole_and_runs_listed_in_order(objects: Objects) -> None:
    names = sorted(new_run_id() for _ in range(3))
    for name in names[::-1]:
        Run(objects, "c", name).write("intent.json", {"n": 1})
        Run(objects, "c", name).write("intent.json", {"n": 2})
    assert [run.run_id for run in runs(objects, "c")] == names
    assert [run.read("intent.json") for run in runs(objects, "c")] == [{"n": 2}] * 3
    assert runs(objects, "c")[0].read("result.json") is None
