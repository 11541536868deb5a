"""What two real models give without the platform: vectors of `SentenceTransformer.encode` in float32, and the quality that they have.

nice -n 19 python -m benchmarks.reference        # minutes for MiniLM, an hour for mpnet on one core; goes on where it was stopped
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import debian, sts
from benchmarks.harness import SCRATCH, table
from benchmarks.models import mpnet
from pipelines.spaces.resolving import resolve_model
from pipelines.spaces.space import Model
from pipelines.spec.declared import ModelSpec

Vectors = NDArray[np.float32]
MODELS: dict[str, Callable[[], Model]] = {"minilm": lambda: resolve_model(ModelSpec()), "mpnet": mpnet}
FOLDER = SCRATCH / "reference"
PIECE = 1024
"""Texts that are encoded and kept at a time: what is lost when the job is stopped."""
FOUND_AT = 10
"""Places of a result list that nDCG looks at."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The vectors of one model, unit length, float32, and their quality."""

    queries: Vectors
    """Of the task's queries, shape (q, d)."""
    passages: Vectors
    """Of its passages, shape (n, d)."""
    sentences: dict[str, Vectors]
    """Of the sentences of STS-B's test set, each of shape (d,)."""
    ndcg: float
    """nDCG@10 of the task, by exact cosine."""
    spearman: float
    """On STS-B's test set, in percent."""


def reference(name: str, task: debian.Task, pairs: sts.Pairs, folder: Path = FOLDER, dimensions: int | None = None) -> Reference:
    """The vectors of a model of `MODELS`, their first `dimensions` at unit length; from `folder` as far as they are there."""
    encode = _Encode(MODELS[name]())
    queries, sentences, passages = (
        cut(_kept(folder, f"{name}_{part}", texts, encode), dimensions)
        for part, texts in (("queries", task.queries), ("sts", pairs.sentences), ("docs", task.texts))
    )
    rows = {passage: row for row, passage in enumerate(task.ids)}
    by_sentence = dict(zip(pairs.sentences, sentences, strict=True))
    ranks = exact_ranks(queries, passages, [rows[answer] for answer in task.relevant])
    return Reference(queries, passages, by_sentence, ndcg(ranks), pairs.spearman(by_sentence))


def cut(vectors: Vectors, dimensions: int | None) -> Vectors:
    """The first `dimensions` of each vector, at unit length; None: all."""
    shorter = vectors[:, :dimensions]
    unit: Vectors = shorter / np.linalg.norm(shorter, axis=1, keepdims=True)
    return unit


class _Encode:
    """`SentenceTransformer.encode`, loaded when it is first called."""

    def __init__(self, model: Model) -> None:
        self._folder, self._model = model.folder, None

    def __call__(self, texts: Sequence[str]) -> Vectors:
        vectors: Vectors = self._loaded().encode(list(texts), batch_size=16, normalize_embeddings=True)
        return vectors

    def _loaded(self) -> Any:
        if self._model is None:
            import torch
            from sentence_transformers import SentenceTransformer

            torch.set_num_threads(1)  # two on a machine with other work are slower than one
            self._model = SentenceTransformer(self._folder, device="cpu")
        return self._model


def _kept(folder: Path, name: str, texts: Sequence[str], encode: _Encode) -> Vectors:
    """The vectors of `texts` in order. Each piece is a file whose name has the hash of its texts: others are never taken for them."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    return np.concatenate([_piece(folder / name, texts[start : start + PIECE], encode) for start in range(0, len(texts), PIECE)])


def _piece(folder: Path, texts: Sequence[str], encode: _Encode) -> Vectors:
    file = folder / f"{hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]}.npy"
    if not file.exists():
        began = time.perf_counter()
        np.save(unfinished := file.with_suffix(".tmp.npy"), encode(texts))
        unfinished.rename(file)
        print(f"{folder.name}: {len(texts):,} texts in {time.perf_counter() - began:.1f} s", flush=True)
    vectors: Vectors = np.load(file)
    return vectors


def exact_ranks(queries: Vectors, passages: Vectors, answers: Sequence[int]) -> NDArray[np.int64]:
    """At which place, from 1, each query finds its answer, a row of `passages`."""
    scores = queries @ passages.T
    right = scores[np.arange(len(queries)), answers]
    ranks: NDArray[np.int64] = 1 + (scores > right[:, None]).sum(axis=1)
    return ranks


def ndcg(ranks: NDArray[np.int64]) -> float:
    """nDCG@10 where each query has one answer, found at these places, from 1: the best list has it first, which gains 1."""
    return float(np.where(ranks <= FOUND_AT, 1 / np.log2(1 + ranks), 0).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--count", type=int, default=debian.COUNT, help="passages")
    options = parser.parse_args()
    task, pairs = debian.load(count=options.count), sts.load()
    found = {name: reference(name, task, pairs, options.folder) for name in MODELS}
    rows = [[name, f"{one.passages.shape[1]}", f"{one.ndcg:.4f}", f"{one.spearman:.2f}"] for name, one in found.items()]
    print(f"{len(task.ids):,} passages, {len(task.queries):,} queries; {len(pairs.score):,} pairs of sentences")
    print(table(["model", "dimensions", "nDCG@10", "STS-B Spearman"], rows))


if __name__ == "__main__":
    main()
