"""The model loop against `SentenceTransformer.encode` on one core: tokens per CPU second, as ratios; the floor; where the rest goes.

python -m benchmarks.model_loop --texts 128 --rounds 5
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.harness import interleaved, machine, pin, publish, ratios, table, versions
from pipelines.spaces.resolving import resolve_model
from pipelines.spaces.space import Model
from pipelines.spec.declared import ModelSpec
from workers.encoders.encoder import Encoder
from workers.encoders.encoder import encode as vectors_of
from workers.encoders.loading import load_encoder
from workers.encoders.machine import Machine
from workers.encoders.text.prepacking import PrepackedLinear

GLOSSES = Path(__file__).parent.parent / "flows/demo/glosses.parquet"
LONGEST = 512
CHARACTERS_PER_TOKEN = 4.5
TUNED = (4, 8, 16, 64, 128)
"""Batch sizes of `encode`, of which the fastest counts as tuned."""
STAGES = {
    "matrix products": ("mkldnn::_linear_pointwise", "aten::addmm", "aten::mm"),
    "attention": ("aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_scaled_dot_product_flash_attention"),
    "layer norm": ("aten::native_layer_norm",),
    "residual and other sums": ("aten::add", "aten::add_"),
    "copies and casts": ("aten::copy_",),
    "embedding": ("aten::index_select", "aten::embedding"),
}
"""Operators of torch by what they are for; gelu is part of its matrix product."""

BATCH_TOKENS = 4096
"""Of a batch of the floor, as of the loop."""

Work = Callable[[], np.ndarray]


def passages(count: int, seed: int = 0) -> list[str]:
    """WordNet's glosses, joined until they have 10 to 512 tokens; short ones are as frequent as long ones on a logarithmic scale."""
    rng = random.Random(seed)  # noqa: S311
    glosses = iter([gloss for gloss in pq.read_table(GLOSSES)["gloss"].to_pylist() if gloss])
    return [_passage(glosses, CHARACTERS_PER_TOKEN * 10 * (LONGEST / 10) ** rng.random()) for _ in range(count)]


def _passage(glosses: Any, characters: float) -> str:
    parts = [next(glosses)]
    while sum(map(len, parts)) < characters:
        parts.append(next(glosses))
    return "; ".join(parts)


def load_library(model: Model) -> Any:
    """As a user would load it, but for the longest input."""
    from sentence_transformers import SentenceTransformer

    library = SentenceTransformer(model.folder, device="cpu")
    library.max_seq_length = model.space.max_tokens
    return library


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def encode(library: Any, texts: list[str], batch: int) -> np.ndarray:
    vectors: np.ndarray = library.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)
    return vectors


def ours(encoder: Encoder, texts: Sequence[str]) -> np.ndarray:
    return vectors_of(encoder, texts, "document").vectors


def compare(ways: dict[str, Work], floors: dict[str, "Floor"], rounds: int, tokens: int) -> str:
    """A row a way, and a row a floor: tokens per CPU second, ratio to the first way, likeness to its vectors."""
    expected = next(iter(ways.values()))()
    cosines = {name: f"{(work() * expected).sum(axis=1).min():.7f}" for name, work in ways.items()}  # warms up, too
    timers = {name: partial(cpu_seconds, work) for name, work in ways.items()} | {name: lowest.seconds for name, lowest in floors.items()}
    seconds: dict[str, list[float]] = {name: [] for name in timers}
    for name in interleaved(list(timers), rounds):
        seconds[name].append(timers[name]())
    base = next(iter(seconds.values()))
    rows = [[name, f"{tokens / median(took):,.0f}", ratios(base, took), cosines.get(name, "")] for name, took in seconds.items()]
    return table(["way", "tokens / CPU s", "ratio, median (least-most)", "cosine to the first, least"], rows)


class Floor:
    """The products of the transformer's linear layers alone, a batch after another, as fast as they go."""

    def __init__(self, library: Any, dtype: torch.dtype, tokens: int) -> None:
        named = library[0].model.named_modules()
        layers = [module for name, module in named if type(module) is torch.nn.Linear and "pooler" not in name]
        self._products = [PrepackedLinear(layer, dtype, gelu=False) for layer in layers]
        self._inputs = {layer.in_features: torch.randn(BATCH_TOKENS, layer.in_features, dtype=dtype) for layer in layers}
        self._widths = [layer.in_features for layer in layers]
        self._share = tokens / BATCH_TOKENS
        self.flop = 2.0 * sum(layer.weight.numel() for layer in layers)
        """A token."""

    def seconds(self) -> float:
        """For all tokens, as a multiple of what a batch takes: the median of three."""
        return self._share * median(cpu_seconds(self._batch) for _ in range(3))

    @torch.inference_mode()
    def _batch(self) -> None:
        for width, product in zip(self._widths, self._products, strict=True):
            product(self._inputs[width])


def stages(encoder: Encoder, texts: Sequence[str]) -> dict[str, float]:
    """CPU seconds by what they are for."""
    from torch.profiler import ProfilerActivity, profile

    tokenizing = cpu_seconds(partial(encoder.prepare, texts, "document"))
    prepared = encoder.prepare(texts, "document")
    whole = median(cpu_seconds(partial(encoder.forward, prepared)) for _ in range(3))
    with profile(activities=[ProfilerActivity.CPU]) as record:
        encoder.forward(prepared)
    own = {event.key: event.self_cpu_time_total / 1e6 for event in record.key_averages()}
    found = {stage: sum(own.get(name, 0.0) for name in names) for stage, names in STAGES.items()}
    return {"tokenising": tokenizing, **found, "Python, pooling and the rest": max(0.0, whole - sum(found.values()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    pin(1)
    torch.set_num_threads(1)
    model = resolve_model(ModelSpec(max_tokens=LONGEST))
    texts = passages(options.texts)
    library = load_library(model)
    plain, lowered = (load_encoder(model, Machine(threads=1, precision=precision)) for precision in ("float32", "bfloat16"))
    lengths = plain.prepare(texts, "document").units
    tuned = min(TUNED, key=lambda batch: cpu_seconds(partial(encode, library, texts, batch)))
    ways = {
        "encode, as a user would call it (batch 32)": partial(encode, library, texts, 32),
        f"encode, tuned (batch {tuned})": partial(encode, library, texts, tuned),
        f"revector, {plain.how}": partial(ours, plain, texts),
        f"revector, {lowered.how}": partial(ours, lowered, texts),
    }
    tokens = int(lengths.sum())
    floors = {f"floor: matrix products alone, {name}": Floor(library, getattr(torch, name), tokens) for name in ("float32", "bfloat16")}
    flop = next(iter(floors.values())).flop
    lines = [
        "## Model loop, one core",
        f"{machine()}; {versions(sys.executable, ['torch', 'transformers', 'sentence-transformers', 'tokenizers'])}.",
        f"all-MiniLM-L6-v2; {len(texts)} texts, {tokens:,} tokens: {lengths.min()}-{lengths.max()}, median {np.median(lengths):.0f}. "
        f"{flop / 1e6:.1f} MFLOP a token in matrix products.",
        compare(ways, floors, options.rounds, tokens),
        _stages_table(stages(plain, texts), tokens),
    ]
    publish("\n\n".join(lines), options.out)


def _stages_table(found: dict[str, float], tokens: int) -> str:
    whole = sum(found.values())
    rows = [[name, f"{1e6 * took / tokens:.1f}", f"{100 * took / whole:.1f} %"] for name, took in found.items()]
    return table(["revector, float32: stage", "CPU µs a token", "share"], rows)


if __name__ == "__main__":
    main()
