"""One library that turns texts into vectors, in a process of its own: `peers.py` asks it in JSON lines when it is its turn.

python benchmarks/peer_worker.py encode|ours|fastembed|infinity MODEL_FOLDER default|tuned|16 SAMPLE.json

"tuned": the batch size that is fastest on the sample.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (2, 4, 8, 16, 64)
"""That are tried; 32 is what most libraries take by themselves."""
WARM_UP = 8
"""Texts."""
THREADS = int(os.environ["OMP_NUM_THREADS"])

Encode = Callable[[list[str]], Any]
"""Texts to vectors, (n, dimension)."""


def encode(folder: str, batch: int | None) -> Encode:
    """sentence-transformers, as its documentation calls it."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(THREADS)
    model = SentenceTransformer(folder, device="cpu")
    size = {"batch_size": batch} if batch else {}
    return lambda texts: model.encode(texts, normalize_embeddings=True, **size)


def ours(folder: str, batch: int | None) -> Encode:
    """The model loop of the platform. Its batches are filled by tokens; there is nothing to tune."""
    from pipelines.spaces.resolving import resolve_model
    from pipelines.spec.declared import ModelSpec
    from workers.encoders.encoder import encode
    from workers.encoders.loading import load_encoder
    from workers.encoders.machine import Machine

    encoder = load_encoder(resolve_model(ModelSpec(name=folder)), Machine(threads=THREADS))
    return lambda texts: encode(encoder, texts, "document").vectors


def fastembed(folder: str, batch: int | None) -> Encode:
    """ONNX Runtime on `model.onnx` in the folder."""
    from fastembed import TextEmbedding  # type: ignore[import-not-found]
    from fastembed.common.model_description import ModelSource, PoolingType  # type: ignore[import-not-found]

    name = f"local-{batch}"
    TextEmbedding.add_custom_model(
        name, pooling=PoolingType.MEAN, normalization=True, sources=ModelSource(url=folder), dim=384, model_file="model.onnx"
    )
    model = TextEmbedding(name, specific_model_path=folder, threads=THREADS)
    size = {"batch_size": batch} if batch else {}
    return lambda texts: np.stack(list(model.embed(texts, **size)))


def infinity(folder: str, batch: int | None) -> Encode:
    """Infinity's engine in this process, with torch."""
    import torch
    from infinity_emb import AsyncEmbeddingEngine, EngineArgs  # type: ignore[import-not-found]

    torch.set_num_threads(THREADS)
    size = {"batch_size": batch} if batch else {}
    engine = AsyncEmbeddingEngine.from_args(EngineArgs(model_name_or_path=folder, engine="torch", device="cpu", model_warmup=False, **size))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(engine.astart())
    return lambda texts: np.stack(loop.run_until_complete(engine.embed(texts))[0])


LIBRARIES: dict[str, Callable[[str, int | None], Encode]] = {"encode": encode, "ours": ours, "fastembed": fastembed, "infinity": infinity}


def fastest(load: Callable[[int], Encode], sample: list[str]) -> int:
    """The batch size that is fastest on the sample."""

    def seconds(size: int) -> float:
        run = load(size)
        run(sample[:WARM_UP])
        began = time.perf_counter()
        run(sample)
        return time.perf_counter() - began

    return min(SIZES, key=seconds)


def main(library: str, folder: str, batch: str, sample_file: str) -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the replies
    sample = json.loads(Path(sample_file).read_text())
    load = LIBRARIES[library]
    if batch == "tuned":
        best = fastest(lambda size: load(folder, size), sample)
        os.dup2(replies.fileno(), 1)
        os.execv(sys.executable, [sys.executable, __file__, library, folder, str(best), sample_file])  # noqa: S606  rid of what was tried
    size = None if batch == "default" else int(batch)
    run = load(folder, size)
    run(sample[:WARM_UP])
    print(json.dumps({"batch": size}), file=replies, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        texts = json.loads(Path(task["texts"]).read_text())
        began = time.perf_counter()
        vectors = run(texts)
        took = time.perf_counter() - began
        np.save(task["out"], np.asarray(vectors, np.float32))
        print(json.dumps({"seconds": took}), file=replies, flush=True)
    os._exit(0)  # an engine's threads need not wind up


if __name__ == "__main__":
    main(*sys.argv[1:])
