"""What reports cost, and how that grows: all of them of a new collection, and again after 1 % of it has changed.

    python -m benchmarks.report_costs STORE COLLECTION --sizes 100000 1000000

Rows have the vectors of a published collection, one after the other, each turned a little (cosine .9, about as near as neighbours are), so
that clusters are as large, and as near to each other, as they are in reality. Its texts come along, for names. Each report is one command
from the shell: its wall time, and the largest resident set of any process in its tree.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import REVECTOR, SCRATCH, Measured, machine, measure, publish, table, versions
from pipelines.measures.quality import unit
from storage import open_published
from storage.reading.neighbours import to_numpy

KINDS = ("map", "clusters", "outliers", "duplicates", "neighbours", "balance", "drift")
FILES = 20
WORDS = 12
SPEC = """
[collections.grown]
source = { uri = "data/*.parquet", id = "id", text = "text", metadata = ["group"] }
chunking = { by = "document" }
model = { name = "hash", dimensions = %d }
gates = { min_index_recall = 0 }
"""
APPLY = """
import sys
import numpy as np
from workers.encoders import hashing
from workers.runs import filling
assert {"HERE_SECONDS", "ACTOR_TOKENS"} <= vars(filling).keys()
filling.HERE_SECONDS = filling.ACTOR_TOKENS = 1e12
seeds = np.load("seeds.npy", mmap_mode="r")
plain = hashing._hash_vectors
def turned(texts, space):
    places = np.array([int(text.partition(" ")[0]) % len(seeds) if text[:1].isdigit() else 0 for text in texts])
    made = seeds[places] + np.float32(0.484) * plain(texts, space)  # cosine .9
    return made / np.linalg.norm(made, axis=1, keepdims=True)
hashing._hash_vectors = turned
from flows import apply
print(apply().status, file=sys.stderr)
"""
"""A load by the stand-in, whose vectors are those of the seeds, turned."""


@dataclass(frozen=True)
class Seed:
    """What rows are made of."""

    vectors: np.ndarray
    texts: list[str]
    groups: list[str]


def read(store: str, collection: str) -> Seed:
    """In the order of the ids."""
    rows = open_published(store, collection).table.to_arrow().sort_by("chunk_id")
    first = rows["metadata"].combine_chunks().field(0).to_pylist()
    texts = [" ".join(text.split()[:WORDS]) for text in rows["text"].to_pylist()]
    return Seed(unit(to_numpy(rows["vector"].combine_chunks())), texts, [str(value) for value in first])


def write(seed: Seed, rows: int, folder: Path, edition: int = 0, changed: int = 0) -> None:
    """A document a row: its number, and the words of a seed. `changed`: how many of them have the number of an `edition`, too."""
    folder.mkdir(exist_ok=True)
    count = len(seed.texts)
    step = max(1, rows // changed) if changed else rows + 1
    borders = np.linspace(0, rows, FILES + 1, dtype=np.int64)
    for number, (start, stop) in enumerate(pairwise(borders)):
        places = range(start, stop)
        texts = [f"{place} {seed.texts[place % count]}{f' {edition}' if place % step == step - 1 else ''}" for place in places]
        groups = [seed.groups[place % count] for place in places]
        pq.write_table(pa.table({"id": [str(place) for place in places], "text": texts, "group": groups}), folder / f"{number:03}.parquet")


def steps(seed: Seed, rows: int, place: Path, kinds: Sequence[str]) -> dict[tuple[str, str], Measured]:
    """By report, and whether it was the first or of the update."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    np.save(place / "seeds.npy", seed.vectors)
    (place / "revector.toml").write_text(SPEC % seed.vectors.shape[1])
    done = dict[tuple[str, str], Measured]()
    for when, changed in (("first", 0), ("update", rows // 100)):
        write(seed, rows, place / "data", 1, changed)
        measure([sys.executable, "-c", APPLY], place)
        for kind in kinds:
            done[kind, when] = made = measure([*REVECTOR, "report", "grown", kind, "--json"], place, exits=(0, 3))
            print(f"  {rows:,} rows, {when}: {kind} {made.seconds:.1f} s, {made.peak / 1e9:.2f} GB", file=sys.stderr, flush=True)
    shutil.rmtree(place)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("collection")
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    seed = read(asked.store, asked.collection)
    grown = {rows: steps(seed, rows, SCRATCH / "report-costs", asked.kinds) for rows in asked.sizes}
    header = ["report", *(f"{rows:,} rows, {when}" for rows in grown for when in ("first", "after 1 %"))]
    lines = [
        [kind, *(f"{done[kind, when].seconds:.1f} s, {done[kind, when].peak / 1e9:.2f} GB" for done in grown.values() for when in WHEN)]
        for kind in asked.kinds
    ]
    sums = [sum(done[kind, when].seconds for kind in asked.kinds) for done in grown.values() for when in WHEN]
    text = table(header, [*lines, ["all", *(f"{seconds:.1f} s" for seconds in sums)]])
    publish(
        f"## Reports\n\n{machine()}\n\n{versions(sys.executable, ['pylance', 'openTSNE', 'graspologic-native'])}\n\n{text}\n", asked.out
    )


WHEN = ("first", "update")


if __name__ == "__main__":
    main()
