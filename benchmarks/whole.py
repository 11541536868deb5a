"""The whole machine: real passages from Parquet files to a table, by `revector apply` and by others; and what it adds to its model loop.

python -m benchmarks.whole --rounds 3 --passages 20000

One command at a time, in rotating order, each in a fresh process with an empty store. Start-up is what a command tells of it, else the time
of the same command on a handful of passages: the shortest of several, one before the first round and one in each.
"""

import argparse
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from benchmarks.harness import (
    PEERS,
    REVECTOR,
    ROOT,
    SCRATCH,
    Measured,
    interleaved,
    machine,
    measure,
    publish,
    ratios,
    spread,
    table,
    versions,
)
from benchmarks.passages import passages, write
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from storage import open_published
from workers.embedding.pool import LARGEST_LOCAL_POOL

TINY = 8
"""Passages that take no time worth the name."""
SPEC = """
[collections.passages]
source = {{ uri = "{corpus}/*.parquet", id = "id", text = "text" }}
chunking = {{ by = "document" }}
"""
CORES = len(os.sched_getaffinity(0))
PROCESSES = min(CORES, LARGEST_LOCAL_POOL)
"""As many as `apply` starts actors, and with as many threads each."""
TITLES = {
    "encode": "`encode` alone, one process, all cores (neither reads nor writes)",
    "script": "script: pyarrow, `encode`, `lancedb` add",
    "ray": "Ray Data `map_batches`, an actor a core",
    "daft": "Daft, a process a core",
    "loop": "revector's model loop alone (neither reads nor writes)",
    "apply": "`revector apply`",
}
PEER_JOBS = {"ray", "daft"}
WITHOUT_TABLE = {"encode", "loop"}


@dataclass(frozen=True, slots=True)
class Times:
    """Of one job in one round."""

    total: float
    """Seconds of the whole command."""
    work: float
    """Seconds beyond start-up."""


@dataclass(frozen=True, slots=True)
class Passes:
    """The forward passes of a job, as it tells them."""

    how: str
    """The model ran: "packed, bfloat16"."""
    tokens: int
    processes: int

    def __str__(self) -> str:
        return f"{self.how}, {self.tokens:,} tokens in {self.processes} processes"


def passes(job: str, output: Mapping[str, Any]) -> Passes | None:
    """None for a job that does not say."""
    match job:
        case "loop":
            return Passes(output["how"], output["tokens"], output["processes"])
        case "apply":
            return Passes(output["profile"]["how"], output["embed"]["tokens"], len(output["profile"]["workers"]))
        case _:
            return None


def beyond_start_up(whole: Measured, start_up: float) -> float:
    """Seconds of a command's work: as it tells them, else what it takes longer than with a tiny corpus."""
    match whole.output.get("seconds"):
        case float(told):
            return told
        case {"total": total}:  # of `apply`, which does a tiny corpus without Ray, so that it says nothing of the start of actors
            return float(total) - whole.output["profile"]["stages"].get("start the model", 0.0)
        case _:
            return whole.seconds - start_up


def run(job: str, corpus: Path, out: Path) -> Measured:
    """One job into the empty folder `out`."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    if job == "apply":
        (out / "revector.toml").write_text(SPEC.format(corpus=corpus))
        return measure([*REVECTOR, "apply", "--json"], out)
    python = PEERS if job in PEER_JOBS else Path(sys.executable)
    model = resolve_model(ModelSpec()).folder or ""
    command: list[str | Path] = [python, ROOT / "benchmarks/jobs.py", job, corpus, out, model, str(PROCESSES), str(CORES // PROCESSES)]
    return measure(command, out, RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")  # Ray listens on the loopback alone


def stored(job: str, out: Path) -> pa.Table:
    """Ids and vectors that a job wrote, in the order of the ids."""
    if job == "apply":
        rows = open_published(str(out / "store"), "passages").table.to_lance().to_table(columns=["doc_id", "vector"])
        return rows.rename_columns(["id", "vector"]).sort_by("id")
    return lance.dataset(out / "passages.lance").to_table(columns=["id", "vector"]).sort_by("id")


def agreement(job: str, out: Path, reference: np.ndarray) -> str:
    """Rows, and their cosines to the vectors of `encode`. Raises SystemExit if a row is missing or twice."""
    rows = stored(job, out)
    if rows["id"].to_pylist() != [f"{number:08}" for number in range(len(reference))]:
        raise SystemExit(f"{job}: expected each of {len(reference)} passages once, found {len(rows)} rows")
    flat = rows["vector"].combine_chunks().flatten().to_numpy().astype(np.float32).reshape(reference.shape)
    cosines = (flat * reference).sum(axis=1) / np.linalg.norm(flat, axis=1) / np.linalg.norm(reference, axis=1)
    return f"{cosines.mean():.6f} / {cosines.min():.6f}"


def compare(
    jobs: Sequence[str], corpus: Path, tiny: Path, rounds: int
) -> tuple[Mapping[str, list[Times]], Mapping[str, str], Mapping[str, Passes | None]]:
    """Seconds by job, how its vectors agree with those of `encode`, which is the first job, and its forward passes of the last round."""
    times, agreements, made = defaultdict[str, list[Times]](list), dict.fromkeys(WITHOUT_TABLE, ""), dict[str, Passes | None]()
    start_up = {job: run(job, tiny, SCRATCH / "whole/tiny").seconds for job in jobs}  # what cannot run at all fails here, and soon
    reference = np.zeros(0)
    for job in interleaved(jobs, rounds):
        start_up[job] = min(start_up[job], run(job, tiny, SCRATCH / "whole/tiny").seconds)
        whole = run(job, corpus, out := SCRATCH / "whole" / job)
        times[job].append(Times(whole.seconds, beyond_start_up(whole, start_up[job])))
        made[job] = passes(job, whole.output)
        print(f"  {job}: {whole.seconds:.1f} s, {times[job][-1].work:.1f} beyond start-up", file=sys.stderr, flush=True)
        if job == "encode":
            reference = np.load(out / "vectors.npy")
        elif job not in agreements:
            agreements[job] = agreement(job, out, reference)
    return times, agreements, made


def efficiency(times: Mapping[str, list[Times]], made: Mapping[str, Passes | None]) -> str:
    """What a run adds to its model loop. Raises SystemExit if the two did not make the same forward passes: they say nothing then."""
    if made["loop"] != made["apply"]:
        raise SystemExit(f"expected the same forward passes of the model loop and of apply, found {made['loop']} and {made['apply']}")
    loop, apply = ([each.work for each in times[job]] for job in ("loop", "apply"))
    return (
        f"Platform efficiency, time of the model loop alone / time of `apply` beyond start-up: {ratios(loop, apply)}. "
        f"Both make the same forward passes: {made['loop']}, shards of the same size, the next one prepared beside the model."
    )


def rows(jobs: Sequence[str], times: Mapping[str, list[Times]], agreements: Mapping[str, str]) -> Iterator[list[str]]:
    base = times["encode"]
    alone = [each.work for each in base]
    for job in jobs:
        total, work = [each.total for each in times[job]], [each.work for each in times[job]]
        yield [
            TITLES[job],
            spread(total, 1),
            spread(work, 1),
            ratios([each.total for each in base], total),
            ratios(alone, work),
            agreements[job],
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--passages", type=int, default=20_000)
    parser.add_argument("--sentences", type=int, default=2, help="of a passage")
    parser.add_argument("--only", nargs="*", default=list(TITLES), help="jobs; encode is always there")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    texts = list(islice(passages(options.sentences), options.passages))
    corpus = write(texts, SCRATCH / f"passages-{len(texts)}x{options.sentences}")
    tiny = write(texts[:TINY], SCRATCH / f"passages-{TINY}x{options.sentences}")
    wanted = [job for job in TITLES if job in ("encode", *options.only)]
    jobs = [job for job in wanted if job not in PEER_JOBS or PEERS.exists()]
    times, agreements, made = compare(jobs, corpus, tiny, options.rounds)
    header = ["what", "seconds", "of these beyond start-up", "ratio to `encode`", "ratio beyond start-up", "cosine to `encode`, mean / min"]
    lines = [
        "## The whole machine: files to a table\n",
        f"{machine()}; {PROCESSES} model processes of {CORES // PROCESSES} thread(s).",
        f"all-MiniLM-L6-v2, {len(texts):,} distinct passages of {options.sentences} sentences "
        f"(median {np.median([*map(len, texts)]):.0f} characters), {options.rounds} round(s); median (least-most). "
        "Each table was checked: every passage once.",
        versions(sys.executable, ["torch", "sentence-transformers", "ray", "pylance", "lancedb"]) + ".",
        *([f"Peers: {versions(PEERS, ['torch', 'sentence-transformers', 'ray', 'daft', 'pylance'])}."] if PEER_JOBS & {*jobs} else []),
        *([f"Not installed (`make bench-peers`): {', '.join({*wanted} - {*jobs})}."] if jobs != wanted else []),
    ]
    report = "\n".join(lines) + "\n\n" + table(header, list(rows(jobs, times, agreements)))
    if {"loop", "apply"} <= {*jobs}:
        report += f"\n\n{efficiency(times, made)}"
    publish(report, options.out)


if __name__ == "__main__":
    main()
