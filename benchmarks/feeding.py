"""How many actors one driver can feed: the same load on a disk and on an S3 server, with actors whose model sleeps for its GPU time.

python -m benchmarks.feeding --rounds 3

Two tables. Throughput with 1, 2 and 4 actors of a model that does `--rate` tokens a second, whatever else the machine does. And what a
shard costs the driver, measured with shards that cost the actors nothing: seconds in which it does not wait for an actor, commits
included, and its processor time. The first bounds the actors that it can feed: their shards come one after another through it.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import SCRATCH, interleaved, machine, measure, publish, ratios, spread, table
from flows import apply
from tests.support.objectstore import BUCKET, serve
from workers.cluster.connection import OBJECT_STORE_BYTES, RAY_ENVIRONMENT
from workers.embedding import actor, pool
from workers.encoders.encoder import Encoded, Prepared
from workers.runs import filling

ACTORS = (1, 2, 4)
WORDS = 100
"""Of a text: tokens of the stand-in."""
SHARD_SECONDS = 1.5
REAL_SHARD_SECONDS = filling.SHARD_SECONDS
"""What shards are cut for in earnest."""
FREE_SHARD_TEXTS = 16
SPEC = """
store = "{store}"
[collections.load]
source = {{ uri = "data/*.parquet", id = "id", text = "text" }}
chunking = {{ by = "document" }}
model = {{ name = "hash", dimensions = 384 }}
workers = {{ actors = {actors} }}
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one command does."""

    store: str
    """ "disk" or "S3"."""
    actors: int
    texts: int
    rate: float
    """Tokens a second of an actor's model; 0: as fast as it can, in small shards."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--texts", type=int, default=4_000)
    arguments.add_argument("--rate", type=float, default=20_000)
    arguments.add_argument("--free-shards", type=int, default=200)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    free = options.free_shards * FREE_SHARD_TEXTS
    loads = [Load(store, actors, options.texts, options.rate) for store in ("disk", "S3") for actors in ACTORS]
    loads += [Load(store, 2, free, 0) for store in ("disk", "S3")]
    found: dict[Load, list[dict[str, Any]]] = defaultdict(list)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder, serve(Path(folder) / "server") as server:
        os.environ.update(server.environment())
        for load in interleaved(loads, options.rounds):
            found[load].append(run(load, Path(folder) / uuid.uuid4().hex))
            print(load, found[load][-1], file=sys.stderr, flush=True)
    publish(report(found, options.rate), options.out)


def run(load: Load, folder: Path) -> dict[str, Any]:
    """One command in a fresh process with an empty store."""
    (folder / "data").mkdir(parents=True)
    texts = [f"{number} " + "word " * (WORDS - 1) for number in range(load.texts)]
    pq.write_table(pa.table({"id": [str(number) for number in range(load.texts)], "text": texts}), folder / "data/texts.parquet")
    store = f"s3://{BUCKET}/{folder.name}" if load.store == "S3" else "store"
    (folder / "revector.toml").write_text(SPEC.format(store=store, actors=load.actors))
    root = str(Path(__file__).parent.parent)
    return measure([sys.executable, "-m", "benchmarks.feeding", "job", str(load.rate)], folder, PYTHONPATH=root).output


def job(rate: float) -> None:
    """In the process of the command: `apply`, with a model that sleeps, and a clock on what the driver does."""

    class Sleeping(actor.EmbedActor):
        def load(self) -> str:
            how = super().load()
            forward = self._encoder.forward

            def slow(prepared: Prepared) -> Encoded:
                seconds = int(prepared.units.sum()) / rate if rate else 0.0
                time.sleep(seconds)
                encoded = forward(prepared)
                return replace(encoded, seconds=encoded.seconds + seconds)

            self._encoder.forward = slow  # type: ignore[method-assign]
            return how

    pool.EmbedActor = Sleeping  # type: ignore[misc]
    filling.ACTOR_TOKENS, filling.HERE_SECONDS = 1, 0.0
    filling.SHARD_SECONDS = SHARD_SECONDS if rate else 0.0
    filling.FIRST_SHARD_TOKENS = int(rate * SHARD_SECONDS) or FREE_SHARD_TEXTS * WORDS
    os.environ.update(RAY_ENVIRONMENT)
    import ray

    # Actors that sleep need no processor of their own.
    ray.init(address="local", num_cpus=max(ACTORS), include_dashboard=False, log_to_driver=False, object_store_memory=OBJECT_STORE_BYTES)
    clocks = Clocks()
    with clocks.running():
        done = apply()
    workers = done.profile["workers"]
    shards = sum(worker["shards"] for worker in workers)
    print(
        json.dumps(
            {
                "tokens": done.embed["tokens"],
                "seconds": done.profile["stages"]["embed"],
                "model": sum(worker["model"] for worker in workers),
                "shards": shards,
                "busy": (clocks.whole - clocks.waiting) / shards,
                "commits": clocks.commits / shards,
                "processor": clocks.processor / shards,
            }
        )
    )


@dataclass
class Clocks:
    """Seconds of the driver, from the first receipt to the last commit."""

    whole: float = 0.0
    waiting: float = 0.0
    """For an actor."""
    commits: float = 0.0
    processor: float = 0.0
    """Of this process, all threads."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count while it is entered, in this process only."""
        import ray

        accept, embed, commit, wait = filling.Filling._accept, filling.Filling._embed, filling.Filling._commit, ray.wait
        began = (0.0, 0.0)

        def accepting(*arguments: Any) -> None:
            nonlocal began
            if not any(began):
                began = time.perf_counter(), time.process_time()
                self.waiting = 0.0
            accept(*arguments)

        def embedding(*arguments: Any) -> None:
            embed(*arguments)
            self.whole, self.processor = time.perf_counter() - began[0], time.process_time() - began[1]

        def committing(*arguments: Any) -> None:
            start = time.perf_counter()
            commit(*arguments)
            self.commits += time.perf_counter() - start

        def waiting(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return wait(*arguments, **options)
            finally:
                self.waiting += time.perf_counter() - start

        with patch.multiple(filling.Filling, _accept=accepting, _embed=embedding, _commit=committing), patch.object(ray, "wait", waiting):
            yield


def report(found: dict[Load, list[dict[str, Any]]], rate: float) -> str:
    """Both tables."""
    base = {load.store: rates(runs) for load, runs in found.items() if load.rate and load.actors == 1}
    fed, free = [], []
    for load, runs in found.items():
        if load.rate:
            busy = [each["model"] / (load.actors * each["seconds"]) for each in runs]
            speed = rates(runs)
            slower = ratios([1 / value for value in base[load.store]], [1 / value for value in speed])
            fed.append([load.store, str(load.actors), spread(speed, 0), slower, spread(busy)])
        else:
            costs = [[each[name] * 1000 for each in runs] for name in ("busy", "commits", "processor")]
            actors = [REAL_SHARD_SECONDS / each["busy"] for each in runs]
            free.append([load.store, str(runs[0]["shards"]), *(spread(cost, 1) for cost in costs), f"{median(actors):,.0f}"])
    return "\n\n".join(
        [
            f"### Feeding actors\n\n{machine()}; a model of {rate:,.0f} tokens a second, shards of {SHARD_SECONDS} s.",
            table(["store", "actors", "tokens a second", "times one actor", "model busy"], fed),
            f"A shard in the driver, ms; actors: that it could feed if a shard takes an actor {REAL_SHARD_SECONDS:g} s.",
            table(["store", "shards", "driver busy", "of it commits", "processor", "actors"], free),
        ]
    )


def rates(runs: list[dict[str, Any]]) -> list[float]:
    return [each["tokens"] / each["seconds"] for each in runs]


if __name__ == "__main__":
    if sys.argv[1:2] == ["job"]:
        job(float(sys.argv[2]))
    else:
        main()
