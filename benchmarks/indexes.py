"""Which index a table of vectors should have: none, the one that revector builds, and three others of Lance's.

python -m benchmarks.indexes                                 # 100,000 and 1,000,000 vectors: about ten minutes on two cores
python -m benchmarks.indexes --sizes 100000 --queries 50

The vectors are those that all-MiniLM-L6-v2 gives the 8,000 WordNet glosses of the demo, multiplied: each new one lies at a random place on
the arc between a real one and one of its ten nearest (spherical interpolation; Shoemake, 1985), with noise around it. So dense and empty
regions stay where they are, which random vectors do not have. Queries are made in the same way and are not in the table.

All kinds get the centres and the assignment of storage/index.py, so that they differ in how they keep the vectors of a partition; all are
searched as a reader's search does it: a tenth of the partitions, ten candidates a result compared again by full vectors.
"""

import argparse
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import ROOT, SCRATCH, machine, publish, spread, table
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from storage.tables import index
from workers.encoders.encoder import encode
from workers.encoders.loading import load_encoder

GLOSSES = ROOT / "flows/demo/glosses.parquet"
NEIGHBOURS = 10
NOISE = 0.35
"""Length of the noise beside a unit vector. Median cosine to the 10th, 100th and 1,000th nearest of 8,000: real ones .53, .39, .23, made
ones .54, .37, .22; effective rank 181 and 192. Twice the noise gives .42, .29, .17 and 258."""
BLOCK = 50_000
K = 10
WARM_UP = 5
KINDS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "IVF_RQ, 1 bit (revector)": {"index_type": "IVF_RQ", "num_bits": 1},
    "IVF_SQ": {"index_type": "IVF_SQ"},
    "IVF_FLAT": {"index_type": "IVF_FLAT"},
    "IVF_HNSW_SQ": {"index_type": "IVF_HNSW_SQ"},
}


@dataclass(frozen=True, slots=True)
class Seeds:
    """Real vectors, and the nearest of each."""

    vectors: np.ndarray
    """Unit length, float32, shape (n, d)."""
    nearest: np.ndarray
    """Positions, int64, shape (n, NEIGHBOURS)."""

    @classmethod
    def of_glosses(cls) -> "Seeds":
        kept = SCRATCH / "glosses.npy"
        if not kept.exists():
            texts = pq.read_table(GLOSSES)["gloss"].to_pylist()
            np.save(kept, encode(load_encoder(resolve_model(ModelSpec())), texts, "document").vectors.astype(np.float32))
        vectors = unit(np.load(kept))
        similarity = vectors @ vectors.T
        np.fill_diagonal(similarity, -1)
        return cls(vectors, np.argpartition(-similarity, NEIGHBOURS, axis=1)[:, :NEIGHBOURS])

    def multiply(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Further vectors of the same regions: float32, shape (count, d)."""
        one = random.integers(len(self.vectors), size=count)
        other = self.nearest[one, random.integers(NEIGHBOURS, size=count)]
        a, b, part = self.vectors[one], self.vectors[other], random.random((count, 1), dtype=np.float32)
        angle = np.arccos(np.clip((a * b).sum(axis=1, keepdims=True), -1, 1)) + 1e-6
        between = (np.sin((1 - part) * angle) * a + np.sin(part * angle) * b) / np.sin(angle)
        noise = random.standard_normal(between.shape, dtype=np.float32)
        return unit(between + NOISE * unit(noise))


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def write(seeds: Seeds, rows: int, place: Path) -> lance.LanceDataset:
    """A table of float16 vectors, made as it is written, in fragments as a load makes them."""
    random = np.random.default_rng(1)
    dimension = seeds.vectors.shape[1]
    schema = pa.schema([pa.field("vector", pa.list_(pa.float16(), dimension), nullable=False)])

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, rows, BLOCK):
            flat = pa.array(seeds.multiply(min(BLOCK, rows - start), random).astype(np.float16).reshape(-1))
            yield pa.record_batch([pa.FixedSizeListArray.from_arrays(flat, dimension)], schema=schema)

    shutil.rmtree(place, ignore_errors=True)
    return lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches()), place, max_rows_per_file=BLOCK)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One kind of index at one size."""

    wall: float
    """Seconds that the build took."""
    processor: float
    """Seconds of processor time that it took."""
    megabytes: float
    answers: list[set[int]]
    """Row ids, of each query."""
    milliseconds: list[float]
    """The same."""


def measure(dataset: lance.LanceDataset, kind: dict[str, Any] | None, queries: np.ndarray) -> Outcome:
    """Build, search, and drop the index again."""
    wall, processor = time.perf_counter(), time.process_time()
    if kind is not None:
        with patch.object(index, "INDEX_ROWS", 0), patch.object(index, "_quantizer", lambda _: kind):
            dataset = index.update_index(dataset)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    size = sum(each.total_size_bytes for each in dataset.describe_indices())
    for query in queries[:WARM_UP]:
        search(dataset, query)
    answers, seconds = zip(*(search(dataset, query) for query in queries), strict=True)
    if kind is not None:
        dataset.drop_index(index.INDEX_NAME)
    return Outcome(wall, processor, size / 1e6, list(answers), [1000 * each for each in seconds])


def search(dataset: lance.LanceDataset, query: np.ndarray) -> tuple[set[int], float]:
    """The row ids of the nearest, and the seconds that it took."""
    began = time.perf_counter()
    nearest: dict[str, Any] = {"column": "vector", "q": query, "k": K, "metric": "cosine"}
    if partitions := index.probes(dataset):
        nearest |= {"nprobes": partitions, "refine_factor": index.REFINE}
    rows = dataset.scanner(columns=["_distance"], nearest=nearest, with_row_id=True).to_table()
    return set(rows["_rowid"].to_pylist()), time.perf_counter() - began


def rows_of(size: int, seeds: Seeds, queries: np.ndarray) -> Iterator[list[str]]:
    place = SCRATCH / "indexes.lance"
    write(seeds, size, place)
    exact: list[set[int]] = []
    for name, kind in KINDS.items():
        done = measure(lance.dataset(place), kind, queries)
        exact = exact or done.answers  # without an index, the first kind
        recall = np.mean([len(found & right) / K for found, right in zip(done.answers, exact, strict=True)])
        built = f"{done.wall:.0f} s ({done.processor:.0f} s of processor)" if kind else ""
        yield [
            f"{size:,}",
            name,
            built,
            f"{done.megabytes:,.0f} MB",
            f"{recall:.3f}",
            spread(done.milliseconds, 1),
        ]
        print(f"  {size:,}: {name} done", flush=True)
    shutil.rmtree(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    seeds = Seeds.of_glosses()
    queries = seeds.multiply(options.queries, np.random.default_rng(2))
    rows = [row for size in options.sizes for row in rows_of(size, seeds, queries)]
    parts = [
        "## Indexes",
        f"{machine()}; pylance {lance.__version__}.\n"
        f"{seeds.vectors.shape[1]} dimensions, float16; the vectors themselves take {seeds.vectors.shape[1] * 2 / 1000:.2f} kB each. "
        f"{options.queries} queries, one after the other.",
        table(["vectors", "index", "build", "size", f"recall@{K}", "ms, median (least-most)"], rows),
    ]
    publish("\n\n".join(parts), options.out)


if __name__ == "__main__":
    main()
