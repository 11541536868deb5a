"""The job of `revector apply` done otherwise: Parquet files of passages in, a table with their vectors out, on all cores.

python benchmarks/jobs.py script|ray|daft|encode|loop PASSAGES_FOLDER OUT MODEL_FOLDER PROCESSES THREADS

Each is written as its library's documentation has it. The last line of standard output may be a JSON object with "seconds": those of
the work alone, from a job that can tell them.
"""

import json
import sys
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset

DIMENSION = 384
SCHEMA = pa.schema({"id": pa.string(), "text": pa.string(), "vector": pa.list_(pa.float32(), DIMENSION)})
BATCH = 512
"""Passages that Ray Data and Daft hand to a model at a time."""


@dataclass(frozen=True, slots=True)
class Task:
    """What every job is given."""

    passages: str
    """A folder of Parquet files with the columns id and text."""
    out: str
    """An empty folder."""
    model: str
    """A folder of sentence-transformers."""
    processes: int
    """That hold a model, for jobs that take several."""
    threads: int
    """Of each of these."""


_LOADED: dict[str, Any] = {}
"""What a process of `loop` keeps between its calls."""


def read(folder: str) -> pa.Table:
    return pyarrow.dataset.dataset(folder, format="parquet").to_table()


def load(model: str, threads: int | None = None) -> Any:
    """The model; `threads` None: torch decides."""
    import torch
    from sentence_transformers import SentenceTransformer

    if threads:
        torch.set_num_threads(threads)
    return SentenceTransformer(model, device="cpu")


def column(vectors: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSION)


def script(task: Task) -> None:
    """Read, encode, add: what one would write in ten lines."""
    import lancedb

    passages = read(task.passages)
    vectors = load(task.model).encode(passages["text"].to_pylist())
    table = lancedb.connect(task.out).create_table("passages", schema=SCHEMA)
    table.add(passages.append_column("vector", column(vectors)))


def ray(task: Task) -> None:
    """A Ray Data pipeline with an actor a core. Its own `write_lance` (2.60) calls what Lance 14 no longer has, so the driver writes."""
    import lance
    import ray

    class Embed:
        def __init__(self) -> None:
            self.model = load(task.model, task.threads)

        def __call__(self, batch: pa.Table) -> pa.Table:
            return batch.append_column("vector", column(self.model.encode(batch["text"].to_pylist())))

    ray.init(address="local", num_cpus=task.processes + 1, include_dashboard=False, log_to_driver=False)  # one more: to read and to write
    actors = ray.data.ActorPoolStrategy(size=task.processes)
    passages = ray.data.read_parquet(task.passages).repartition(16 * task.processes)  # else so small a corpus is one block, for one actor
    done = passages.map_batches(Embed, batch_size=BATCH, batch_format="pyarrow", compute=actors, num_cpus=1)
    tables = done.iter_batches(batch_size=None, batch_format="pyarrow")
    batches = (batch for table in tables for batch in table.to_batches())
    lance.write_dataset(pa.RecordBatchReader.from_batches(SCHEMA, batches), f"{task.out}/passages.lance")


def daft(task: Task) -> None:
    """A Daft pipeline with a process a core."""
    import daft  # type: ignore[import-not-found]
    from daft import DataType, Series

    @daft.cls(max_concurrency=task.processes, use_process=True)
    class Embed:
        def __init__(self) -> None:
            self.model = load(task.model, task.threads)

        @daft.method.batch(return_dtype=DataType.fixed_size_list(DataType.float32(), DIMENSION), batch_size=BATCH)  # type: ignore[untyped-decorator]
        def embed(self, texts: Series) -> pa.Array:
            return column(self.model.encode(texts.to_pylist()))

    passages = daft.read_parquet(f"{task.passages}/*.parquet")
    passages.with_column("vector", Embed().embed(daft.col("text"))).write_lance(f"{task.out}/passages.lance")


def encode(task: Task) -> None:
    """`encode` alone, which is told to nobody and kept nowhere but for the comparison."""
    texts = read(task.passages)["text"].to_pylist()
    loaded = load(task.model)
    loaded.encode(texts[:32])
    began = time.perf_counter()
    vectors = loaded.encode(texts)
    seconds = time.perf_counter() - began
    np.save(f"{task.out}/vectors.npy", vectors)
    print(json.dumps({"seconds": seconds}))


def loop(task: Task) -> None:
    """The forward passes of `apply` and nothing else: in as many processes as it has actors, each cutting its part of the texts into shards
    as `apply` does, and preparing the next one beside the model as an actor does. Tells what they were, for whoever compares."""
    texts = read(task.passages)["text"].to_pylist()
    context = get_context("spawn")
    arguments = (task.model, task.threads, context.Barrier(task.processes))
    with ProcessPoolExecutor(task.processes, context, initializer=_prepare, initargs=arguments) as pool:
        spans = list(pool.map(_forward, [texts[start :: task.processes] for start in range(task.processes)]))
    seconds = max(span["end"] for span in spans) - min(span["begin"] for span in spans)
    print(
        json.dumps({"seconds": seconds, "how": spans[0]["how"], "tokens": sum(span["tokens"] for span in spans), "processes": len(spans)})
    )


def _prepare(model: str, threads: int, ready: Any) -> None:
    from pipelines.spaces.resolving import resolve_model
    from pipelines.spec.declared import ModelSpec
    from workers.encoders.loading import load_encoder
    from workers.encoders.machine import Machine

    _LOADED["encoder"] = load_encoder(resolve_model(ModelSpec(name=model)), Machine(threads=threads))
    _LOADED["ready"] = ready


def _forward(texts: list[str]) -> dict[str, Any]:
    """How the model ran, the tokens, begin and end, of a clock that all processes share."""
    from workers.runs.filling import FIRST_SHARD_TOKENS, LARGEST_SHARD_TOKENS, SHARD_SECONDS

    encoder, todo, tokens, shard_tokens = _LOADED["encoder"], deque(texts), 0, FIRST_SHARD_TOKENS

    def prepare() -> Any:
        return encoder.prepare(_cut(todo, shard_tokens), "document") if todo else None

    encoder.forward(encoder.prepare(texts[:32], "document"))
    _LOADED["ready"].wait()  # so that each process takes one part, and all begin together
    began = time.perf_counter()
    with ThreadPoolExecutor(1) as beside:
        prepared = prepare()
        while prepared is not None:
            following = beside.submit(prepare)
            encoded = encoder.forward(prepared)
            tokens += encoded.units
            prepared = following.result()
            shard_tokens = min(max(int(encoded.units / encoded.seconds * SHARD_SECONDS), FIRST_SHARD_TOKENS), LARGEST_SHARD_TOKENS)
    return {"how": encoder.how, "tokens": tokens, "begin": began, "end": time.perf_counter()}


def _cut(todo: deque[str], tokens: float) -> list[str]:
    """The next texts, of about so many tokens by the estimate that shards are cut by; at least one."""
    from workers.embedding.work import CODE_POINTS_A_TOKEN, TOKENS_A_TEXT

    shard = []
    while todo and (not shard or tokens > 0):
        shard.append(todo.popleft())
        tokens -= len(shard[-1]) / CODE_POINTS_A_TOKEN + TOKENS_A_TEXT
    return shard


JOBS = {"script": script, "ray": ray, "daft": daft, "encode": encode, "loop": loop}

if __name__ == "__main__":
    job, passages, out, model, processes, threads = sys.argv[1:]
    JOBS[job](Task(passages, out, model, int(processes), int(threads)))
