"""The model loop beside its peers: the same weights, texts of 10 to 512 tokens, one core and one thread unless told otherwise.

python -m benchmarks.peers --rounds 3 --texts 128

Each library has a process of its own that loads and warms up; then one at a time encodes all texts, in rotating order.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from benchmarks.harness import (
    INFINITY,
    PEERS,
    ROOT,
    SCRATCH,
    Worker,
    interleaved,
    machine,
    measure,
    pin,
    publish,
    ratios,
    spread,
    table,
    versions,
)
from benchmarks.passages import mixed_lengths
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec

MODEL = SCRATCH / "minilm-512"
LONGEST = 512
SHORTEST = 10
SAMPLE = 64
"""Texts that batch sizes are tried on; not among those that are measured."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A library, as called in one way."""

    name: str
    library: str
    """One of `peer_worker.LIBRARIES`."""
    batch: str
    """`default` or `tuned`."""
    python: Path
    """The interpreter that has it."""
    packages: tuple[str, ...]
    """Whose versions matter."""


@dataclass(slots=True)
class Outcome:
    """What a variant did."""

    name: str
    """With the batch size that was found."""
    seconds: list[float] = field(default_factory=list)
    """Of all texts, a round each."""
    vectors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))


HERE = Path(sys.executable)
TORCH = ("torch", "transformers", "sentence-transformers")
VARIANTS = [
    Variant("`SentenceTransformer.encode`", "encode", "default", HERE, TORCH),
    Variant("`encode`, tuned", "encode", "tuned", HERE, TORCH),
    Variant("fastembed", "fastembed", "default", PEERS, ("fastembed", "onnxruntime")),
    Variant("fastembed, tuned", "fastembed", "tuned", PEERS, ("fastembed", "onnxruntime")),
    Variant("Infinity", "infinity", "default", INFINITY, ("infinity-emb", *TORCH)),
    Variant("Infinity, tuned", "infinity", "tuned", INFINITY, ("infinity-emb", *TORCH)),
    Variant("revector", "ours", "default", HERE, TORCH),
]


def prepare_model() -> Path:
    """A folder with MiniLM's weights that lets every library read 512 tokens (the original stops at 256), with ONNX for who needs it."""
    if not MODEL.exists():
        original = resolve_model(ModelSpec()).folder
        assert original
        shutil.copytree(original, MODEL)
        limits = MODEL / "sentence_bert_config.json"
        limits.write_text(json.dumps({**json.loads(limits.read_text()), "max_seq_length": LONGEST}))
    if PEERS.exists() and not (MODEL / "model.onnx").exists():
        measure([PEERS, ROOT / "benchmarks/export_onnx.py", MODEL], SCRATCH)
    return MODEL


def texts_in_range(tokenizer: Tokenizer) -> Iterator[tuple[str, int]]:
    """Texts of 10 to 512 tokens, and how many these are."""
    for text in mixed_lengths():
        tokens = len(tokenizer.encode(text))
        if SHORTEST <= tokens <= LONGEST:
            yield text, tokens


def run(variants: Sequence[Variant], rounds: int, threads: int, texts: Path, sample: Path) -> Mapping[str, Outcome]:
    """What each did, by its name."""
    script = ROOT / "benchmarks/peer_worker.py"
    workers, outcomes = {}, {}
    for variant in variants:
        print(f"  loading {variant.name}", file=sys.stderr, flush=True)
        command: list[str | Path] = [variant.python, script, variant.library, MODEL, variant.batch, sample]
        worker = workers[variant.name] = Worker(command, OMP_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM=str(threads > 1).lower())
        batch = worker.ready["batch"]
        outcomes[variant.name] = Outcome(f"{variant.name} (batches of {batch})" if batch else variant.name)
    out = SCRATCH / "vectors.npy"
    for variant in interleaved(variants, rounds):
        reply = workers[variant.name].ask(texts=str(texts), out=str(out))
        print(f"  {variant.name}: {reply['seconds']:.1f} s", file=sys.stderr, flush=True)
        outcomes[variant.name].seconds.append(reply["seconds"])
        outcomes[variant.name].vectors = np.load(out)
    for worker in workers.values():
        worker.end()
    return outcomes


def rows(outcomes: Sequence[Outcome], tokens: int) -> Iterator[list[str]]:
    """Of the table; the first outcome is what the others are compared with."""
    base = outcomes[0]
    for outcome in outcomes:
        cosines = (outcome.vectors * base.vectors).sum(axis=1)
        yield [
            outcome.name,
            spread([tokens / seconds for seconds in outcome.seconds], 0),
            ratios(base.seconds, outcome.seconds),
            f"{cosines.mean():.6f} / {cosines.min():.6f}",
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1, help="and cores")
    parser.add_argument("--only", nargs="*", default=[], help="libraries; encode is always there")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    everything = machine()
    pin(options.threads)
    folder = prepare_model()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    pairs = list(islice(texts_in_range(tokenizer), options.texts + SAMPLE))
    texts, sample = SCRATCH / "texts.json", SCRATCH / "sample.json"
    texts.write_text(json.dumps([text for text, _ in pairs[SAMPLE:]]))
    sample.write_text(json.dumps([text for text, _ in pairs[:SAMPLE]]))
    lengths = np.array([count for _, count in pairs[SAMPLE:]])
    wanted = [variant for variant in VARIANTS if not options.only or variant.library in ("encode", *options.only)]
    variants = [variant for variant in wanted if variant.python.exists()]
    outcomes = run(variants, options.rounds, options.threads, texts, sample)
    header = ["model loop", "tokens a second", "ratio to `encode`", "cosine to `encode`, mean / min"]
    missing = [variant.name for variant in wanted if variant not in variants]
    lines = [
        "## The model loop beside its peers\n",
        f"{everything}; of these {options.threads} core(s) and thread(s) each.",
        f"all-MiniLM-L6-v2, {len(lengths):,} texts of {lengths.min()} to {lengths.max()} tokens (median {np.median(lengths):.0f}, "
        f"{lengths.sum():,} in all), {options.rounds} rounds; median (least-most).",
        *dict.fromkeys(versions(variant.python, variant.packages) + "." for variant in variants),
        *([f"Not installed (`make bench-peers`): {', '.join(missing)}."] if missing else []),
    ]
    publish("\n".join(lines) + "\n\n" + table(header, list(rows(list(outcomes.values()), int(lengths.sum())))), options.out)


if __name__ == "__main__":
    main()
