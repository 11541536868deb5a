"""A retrieval task of real text: Debian's package descriptions are the corpus, and the synopses of some packages are the queries.

python -m benchmarks.debian --count 20480 build/bench/debian-20480       # data/*.parquet (id, text) and queries.jsonl

Each query has one right answer, the package that it is the synopsis of. Wants apt, and no rights: its lists go to a folder of their own.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import SCRATCH
from benchmarks.passages import write_parts

COUNT = 20_480
QUERIES = 2_048
CHARACTERS = 300
"""Of a passage, at most: about 65 tokens, so that a large model takes it in a bearable time without a GPU."""
LISTS = SCRATCH / "apt"


@dataclass(frozen=True, slots=True)
class Package:
    """What Debian says about one package."""

    name: str
    synopsis: str
    """One line: the query."""
    text: str
    """The beginning of the long description, without the synopsis: the passage."""


@dataclass(frozen=True, slots=True)
class Task:
    """A corpus and its labelled queries, as they lie in a folder."""

    folder: Path
    ids: list[str]
    """Of the passages, in the order of the files."""
    texts: list[str]
    queries: list[str]
    relevant: list[str]
    """The id that answers each query."""

    @property
    def data(self) -> Path:
        """The folder of Parquet files (id, text)."""
        return self.folder / "data"

    @property
    def labels(self) -> Path:
        """The labelled queries, one JSON object a line: `query`, `relevant`."""
        return self.folder / "queries.jsonl"


def load(folder: Path | None = None, count: int = COUNT, queries: int = QUERIES) -> Task:
    """The task in `folder`, which is made if it is not there. Raises SystemExit without apt and its lists."""
    folder = folder or SCRATCH / f"debian-{count}"
    if not (folder / "data").exists():
        _write(folder, sample(distinct(packages()), count), queries)
    corpus = pq.read_table(folder / "data")
    labelled = [json.loads(line) for line in (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    relevant = [line["relevant"][0] for line in labelled]
    return Task(folder, corpus["id"].to_pylist(), corpus["text"].to_pylist(), [line["query"] for line in labelled], relevant)


def packages() -> Iterator[Package]:
    """All that have a long description, by name."""
    found = {package.name: package for file in _lists() for package in _parse(file.read_text(encoding="utf-8"))}
    return (found[name] for name in sorted(found))


def distinct(found: Iterator[Package]) -> Iterator[Package]:
    """Only packages whose synopsis and passage have not come before: a query must have one answer."""
    seen = set[str]()
    for package in found:
        if seen.isdisjoint((package.synopsis, package.text)):
            seen.update((package.synopsis, package.text))
            yield package


def sample(found: Iterator[Package], count: int) -> list[Package]:
    """Those whose names have the smallest hashes, in that order: nearly the same ones whatever comes or goes meanwhile."""
    return sorted(found, key=lambda package: hashlib.sha256(package.name.encode()).digest())[:count]


def _lists() -> list[Path]:
    """Files of English descriptions, fetched the first time."""
    if not shutil.which("apt-get"):
        raise SystemExit("expected apt-get, found none: run this on Debian, or in a container of it")
    (folder := LISTS / "lists").mkdir(parents=True, exist_ok=True)
    if not (found := sorted(folder.glob("*Translation-en"))):
        settings = (f"Dir::State::Lists={folder}", f"Dir::Cache={LISTS}", "Acquire::Languages=en", "Acquire::GzipIndexes=false")
        command = ["apt-get", "--quiet", *(word for setting in settings for word in ("-o", setting)), "update"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        found = sorted(folder.glob("*Translation-en"))
        if done.returncode or not found:
            raise SystemExit(f"expected Debian's descriptions from `apt-get update`, found none: {done.stderr.strip()[-300:]}")
    return found


def _parse(paragraphs: str) -> Iterator[Package]:
    """The form of Debian's control files: a line " ." stands for an empty one."""
    for paragraph in paragraphs.split("\n\n"):
        head, _, description = paragraph.partition("\nDescription-en: ")
        synopsis, _, rest = description.partition("\n")
        lines = [line for line in rest.splitlines() if line.strip() != "."]
        if text := textwrap.shorten(" ".join(lines), CHARACTERS, placeholder="", break_on_hyphens=False):
            yield Package(head.partition("\n")[0].removeprefix("Package: "), synopsis.strip(), text)


def _write(folder: Path, chosen: Sequence[Package], queries: int) -> None:
    """The passages last: they are there as a whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"query": package.synopsis, "relevant": [package.name]}) for package in chosen[:queries])
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    corpus = pa.table({"id": [package.name for package in chosen], "text": [package.text for package in chosen]})
    write_parts(corpus, folder / "data")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--queries", type=int, default=QUERIES)
    options = parser.parse_args()
    task = load(options.folder, options.count, options.queries)
    print(f"{len(task.ids):,} passages of {sum(map(len, task.texts)) / len(task.texts):.0f} characters in {task.data}")
    print(f"{len(task.queries):,} queries in {task.labels}")


if __name__ == "__main__":
    main()
