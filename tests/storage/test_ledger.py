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
from storage.collection import Collection
from storage.history import fence, heartbeat
from storage.history.fence import Fence, take_fence
from storage.history.heartbeat import Heartbeat, cancel
from storage.history.ledger import Run, runs
from storage.store.lance import Store
from storage.store.objects import Objects
from storage.who import new_run_id

HOLD = """
import sys, time
from storage.collection import Collection
from storage.history.fence import take_fence
from storage.history.heartbeat import Heartbeat
from storage.history.ledger import Run
from storage.store.lance import Store
collection = Collection(Store(sys.argv[1]), "c")
take_fence(collection, "held")
with Heartbeat(Run(collection, "held")):
    print("taken", flush=True)
    time.sleep(60)
"""
SOON = 0.2


@pytest.fixture
def collection(root: str) -> Collection:
    return Collection(Store(root), "c")


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(seconds: float) -> None:
        raise AssertionError(f"expected an answer at once, found a wait of {seconds} s")

    monkeypatch.setattr(fence, "time", SimpleNamespace(sleep=refuse))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, this process looks as if it ran on another host, where heartbeats are quick."""
    for module in (heartbeat, fence):
        monkeypatch.setattr(module, "HEARTBEAT_SECONDS", SOON)
    monkeypatch.setattr(heartbeat, "LOOK_SECONDS", SOON / 4)
    return lambda: monkeypatch.setattr(who, "_host", lambda: "another")


@contextmanager
def holder(collection: Collection) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the token of collection `c`."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", HOLD, collection.store.root], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        yield process
    finally:
        process.kill()
        process.wait()


def test_run_is_refused_while_another_one_lives_and_follows_at_once_when_it_was_killed(collection: Collection, no_waiting: None) -> None:
    with holder(collection) as process:
        with pytest.raises(Conflict, match=f"run held of c is in progress .process {process.pid} on"):
            take_fence(collection, "next")
        take_fence(Collection(collection.store, "another collection"), "next")
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but still in the list of processes
        assert take_fence(collection, "next").token == 2


def test_run_follows_at_once_when_the_last_one_has_ended_in_a_process_that_lives_on(collection: Collection, no_waiting: None) -> None:
    first = take_fence(collection, "first")
    with pytest.raises(Conflict):
        take_fence(collection, "second")
    Run(collection, "first").write("result.json", {"status": "failed"})
    second = take_fence(collection, "second")
    assert (first.token, second.token) == (1, 2)
    second.check()
    with pytest.raises(Conflict, match="run first of c was overtaken by run second"):
        first.check()


def test_process_with_the_number_of_a_dead_one_is_not_taken_for_it(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(who, "_start_time", lambda pid: "before the last reboot")
        take_fence(collection, "first")
    assert take_fence(collection, "second").token == 2


def test_process_that_ends_while_it_is_looked_at_is_dead(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    take_fence(collection, "first")
    real = Path.read_text

    def vanish(path: Path) -> str:
        if path.name == "stat" and path.parts[1] == "proc":
            raise ProcessLookupError(3, "No such process", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_text", vanish)
    assert take_fence(collection, "second").token == 2


def test_holder_on_another_host_is_overtaken_only_when_its_heart_stands_still(
    collection: Collection, elsewhere: Callable[[], None]
) -> None:
    take_fence(collection, "first")
    with Heartbeat(Run(collection, "first")):
        elsewhere()
        for _ in range(2):
            with pytest.raises(Conflict, match="in progress"):
                take_fence(collection, "second")
    assert take_fence(collection, "second").token == 2


def test_holder_on_another_host_that_never_had_a_heartbeat_is_overtaken(collection: Collection, elsewhere: Callable[[], None]) -> None:
    take_fence(collection, "first")
    elsewhere()
    assert take_fence(collection, "second").token == 2


def test_overtaken_run_is_told_however_many_came_after_it(collection: Collection) -> None:
    fences: list[Fence] = []
    for name in ("a", "b", "c"):
        fences.append(take_fence(collection, name))
        Run(collection, name).write("result.json", {})
    for overtaken in fences[:2]:
        with pytest.raises(Conflict):
            overtaken.check()
    fences[2].check()


def test_of_runs_that_begin_at_once_one_gets_the_token(collection: Collection) -> None:
    barrier = threading.Barrier(8)

    def begin(name: str) -> bool:
        barrier.wait()
        try:
            take_fence(collection, name)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(begin, map(str, range(8)))) == 1


def claim(root: str, writer: int) -> list[int]:
    objects = Objects(root)
    return [key for key in range(50) if objects.put_if_absent(f"keys/{key}", b"%d" % writer * 1000)]


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_of_any_number_of_writers_of_a_key_one_wins(collection: Collection, pool: str) -> None:
    objects = collection.objects
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


def test_first_receipt_of_a_shard_is_kept_and_one_whose_reply_was_lost_counts_as_first(collection: Collection) -> None:
    run = Run(collection, new_run_id())
    assert run.receipt(1, {"by": "first"})
    assert run.receipt(0, {"by": "another shard"})
    assert not run.receipt(1, {"by": "second"})
    assert run.receipt(1, {"by": "first"})
    assert [run.read(f"shards/{shard:06d}.json") for shard in (0, 1)] == [{"by": "another shard"}, {"by": "first"}]


def test_cancelled_run_is_interrupted_wherever_it_runs(collection: Collection) -> None:
    run = Run(collection, "held")
    with pytest.raises(KeyboardInterrupt), Heartbeat(run) as heart:
        cancel(Run(collection, "held"), "a person elsewhere")
        threading.Event().wait(30)
    assert heart.cancelled


def test_heartbeat_says_how_far_the_run_is(collection: Collection, elsewhere: Callable[[], None]) -> None:
    run, shards = Run(collection, "held"), itertools.count()
    with Heartbeat(run, lambda: {"shards": next(shards)}):
        deadline = time.monotonic() + 30
        while (told := run.read("heartbeat.json")) and told["progress"]["shards"] < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert told == {"beat": told["beat"], "progress": {"shards": told["beat"]}}


def test_records_are_replaced_whole_and_runs_listed_in_order(collection: Collection) -> None:
    names = sorted(new_run_id() for _ in range(3))
    for name in names[::-1]:
        Run(collection, name).write("intent.json", {"n": 1})
        Run(collection, name).write("intent.json", {"n": 2})
    assert [run.run_id for run in runs(collection)] == names
    assert [run.read("intent.json") for run in runs(collection)] == [{"n": 2}] * 3
    assert runs(collection)[0].read("result.json") is None
