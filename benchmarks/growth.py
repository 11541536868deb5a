"""How the cost of a run grows: loads, runs with nothing to do, and small changes, with the stand-in model at several sizes.

python -m benchmarks.growth --sizes 10000 100000 1000000     # --large adds ten million
python -m benchmarks.growth --sizes --shapes                 # only the corpus in many files, and the table in many fragments

Made-up documents of twelve words, a chunk each, in 20 Parquet files, written as they are made. Each step is one command from the shell:
its wall time, and the largest resident set of any process in its tree.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.harness import REVECTOR, SCRATCH, Measured, machine, measure, publish, table, versions

WORDS = 12
VOCABULARY = 50_000
GROUP_ROWS = 65_536
SCHEMA = pa.schema({"id": pa.string(), "text": pa.string()})
SPEC = """
[collections.grown]
source = { uri = "data/*.parquet", id = "id", text = "text" }
chunking = { by = "document" }
model = { name = "hash", dimensions = 384 }
"""
APPLY = [*REVECTOR, "apply", "--json"]
PLAN = [*REVECTOR, "plan", "--json"]
TINY_SHARDS = """
import sys
from flows import apply
from workers.runs import filling
assert {"FIRST_SHARD_TOKENS", "LARGEST_SHARD_TOKENS"} <= vars(filling).keys()
filling.FIRST_SHARD_TOKENS = filling.LARGEST_SHARD_TOKENS = int(sys.argv[1])
apply()
"""
"""A load whose shards, and so the fragments of its table, have so many tokens."""
STEPS = ["load", "no-op `plan`", "no-op `apply`", "1 % in one file", "1 % in every file", "revert"]


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is loaded."""

    documents: int
    files: int = 20
    fragments: int | None = None
    """Of the table of vectors; None: as many as `apply` makes."""

    @property
    def title(self) -> str:
        made = f", {self.fragments:,} fragments" if self.fragments else ""
        return f"{self.documents:,} chunks, {self.files:,} files{made}"


def write(corpus: Corpus, folder: Path) -> None:
    """A file at a time, in row groups: memory does not grow with the corpus."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    vocabulary = pa.array(["".join(letters) for letters in rng.choice(list("abcdefghijklmnopqrstuvwxyz"), (VOCABULARY, 6))])
    borders = np.linspace(0, corpus.documents, corpus.files + 1, dtype=np.int64)
    for number, (start, stop) in enumerate(pairwise(borders)):
        with pq.ParquetWriter(folder / f"part-{number:05}.parquet", SCHEMA) as file:
            for first in range(start, stop, GROUP_ROWS):
                ids = pa.array(np.arange(first, min(first + GROUP_ROWS, stop))).cast(pa.string())
                words = (vocabulary.take(pa.array(rng.integers(VOCABULARY, size=len(ids)))) for _ in range(WORDS))
                file.write_batch(pa.record_batch([ids, pc.binary_join_element_wise(*words, " ")], schema=SCHEMA))


def change(files: Sequence[Path], documents: int, prefix: str) -> None:
    """Put `prefix` before so many texts, spread evenly over all rows of the files."""
    total = sum(pq.read_metadata(file).num_rows for file in files)
    step, seen = max(1, total // documents), 0
    for file in files:
        with pq.ParquetFile(file) as old, pq.ParquetWriter(new := file.with_suffix(".new"), SCHEMA) as out:
            for batch in old.iter_batches(GROUP_ROWS):
                chosen = pa.array((np.arange(seen, seen + len(batch)) % step) == 0)
                texts = pc.if_else(chosen, pc.binary_join_element_wise(prefix, batch["text"], " "), batch["text"])
                out.write_batch(pa.record_batch([batch["id"], texts], schema=SCHEMA))
                seen += len(batch)
        new.replace(file)


def grow(corpus: Corpus, place: Path) -> dict[str, Measured]:
    """All steps, in the order of STEPS. The corpus and the store are gone afterwards."""
    shutil.rmtree(place, ignore_errors=True)
    data, kept = place / "data", place / "original"
    write(corpus, data)
    (place / "revector.toml").write_text(SPEC)
    files = sorted(data.iterdir())
    kept.mkdir()
    for file in files:
        os.link(file, kept / file.name)
    percent = max(1, corpus.documents // 100)
    done = dict[str, Measured]()

    def step(name: str, command: Sequence[str | Path]) -> None:
        done[name] = measure(command, place)
        print(f"  {corpus.title}: {name} {done[name].seconds:.1f} s, {_gigabytes(done[name])}", file=sys.stderr, flush=True)

    step("load", _load(corpus))
    _check(corpus, place)
    step("no-op `plan`", PLAN)
    step("no-op `apply`", APPLY)
    change(files[: _needed(corpus, percent)], percent, "once")
    step("1 % in one file", APPLY)
    change(files, percent, "again")
    step("1 % in every file", APPLY)
    for file in kept.iterdir():
        file.replace(data / file.name)
    step("revert", APPLY)
    _check(corpus, place)
    shutil.rmtree(place)
    return done


def _load(corpus: Corpus) -> list[str]:
    if corpus.fragments is None:
        return APPLY
    return [sys.executable, "-c", TINY_SHARDS, str(WORDS * corpus.documents // corpus.fragments)]


def _needed(corpus: Corpus, documents: int) -> int:
    """Files that hold so many documents: one, unless there are thousands."""
    return -(-documents * corpus.files // corpus.documents)


def _check(corpus: Corpus, place: Path) -> None:
    """Nothing is missing, nothing is there twice, and in no fewer fragments than were asked for. Raises SystemExit."""
    (file,) = (place / "store").glob("grown.vectors.*.lance")
    vectors = lance.dataset(file)
    rows, fragments = vectors.count_rows(), len(vectors.get_fragments())
    if rows != corpus.documents or fragments < 0.9 * (corpus.fragments or 1):
        raise SystemExit(f"{corpus.title}: found {rows:,} vectors in {fragments:,} fragments")


def _gigabytes(step: Measured) -> str:
    return f"{step.peak / 1e9:.2f} GB"


def rows(grown: Mapping[Corpus, Mapping[str, Measured]]) -> Iterator[list[str]]:
    """A row a step: wall time and peak at each size, then what became of them from each size to the next."""
    for step in STEPS:
        cells = [f"{steps[step].seconds:.1f} s, {_gigabytes(steps[step])}" for steps in grown.values()]
        yield [step, *cells]
    yield ["load, a chunk", *(f"{1e6 * steps['load'].seconds / corpus.documents:,.0f} µs" for corpus, steps in grown.items())]
    for step in STEPS[3:]:
        yield [f"{step} / load", *(f"{steps[step].seconds / steps['load'].seconds:.1%}" for steps in grown.values())]


def factors(grown: Mapping[Corpus, Mapping[str, Measured]]) -> Iterator[list[str]]:
    """A row a step: how many times longer, and larger, than at the size before."""
    corpora = list(grown)
    for step in STEPS:
        pairs = [(grown[small][step], grown[large][step]) for small, large in pairwise(corpora)]
        yield [step, *(f"{large.seconds / small.seconds:.1f}x time, {large.peak / small.peak:.2f}x memory" for small, large in pairs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], help="in chunks")
    parser.add_argument("--large", action="store_true", help="ten million, too")
    parser.add_argument("--shapes", action="store_true", help="100,000 chunks in 10,000 files, and in 2,000 fragments, too")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    sizes = [Corpus(size) for size in [*options.sizes, *([10_000_000] if options.large else [])]]
    shapes = [Corpus(100_000, files=10_000), Corpus(100_000, fragments=2_000)] if options.shapes else []
    grown = {corpus: grow(corpus, SCRATCH / "growth") for corpus in (*sizes, *shapes)}
    by_size = {corpus: grown[corpus] for corpus in sizes}
    parts = [
        "## Growth",
        f"{machine()}; {versions(sys.executable, ['ray', 'pylance'])}.\n"
        "Stand-in model, 384 dimensions, twelve words a chunk; wall time of the whole command, and its largest process; one run each. "
        "Where a file holds less than 1 %, `in one file` is in as few as hold it.",
        table(["step", *(corpus.title for corpus in grown)], list(rows(grown))),
    ]
    if len(sizes) > 1:
        names = [f"{large.documents / small.documents:g}x, to {large.documents:,}" for small, large in pairwise(sizes)]
        parts.append(table(["growth", *names], list(factors(by_size))))
    publish("\n\n".join(parts), options.out)


if __name__ == "__main__":
    main()
