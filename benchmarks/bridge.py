"""Bridges between two real models: mpnet's queries on MiniLM's vectors, as while a collection is embedded anew.

python -m benchmarks.bridge --out build/bench/bridge.md          # needs the vectors of benchmarks.reference, else makes them

The pairs to learn from are Debian's passages; the queries are synopses, which no bridge has seen. "of the old": recall@10 against what
MiniLM finds for the same queries; "of the new": against what mpnet finds among its own vectors. All searches are exact.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import debian, sts
from benchmarks.harness import machine, publish, table
from benchmarks.reference import FOLDER, Reference, exact_ranks, ndcg, reference
from pipelines.measures.bridge import Bridge, Matrix, fit
from workers.learning.build_bridge import KINDS, K

CALLS = 200
SAMPLES = (500, 1000, 2000, 4000, 8000)
HEADER = ("pairs", "map", "of the old", "of the new", "nDCG@10", "seconds to fit", "µs a query", "KiB")


class Judge:
    """What queries find, and how good that is."""

    def __init__(self, old: Reference, new: Reference, answers: list[int]) -> None:
        self._old, self._answers = old, answers
        self._of_old, self._of_new = nearest(old.queries, old.passages), nearest(new.queries, new.passages)

    def row(self, pairs: str, name: str, queries: Matrix, passages: Matrix, *costs: str) -> list[str]:
        found = nearest(queries, passages)
        measures = (f"{share(found, own):.3f}" for own in (self._of_old, self._of_new))
        return [pairs, name, *measures, f"{ndcg(exact_ranks(queries, passages, self._answers)):.3f}", *(costs or ("", "", ""))]


def nearest(queries: Matrix, passages: Matrix) -> NDArray[np.intp]:
    """The K nearest of each query, (q, K), in no order."""
    return np.argpartition(-(queries @ passages.T), K, axis=1)[:, :K]


def share(found: NDArray[np.intp], own: NDArray[np.intp]) -> float:
    """recall@K: of `own`, what is in `found`."""
    return float((own[:, :, None] == found[:, None, :]).any(axis=2).mean())


def rows(old: Reference, new: Reference, answers: list[int], samples: list[int]) -> Iterator[list[str]]:
    judge = Judge(old, new, answers)
    yield judge.row("", "none: MiniLM's own", old.queries, old.passages)
    yield judge.row("", "none: mpnet's own", new.queries, new.passages)
    order = np.random.default_rng(0).permutation(len(old.passages))
    for count in samples:
        for kind in KINDS:
            began = time.perf_counter()
            arrays = fit(kind, new.passages[order[:count]], old.passages[order[:count]])
            seconds = time.perf_counter() - began
            bridge = Bridge(kind, "mpnet", "minilm", True, arrays)
            costs = (f"{seconds:.2f}", f"{latency(bridge, new.queries):.0f}", f"{len(bridge.to_bytes()) >> 10:,}")
            yield judge.row(f"{count:,}", kind, bridge.apply(new.queries), old.passages, *costs)


def latency(bridge: Bridge, queries: Matrix) -> float:
    """Microseconds to map one query: the median of many."""
    taken = []
    for query in queries[:CALLS]:
        began = time.perf_counter()
        bridge.apply(query[None])
        taken.append(time.perf_counter() - began)
    return 1e6 * float(np.median(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, default=FOLDER, help="where benchmarks.reference keeps them")
    parser.add_argument("--count", type=int, default=debian.COUNT, help="passages")
    parser.add_argument("--samples", type=int, nargs="+", default=SAMPLES)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    task, pairs = debian.load(count=options.count), sts.load()
    old, new = (reference(name, task, pairs, options.vectors) for name in ("minilm", "mpnet"))
    places = {passage: row for row, passage in enumerate(task.ids)}
    samples = [count for count in options.samples if count < len(task.ids)]
    made = table(HEADER, list(rows(old, new, [places[answer] for answer in task.relevant], samples)))
    size = f"{len(task.ids):,} passages, {len(task.queries):,} queries"
    publish(f"## Bridge: mpnet's queries on MiniLM's vectors\n\n{size}; {machine()}\n\n{made}", options.out)


if __name__ == "__main__":
    main()
