"""What `kill -9` costs: a load with the real model, killed at random moments, against the same load left alone.

Prints whether the two ended alike, and the forward passes of both. Rows in staged files count every shard that was finished, also those
whose commit never came; a shard that was killed half-way is in no count.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from lance.file import LanceFileReader

from storage import open_published

GLOSSES = Path(__file__).parent.parent / "flows/demo/glosses.parquet"
SPEC = """
[collections.glosses]
source = { uri = "data/*.parquet", id = "id", text = "text" }
workers = { actors = 2 }
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--documents", type=int, default=24_000)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    rng = random.Random(options.seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        calm, stormy = (place(Path(folder) / name, options.documents) for name in ("calm", "stormy"))
        began = time.monotonic()
        subprocess.run(command(), cwd=calm, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        print(f"undisturbed: {time.monotonic() - began:.0f} s, {staged_rows(calm):,} forward passes", flush=True)
        landed = 0
        for _ in range(options.kills):
            landed += kill_once(stormy, rng.uniform(6, 22))
        subprocess.run(command(), cwd=stormy, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        same = contents(calm) == contents(stormy)
        ratio = staged_rows(stormy) / staged_rows(calm)
        print(f"{landed} of {options.kills} kills met a run; the same chunks and contents, none twice: {same}")
        print(f"forward passes of finished shards: {staged_rows(stormy):,}, {ratio:.3f} of one load")


def place(folder: Path, documents: int) -> Path:
    """A corpus of distinct texts made of the demo's glosses, and its spec."""
    glosses = pq.read_table(GLOSSES)
    texts = [f"{opening}{gloss}" for opening in ("", "In brief: ", "It is said: ") for gloss in glosses["gloss"].to_pylist()][:documents]
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.table({"id": [str(number) for number in range(len(texts))], "text": texts}), folder / "data/glosses.parquet")
    (folder / "revector.toml").write_text(SPEC)
    return folder


def command() -> list[str]:
    return [sys.executable, "-m", "flows.cli", "apply"]


def kill_once(folder: Path, seconds: float) -> bool:
    """Start a run and kill its whole process group. False if it had ended by then."""
    process = subprocess.Popen(command(), cwd=folder, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def staged_rows(folder: Path) -> int:
    files = (folder / "store").glob("glosses.vectors.*.lance/data/*.lance")
    return sum(rows_of(file) for file in files)


def rows_of(file: Path) -> int:
    """0 for a file that was cut off by a kill."""
    try:
        return int(LanceFileReader(str(file)).metadata().num_rows)
    except (OSError, ValueError):
        return 0


def contents(folder: Path) -> list[tuple[str, str, bytes]]:
    rows = open_published(str(folder / "store"), "glosses").table.to_arrow().sort_by("chunk_id")
    return list(zip(rows["chunk_id"].to_pylist(), rows["text"].to_pylist(), rows["content_hash"].to_pylist(), strict=True))


if __name__ == "__main__":
    main()
