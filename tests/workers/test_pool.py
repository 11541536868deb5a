"""Whatever an actor does, every other content is embedded, exactly once."""

import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.errors import ModelError, WorkerError
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from pipelines.spec.running import WorkersSpec
from tests.conftest import Workplace
from workers.embedding import actor, pool
from workers.embedding.embed_shard import Embedding, Receipt, Shard
from workers.encoders.encoder import Encoded, Prepared
from workers.runs import filling

RAW = actor.EmbedActor


class Faulty(RAW):
    """Does to a shard what one of its texts says."""

    def load(self) -> str:
        self._away = [False, True, True, True]
        how = super().load()
        forward = self._encoder.forward

        def spoilt(prepared: Prepared) -> Encoded:
            encoded = forward(prepared)
            encoded.vectors[[text == "nan" for text in prepared.texts]] = np.nan  # type: ignore[attr-defined]
            return encoded

        self._encoder.forward = spoilt  # type: ignore[method-assign]
        return how

    def run(self, embedding: Embedding, shard: Shard) -> Receipt:
        from pipelines.errors import ModelError
        from storage.store.lance import take

        chunks = embedding.store.open(embedding.chunk_table, embedding.chunk_version)
        texts = take(chunks, shard.addresses, ["text"])["text"].to_pylist()
        if "kill" in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in texts:
            time.sleep(3600)
        for path in texts:
            if path.startswith("/"):  # hangs for long once, then answers; works for long the next time
                time.sleep(1.5 if Path(path).exists() else not Path(path).touch() and 4)
        if "away" in texts and self._away.pop():
            raise ConnectionError("the store is away")
        if "raise" in texts:
            raise ValueError("what the text says must not be told")
        if "refuse" in texts:
            raise ModelError("expected a good model, found a bad one")
        return super().run(embedding, shard)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch, ray_cluster: Any) -> None:
    ray_cluster.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(pool, "EmbedActor", Faulty)


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("kill", "its worker died"),
        ("hang", "no result within 2 s"),
        ("raise", "ValueError in the worker"),
        ("nan", "a component does not fit float16"),
    ],
)
def test_a_content_that_breaks_its_worker_costs_only_itself(workplace: Workplace, fault: str, reason: str) -> None:
    workplace.spec(rest="workers = { actors = 1, deadline = 2 }\ngates = { max_failed = 0.5 }")
    workplace.write("a.parquet", {f"d{number}": f"text {number}" for number in range(3)} | {"bad": fault})
    done = workplace.apply()
    assert (done.status, done.dead_letters) == ("partial", 1)
    assert sorted(workplace.texts()) == ["d0#0", "d1#0", "d2#0"]
    run = next((workplace.root / "store/_revector/docs/runs").iterdir())
    result = (run / "result.json").read_text()
    assert f'"id":"bad#0","reason":"{reason}"' in result
    assert "must not be told" not in result


@pytest.mark.usefixtures("faulty")
def test_an_input_that_fails_in_the_process_of_the_command_is_left_to_the_pool(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError

    monkeypatch.setattr(filling, "on_cluster", lambda: False)
    monkeypatch.setattr(filling, "embed_shard", fail)
    workplace.spec(rest="workers = { actors = 1 }\ngates = { max_failed = 0.5 }")
    workplace.write("a.parquet", {f"d{number}": f"text {number}" for number in range(3)} | {"bad": "raise"})
    done = workplace.apply()
    assert (done.status, done.dead_letters) == ("partial", 1)
    assert sorted(workplace.texts()) == ["d0#0", "d1#0", "d2#0"]


@pytest.mark.usefixtures("faulty")
def test_what_is_wrong_for_every_shard_ends_the_run(workplace: Workplace) -> None:
    workplace.write("a.parquet", {"d0": "refuse"})
    with pytest.raises(ModelError, match="expected a good model, found a bad one"):
        workplace.apply()


@pytest.mark.usefixtures("faulty")
def test_a_store_that_is_away_is_not_the_input_s_fault(workplace: Workplace) -> None:
    workplace.spec(rest="workers = { actors = 1 }")
    workplace.write("a.parquet", {"d0": "away"})
    done = workplace.apply()
    assert (done.status, done.dead_letters) == ("published", 0)


@pytest.mark.usefixtures("faulty")
def test_an_answer_that_comes_after_its_actor_was_given_up_counts_no_more(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Any] = []
    monkeypatch.setattr(pool.Pool, "_kill", lambda self, member: left.append(member.actor))  # it cannot be reached
    workplace.spec(rest="workers = { actors = 1, deadline = 3 }")
    workplace.write("a.parquet", {"d0": "text 0", "late": str(workplace.root / "late")})
    done = workplace.apply()
    for process in left:
        sys.modules["ray"].kill(process)
    assert (done.status, done.embed["contents"]) == ("published", 2)
    assert sorted(workplace.texts()) == ["d0#0", "late#0"]


@pytest.mark.usefixtures("ray_cluster")
def test_a_driver_that_was_paused_past_the_deadline_takes_what_was_done_meanwhile(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, replaced = filling.Filling._accept, []

    def slow(self: filling.Filling, receipt: Receipt) -> None:
        time.sleep(1.5)
        accept(self, receipt)

    monkeypatch.setattr(filling.Filling, "_accept", slow)
    monkeypatch.setattr(filling, "FIRST_SHARD_TOKENS", 20)
    monkeypatch.setattr(filling, "SHARD_SECONDS", 0.0)
    monkeypatch.setattr(pool.Pool, "_replace", lambda *_: replaced.append(1) or [])
    workplace.spec(rest="workers = { actors = 1, deadline = 1 }")
    workplace.write("a.parquet", {f"d{number}": f"text {number}" for number in range(12)})
    assert workplace.apply().status == "published"
    assert not replaced


class Leaking(RAW):
    """Is killed after every third shard."""

    shards = 0

    def run(self, embedding: Embedding, shard: Shard) -> Receipt:
        self.shards += 1
        if self.shards == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(embedding, shard)


def test_an_actor_that_leaks_until_it_is_killed_costs_no_input(
    workplace: Workplace, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray_cluster.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(pool, "EmbedActor", Leaking)
    monkeypatch.setattr(filling, "FIRST_SHARD_TOKENS", 20)
    monkeypatch.setattr(filling, "SHARD_SECONDS", 0.0)
    workplace.spec(rest="workers = { actors = 1 }")
    workplace.write("a.parquet", {f"d{number}": f"text {number}" for number in range(24)})
    done = workplace.apply()
    assert (done.status, done.dead_letters, done.embed["contents"]) == ("published", 0, 24)
    assert len(workplace.texts()) == 24


def test_what_ends_the_process_of_the_command_is_found_by_the_pool_the_next_time(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, faulty: None
) -> None:
    workplace.spec(rest="workers = { actors = 1 }\ngates = { max_failed = 0.5 }")
    workplace.write("a.parquet", {"d0": "text 0", "d1": "text 1", "bad": "kill"})
    ending = (
        "import os; from flows import apply; from workers.runs import filling;"
        "filling.embed_shard = lambda *_: os.kill(os.getpid(), 9); apply()"
    )
    assert subprocess.run([sys.executable, "-c", ending], cwd=workplace.root).returncode == -signal.SIGKILL
    monkeypatch.setattr(filling, "on_cluster", lambda: False)
    monkeypatch.setattr(filling, "embed_shard", lambda *_: pytest.fail("it would end this process, too"))
    done = workplace.apply()
    assert (done.status, done.dead_letters) == ("partial", 1)
    assert sorted(workplace.texts()) == ["d0#0", "d1#0"]


class Unloadable(RAW):
    def load(self) -> str:
        raise ImportError("no such library")


class TooLarge(RAW):
    def load(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""


@pytest.mark.parametrize(("actor", "reason"), [(Unloadable, "ImportError in the worker"), (TooLarge, "its worker died")])
def test_a_model_that_loads_nowhere_is_an_error_that_says_why(
    workplace: Workplace, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch, actor: type[RAW], reason: str
) -> None:
    ray_cluster.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(pool, "EmbedActor", actor)
    workplace.write("a.parquet", {"d0": "text"})
    with pytest.raises(WorkerError, match=f"found {reason} on every node that has a place"):
        workplace.apply()


def test_a_pool_replaces_an_actor_that_dies_between_two_questions_and_ends_all_whatever_happens(ray_cluster: Any) -> None:
    model = resolve_model(ModelSpec(name="hash", dimensions=8))

    def pids() -> list[int]:
        return [each["Pid"] for each in ray_cluster._private.state.actors().values() if each["State"] == "ALIVE"]

    with pytest.raises(KeyError), pool.Pool(ray_cluster, model, WorkersSpec(actors=1), 1) as asked:
        before = asked.encode(["a text"], "document")
        (pid,) = pids()
        os.kill(pid, signal.SIGKILL)
        np.testing.assert_array_equal(asked.encode(["a text"], "document"), before)
        assert pids() != [pid]
        raise KeyError
    until = time.monotonic() + 60
    while pids():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.usefixtures("ray_cluster")
def test_a_place_that_no_node_offers_is_an_error_after_a_deadline(workplace: Workplace) -> None:
    workplace.spec(rest='workers = { actors = 1, ready = 2, label = { pool = "gpu" } }')
    workplace.write("a.parquet", {"d0": "text"})
    with pytest.raises(WorkerError, match=r"labels \{'pool': 'gpu'\} within 2 s, found a cluster of \d+ CPU"):
        workplace.apply()


def test_halves_hold_what_the_whole_held() -> None:
    whole = Shard(0, np.arange(10, 15, dtype=np.uint64))
    left, right = whole.halves(count(1))
    assert [(half.number, half.contents) for half in (left, right)] == [(1, 3), (2, 2)]
    assert np.concatenate([left.addresses, right.addresses]).tolist() == whole.addresses.tolist()
