"""What it costs to have a run somewhere else: one collection, loaded and then found current, in three ways.

python -m benchmarks.submission [--rounds 3] [--documents 5000] [--out FILE]

`here`: `revector apply`, which starts a Ray of its own for the load. `RAY_ADDRESS`: the same, with its workers on a cluster that runs.
`--cluster`: the whole of it there, as a job that is submitted and followed. The model is the stand-in: nothing but overhead is measured.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks.harness import REVECTOR, SCRATCH, interleaved, machine, measure, publish, ratios, spread, table, versions
from tests.support.jobserver import JobServer, job_server
from workers.cluster.connection import RAY_ENVIRONMENT

WAYS = ("here", "RAY_ADDRESS", "--cluster")
WORDS = 60


def write_collection(folder: Path, documents: int) -> None:
    """A spec and a corpus; the store is made by each load."""
    with (folder / "docs.jsonl").open("w") as out:
        for number in range(documents):
            out.write(json.dumps({"id": f"d{number}", "text": f"text number {number} " * (WORDS // 3)}) + "\n")
    (folder / "revector.toml").write_text(
        '[collections.docs]\nsource = { uri = "docs.jsonl", id = "id", text = "text" }\n'
        'model = { name = "hash", dimensions = 384 }\nworkers = { actors = 2 }\n'
    )


def way(name: str, server: JobServer) -> tuple[list[str], dict[str, str]]:
    """The command and its environment."""
    if name == "--cluster":
        return [f"--cluster={server.url}"], server.environment()
    if name == "RAY_ADDRESS":
        return [], RAY_ENVIRONMENT | server.environment() | {"RAY_ADDRESS": server.address}
    return [], {}


def _row(what: str, name: str, taken: list[float], here: list[float]) -> list[str]:
    more = [one - other for one, other in zip(taken, here, strict=True)]
    return [what, name, spread(taken), spread(more), ratios(taken, here)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, job_server(Path(folder), module="flows.cli") as server:
        place = Path(folder) / "place"
        place.mkdir()
        write_collection(place, options.documents)
        for name in interleaved(WAYS, options.rounds):
            shutil.rmtree(place / "store", ignore_errors=True)
            arguments, environment = way(name, server)
            for what, status in (("load", "published"), ("nothing to do", "nothing")):
                done = measure([*REVECTOR, "apply", "--json", *arguments], place, **environment)
                if done.output.get("status") != status:
                    raise SystemExit(f"expected {status} of {name}, found {done.output.get('status')}")
                seconds[what, name].append(done.seconds)
    rows = [_row(what, name, seconds[what, name], seconds[what, "here"]) for what in ("load", "nothing to do") for name in WAYS]
    said = f"{options.documents:,} documents, the stand-in model, {options.rounds} rounds, interleaved. Median (least-most)."
    header = ("", "way", "seconds", "more than here", "times as long as here")
    where = f"{machine()}; {versions(sys.executable, ['ray'])}"
    publish(f"## What a run somewhere else costs\n\n{said}\n{where}\n\n{table(header, rows)}", options.out)


if __name__ == "__main__":
    main()
