"""Whatever an actor does, every other content is embedded, exactly once."""

import os
import sys
import time
from itertools import count
from typing import Any

import numpy as np
import pytest

from pipelines.errors import ModelError, WorkerError
from tests.conftest import Workplace
from workers import filling, pool
from workers.embed import Receipt, Shard

RAW = pool.EmbedActor


class Faulty(RAW):
    """Does to a shard what one of its texts says."""

    def run(self, shard: Shard) -> Receipt:
        from pipelines.errors import ModelError
        from storage.tables import take

        chunks = self._embedding.store.open(self._embedding.chunk_table, self._embedding.chunk_version)
        texts = take(chunks, shard.addresses, ["text"])["text"].to_pylist()
        if "exit" in texts:
            os._exit(1)
        if "hang" in texts:
            time.sleep(3600)
        if "raise" in texts:
            raise ValueError("what the text says must not be told")
        if "refuse" in texts:
            raise ModelError("expected a good model, found a bad one")
        return super().run(shard)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch, ray_cluster: Any) -> None:
    ray_cluster.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(pool, "EmbedActor", Faulty)


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(
    ("fault", "reason"), [("exit", "its worker died"), ("hang", "no result within 2 s"), ("raise", "ValueError in the worker")]
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


class Unloadable(RAW):
    def load(self) -> None:
        raise ImportError("no such library")


def test_a_worker_that_cannot_load_its_model_says_why(workplace: Workplace, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ray_cluster.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(pool, "EmbedActor", Unloadable)
    monkeypatch.setattr(pool, "FRUITLESS", 2)
    workplace.write("a.parquet", {"d0": "text"})
    with pytest.raises(WorkerError, match="2 failures in a row: ImportError in the worker"):
        workplace.apply()


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
