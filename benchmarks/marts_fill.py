"""How long marts take: to bring them up to date after a run, to fill a Postgres with them, to fill it again, and to ask ten questions.

    python -m benchmarks.marts_fill [--collections 50] [--runs 200]

Rows of runs, stages and gates as a nightly schedule makes them; a Postgres of Debian's package on a socket, which syncs nothing.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from docs.make_marts import questions, views
from storage.collection import Collection
from storage.marts.columns import MARTS
from storage.marts.mart_files import put_mart, table_of
from storage.marts.postgres import fill
from storage.store.lance import Store
from tests.support.postgresql import Postgres, serve_postgres

STAGES = ("read", "chunk", "difference", "embed", "commit", "index", "judge", "publish")
GATES = ("norms", "rows", "ids", "dead letters", "removed", "cosine", "index recall", "overlap", "ndcg", "bias")
NOW = datetime.now(UTC).replace(microsecond=0)
START = NOW - timedelta(days=400)

Row = dict[str, Any]


def runs_of(name: str, count: int) -> Iterator[Row]:
    for number in range(count):
        began = START + timedelta(hours=number)
        yield {
            **{"collection": name, "run_id": f"{began:%Y%m%dT%H%M%S}000000-{number:06x}", "what": "apply", "began": began},
            **{"ended": began + timedelta(minutes=9), "status": "failed" if number % 50 == 7 else "published", "change": "data"},
            **{"who": "flows", "host": "ray-head", "generation": f"{name}.vectors.0123456789ab", "version": number, "seconds": 540.0},
            **{"documents_added": number % 90, "documents_changed": 3, "documents_removed": 1, "documents_unchanged": 10_000},
            **{"chunks_written": 1000, "chunks_reused": 900, "reused_share": 0.9, "tokens": 100_000 + number, "tokens_per_second": 900.0},
            **{"cost": 0.2, "currency": "EUR", "dead_letters": number % 3, "failed_gates": 0},
        }


def rows_of(name: str, count: int) -> dict[str, list[Row]]:
    """As many runs, with their stages, gates and versions, and what stands at the end."""
    runs = list(runs_of(name, count))
    of_run = [{key: run[key] for key in ("collection", "run_id")} for run in runs]
    return {
        "runs": runs,
        "stages": [{**run, "stage": stage, "place": at, "seconds": 60.0 + at} for run in of_run for at, stage in enumerate(STAGES)],
        "gates": [
            {**run, "evaluation_id": run["run_id"], "gate": gate, "judged_at": made["ended"], "value": 0.97, "threshold": 0.95}
            | {"passed": gate != "ndcg" or number % 20 > 0, "kind": "hard", "version": number, "generation": made["generation"]}
            for number, (run, made) in enumerate(zip(of_run, runs, strict=True))
            for gate in GATES
        ],
        "versions": [
            {"collection": name, "epoch": number + 1, "action": "rollback" if number % 99 == 5 else "update", "published_at": run["ended"]}
            | {"run_id": run["run_id"], "who": "ann", "why": "", "generation": run["generation"], "version": number}
            for number, run in enumerate(runs)
        ],
        "dead_letters": [
            {"collection": name, "stage": "document", "file": f"{n}.parquet", "id": str(n), "reason": "empty", "inputs": 1}
            for n in range(100)
        ],
        "collections": [{"collection": name, "as_of": NOW, "looked_at": NOW, "month_cost": 9.0, "monthly_budget": 5.0}],
        "generations": [{"collection": name, "generation": f"{name}.vectors.0123456789ab", "role": "published", "chunks": 9, "vectors": 9}],
    }


def leave(collection: Collection, count: int) -> None:
    rows = rows_of(collection.name, count)
    for mart in MARTS.values():
        put_mart(collection, mart, table_of(mart, rows.get(mart.name, [])))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


def measure(server: Postgres, folder: Path, collections: int, runs: int) -> Iterator[tuple[str, float]]:
    store = Store(str(folder))
    every = [Collection(store, f"c{number:02}") for number in range(collections)]
    for one in every:
        leave(one, runs)
    yield "fill all, the first time", timed(lambda: [fill(server.uri(), one) for one in every])[0]
    yield "fill all, nothing new", timed(lambda: [fill(server.uri(), one) for one in every])[0]
    leave(every[0], runs + 1)
    seconds, filled = timed(lambda: fill(server.uri(), every[0]))
    yield f"fill one after one more run ({sum(filled.rows.values())} rows changed)", seconds
    files = duckdb.connect()
    for view in views(store.root):
        files.execute(view)
    by_files = {said: timed(lambda sql=sql: files.execute(sql).fetchall())[0] for said, sql in questions()}
    yield "DuckDB on the files, the slowest of ten questions", max(by_files.values())
    yield "DuckDB on the files, all ten", sum(by_files.values())
    by_server = {said: timed(lambda sql=sql: server.rows(sql))[0] for said, sql in questions()}
    yield "Postgres, the slowest of ten questions, connection included", max(by_server.values())
    yield "Postgres, all ten", sum(by_server.values())


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--collections", type=int, default=50)
    asked.add_argument("--runs", type=int, default=200)
    sizes = asked.parse_args()
    with serve_postgres() as server, tempfile.TemporaryDirectory() as folder:
        print(f"{sizes.collections} collections with {sizes.runs} runs each, {os.cpu_count()} cores\n\n| what | seconds |\n| --- | --- |")
        for what, seconds in measure(server, Path(folder), sizes.collections, sizes.runs):
            print(f"| {what} | {seconds:.3f} |", flush=True)


if __name__ == "__main__":
    main()
