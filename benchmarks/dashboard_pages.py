"""What the pages of the dashboard take: each page's time and size, on disk and on S3, with 50 viewers at once, and the server's memory.

python -m benchmarks.dashboard_pages build/bench/pages                     # a million rows, 50 collections, 10,000 runs
python -m benchmarks.dashboard_pages build/bench/pages --rows 100000       # sooner
"""

import argparse
import gzip
import http.client
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import lance
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from lance.fragment import write_fragments

from flows import apply
from storage.collection import Collection
from storage.history.catalog import CATALOG, SCHEMA, all_publications
from storage.marts import columns
from storage.marts.mart_files import put_mart, read_mart, table_of
from storage.store.lance import Store
from tests.support.objectstore import BUCKET, serve

COLLECTIONS, RUNS = 50, 10_000
ROUNDS = 15
VIEWERS, SECONDS = 50, 20.0
MAIN = "million"
WORDS = ("harbour", "orchard", "violin", "glacier", "copper", "lantern", "meadow", "quartz", "saffron")
WORDS += ("timber", "willow", "anchor", "basalt", "cinder", "ember", "fjord", "garnet")
SPEC = """
[collections.million]
source   = {{ uri = "data/*.parquet", id = "id", text = "text", metadata = ["section", "year"] }}
chunking = {{ by = "document" }}
model    = {{ name = "hash", dimensions = 64 }}
reports  = ["map", "clusters", "outliers", "duplicates", "drift"]
prices   = {{ cpu_hour = 0.04, currency = "EUR" }}
schedule = "0 3 * * *"
"""
PAGES = {
    "overview": "/",
    "runs": "/runs",
    "runs, page 100": "/runs?page=100",
    "a run": "/runs/{name}/{run}",
    "collection": "/c/{name}",
    "quality": "/c/{name}/quality",
    "dead letters": "/c/{name}/letters",
    "map": "/c/{name}/map",
    "search": "/c/{name}/search",
    "search, text": "/c/{name}/search?q=saffron+in+the+harbour",
    "search, filter": "/c/{name}/search?q=glacier&field=section&op=%3D&value=copper",
    "search, id": "/c/{name}/search?id=d0000017%230",
    "compare": "/c/{name}/compare",
    "compare, text": "/c/{name}/compare?q=saffron+in+the+harbour",
    "documents": "/c/{name}/documents",
    "a document": "/c/{name}/documents?id=d0000017",
    "plan": "/c/{name}/plan",
}


@dataclass(frozen=True)
class Answer:
    status: int
    seconds: float
    size: int
    sent: int
    """Bytes when compressed."""


@dataclass(frozen=True)
class Server:
    address: str
    process: subprocess.Popen[bytes]

    def ask(self, path: str, token: str) -> Answer:
        began = time.monotonic()
        connection = http.client.HTTPConnection(self.address, timeout=120)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            got = connection.getresponse()
            body = got.read()
        finally:
            connection.close()
        return Answer(got.status, time.monotonic() - began, len(body), len(gzip.compress(body)))

    def peak(self) -> float:
        """Megabytes of memory, at most so far."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))


@contextmanager
def dashboard(store: str) -> Iterator[tuple[Server, str]]:
    """The command, as a person starts it."""
    token = secrets.token_urlsafe()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "token").write_text(token)
        (Path(folder) / "token").chmod(0o600)
        argv = [sys.executable, "-m", "flows.cli", "dashboard", "--store", store, "--port", "0", "--token-file", f"{folder}/token"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "NO_COLOR": "1"})
        assert process.stdout
        try:
            said = ""
            while "http://" not in said:
                said = process.stdout.readline().decode()
            address = urlsplit(next(word for word in said.split() if word.startswith("http://"))).netloc
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield Server(address, process), token
        finally:
            process.terminate()
            process.wait()


def make(folder: Path, rows: int) -> None:
    """The product itself makes the large collection, in two versions; the records of the others are made up."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "revector.toml").write_text(SPEC.format())
    step = min(rows, 100_000)
    for part in range(rows // step):
        _write(folder / f"data/{part}.parquet", range(part * step, (part + 1) * step), 0)
    apply(MAIN, folder / "revector.toml")
    _write(folder / "data/0.parquet", range(step), 1)
    apply(MAIN, folder / "revector.toml")
    invent(Store(str(folder / "store")))


def _write(path: Path, numbers: range, edition: int) -> None:
    """A tenth of the texts are others in each edition."""
    chance = random.Random(numbers.start)  # noqa: S311  nothing secret
    texts = [" ".join(chance.choices(WORDS, k=8)) + f" {number}" + (f" {edition}" if number % 10 == 0 else "") for number in numbers]
    columns = {
        "id": [f"d{number:07d}" for number in numbers],
        "text": texts,
        "section": [WORDS[number % 11] for number in numbers],
        "year": [1990 + number % 35 for number in numbers],
    }
    pq.write_table(pa.table(columns), path)


def invent(store: Store) -> None:
    """Records of 49 more collections, as their runs would have left them: all are like those of the real one."""
    real = Collection(store, MAIN)
    rows = {mart.name: read_mart(real, mart).to_pylist() for mart in columns.MARTS.values()}
    each = RUNS // COLLECTIONS
    began = datetime.now(UTC) - timedelta(days=each)
    runs = [(f"{began + timedelta(days=day):%Y%m%dT%H%M%S%f}-{day:06x}", began + timedelta(days=day)) for day in range(each)]
    publications = all_publications(store)
    catalog = [asdict(row) for row in publications]
    for number in range(COLLECTIONS - 1):
        name = f"collection-{number:02d}"
        for mart in columns.MARTS.values():
            put_mart(Collection(store, name), mart, table_of(mart, _like(rows[mart.name], mart.name, name, runs)))
        newest = {"run_id": runs[-1][0], "host": "elsewhere", "pid": 1, "started": "1"}
        token = rows["collections"][0]["token"]
        store.objects.put(Collection(store, name).key(f"fence/{token:012d}.json"), orjson.dumps(newest))
        catalog += [asdict(publications[-1]) | {"collection": name, "epoch": epoch + 1} for epoch in range(20)]
    real_runs = [*_like(rows["runs"], "runs", MAIN, runs), *rows["runs"]]
    put_mart(real, columns.RUNS, table_of(columns.RUNS, real_runs))
    put_mart(real, columns.GATES, table_of(columns.GATES, [*_like(rows["gates"], "gates", MAIN, runs), *rows["gates"]]))
    table = pa.Table.from_pylist(catalog, schema=SCHEMA)
    dataset = store.open(CATALOG)
    fragments = write_fragments(table, store.uri(CATALOG), schema=dataset.schema, mode="overwrite", storage_options=store.options)
    lance.LanceDataset.commit(
        store.uri(CATALOG),
        lance.LanceOperation.Overwrite(dataset.schema, fragments),
        read_version=dataset.version,
        storage_options=store.options,
    )


def _like(rows: list[dict[str, Any]], mart: str, name: str, runs: list[tuple[str, datetime]]) -> Iterator[dict[str, Any]]:
    """Rows of another collection: where a run leaves some, so many for each of `runs`."""
    if mart == "collections":
        yield from ({**row, "collection": name, "last_run": runs[-1][0], "last_status": "published"} for row in rows)
        return
    if mart not in ("runs", "stages", "gates", "coverage_daily", "costs_daily", "reports"):
        yield from ({**row, "collection": name} for row in rows)
        return
    last = [row for row in rows if row.get("run_id") in (None, rows[-1].get("run_id"))]
    for place, (run_id, at) in enumerate(runs):
        times = {column: at for column in ("began", "ended", "published_at", "judged_at", "reported_at") if column in rows[0]}
        days = {"day": at.date()} if "day" in rows[0] else {}
        ids = {column: run_id for column in ("run_id", "evaluation_id") if column in rows[0]}
        version = {"version": place + 1} if mart in ("gates", "reports") else {}
        yield from ({**row, **times, **days, **ids, **version, "collection": name} for row in last)


def measure(server: Server, token: str, run: str) -> dict[str, list[Answer]]:
    """Each page again and again, further apart than what is seen is kept for: each is looked up anew."""
    found = defaultdict(list)
    for _ in range(ROUNDS):
        for page, path in PAGES.items():
            found[page].append(server.ask(path.format(name=MAIN, run=run), token))
        time.sleep(0.5)
    return found


def crowd(server: Server, token: str, run: str) -> list[tuple[str, Answer]]:
    """50 viewers, each of whom looks at one page after another."""
    paths = [page for page in PAGES if not page.startswith(("compare, text", "search, "))]
    deadline, found = time.monotonic() + SECONDS, list[tuple[str, Answer]]()

    def view(number: int) -> None:
        chance = random.Random(number)  # noqa: S311  nothing secret
        while time.monotonic() < deadline:
            page = chance.choice(paths)
            found.append((page, server.ask(PAGES[page].format(name=MAIN, run=run), token)))
            time.sleep(chance.uniform(0.5, 1.5))

    viewers = [threading.Thread(target=view, args=(number,)) for number in range(VIEWERS)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()
    return found


def told(store: str, where: str, run: str) -> Iterator[str]:
    with dashboard(store) as (server, token):
        began = time.monotonic()
        server.ask("/", token)
        yield f"\n{where}: the first overview after {time.monotonic() - began:.2f} s\n"
        yield "| page | status | first, ms | median, ms | worst, ms | kB | kB gzip |"
        yield "|---|---|---|---|---|---|---|"
        for page, answers in measure(server, token, run).items():
            first, later = answers[0], sorted(answer.seconds for answer in answers[1:])
            times = f"{1000 * first.seconds:.0f} | {1000 * statistics.median(later):.0f} | {1000 * later[-1]:.0f}"
            yield f"| {page} | {first.status} | {times} | {first.size / 1000:.0f} | {first.sent / 1000:.0f} |"
        yield f"\nmemory of the server: {server.peak():.0f} MB"
        seen = crowd(server, token, run)
        times = sorted(answer.seconds for _, answer in seen)
        wrong = sum(answer.status >= 400 for _, answer in seen)
        slow = statistics.quantiles(times, n=100)
        pace = f"{len(times) / SECONDS:.0f} pages a second, {wrong} refused"
        waits = f"median {1000 * slow[49]:.0f} ms, 95 % {1000 * slow[94]:.0f} ms, worst {1000 * times[-1]:.0f} ms"
        yield f"{VIEWERS} viewers: {pace}, {waits}; memory {server.peak():.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    store = options.folder / "store"
    if not store.exists():
        began = time.monotonic()
        make(options.folder, options.rows)
        print(f"made in {time.monotonic() - began:.0f} s", flush=True)
    run = all_publications(Store(str(store)))[-1].run_id
    for line in told(str(store), "disk", run):
        print(line, flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch, serve(Path(scratch)) as s3:
        os.environ.update(s3.environment())
        files = fsspec.filesystem("s3", endpoint_url=s3.endpoint, key=s3.access_key, secret=s3.secret_key)
        files.put(f"{store}/", f"{BUCKET}/pages/", recursive=True)
        for line in told(f"s3://{BUCKET}/pages", "S3", run):
            print(line, flush=True)


if __name__ == "__main__":
    main()
