"""A collection of a million points to look at, made without a model: what the map of the dashboard is measured on.

python -m benchmarks.map_points build/bench/million          # 1,000,000 rows, two published versions, an atlas of 25,000 landmarks
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.harness import REVECTOR, machine, peak_bytes, table
from benchmarks.harness import publish as publish_section
from pipelines.content.chunks import HASH, chunk_schema, vector_schema
from storage.collection import Collection
from storage.history.catalog import Publication, publish
from storage.reports.atlas import Atlas, keep_atlas
from storage.reports.kept_reports import KeptReport, keep_report
from storage.reports.report_table import BESIDE, ReportTable
from storage.store.commit import Change, commit
from storage.store.lance import Store
from storage.tables.checksums import commit_of
from storage.who import now, whoami

NAME, GENERATION, CHUNKS = "million", "million.vectors.0a1b2c3d4e5f", "million.chunks.0a1b2c3d4e5f"
LANDMARKS, CLUSTERS, DIMENSION, PART = 25_000, 60, 32, 100_000
CHANGED = 0.03
"""Of the rows, that are others in the second version; as many come, and go."""
TOKEN, ROUNDS = "a token of the benchmark", 5
STAR = [(0.0628 * step, 0.5 if step % 2 else 1.0) for step in range(100)]
METADATA = pa.struct([("section", pa.string()), ("year", pa.int64()), ("score", pa.float64())])
WORDS = ("harbour", "orchard", "violin", "glacier", "copper", "lantern", "meadow", "quartz", "saffron")
WORDS += ("timber", "willow", "anchor", "basalt", "cinder", "dahlia", "ember", "fjord", "garnet")


class Making:
    """Rows by number and edition: the same ones in each table."""

    def __init__(self, rows: int) -> None:
        chance = np.random.default_rng(7)
        self.rows = rows
        middles = chance.uniform(-30, 30, (CLUSTERS, 2))
        self.clusters = chance.integers(0, CLUSTERS, LANDMARKS).astype(np.int32)
        self.places = (middles[self.clusters] + chance.normal(0, 1.6, (LANDMARKS, 2))).astype(np.float32)
        self.landmark_of = chance.integers(0, LANDMARKS, 2 * rows).astype(np.int32)

    def keys(self, numbers: NDArray[np.int64], edition: int) -> dict[str, pa.Array]:
        hashes = [(int(number) * 2_654_435_761 + edition).to_bytes(8, "little") * 2 for number in numbers]
        return {
            "chunk_id": pa.array([f"document-{number:07d}#0" for number in numbers.tolist()]),
            "content_hash": pa.array(hashes, HASH),
            "row_hash": pa.array(hashes, HASH),
        }

    def vectors(self, numbers: NDArray[np.int64], edition: int) -> pa.Table:
        chance = np.random.default_rng([int(numbers[0]), edition])
        vectors = chance.normal(size=(len(numbers), DIMENSION)).astype(np.float16)
        texts = [f"{WORDS[number % 18]} {WORDS[number // 18 % 18]} of document {number}, edition {edition}" for number in numbers.tolist()]
        sections = [WORDS[cluster % 11] for cluster in self.clusters[self.landmark_of[numbers]].tolist()]
        metadata = [
            {"section": section, "year": 1990 + number % 35, "score": float(number % 1000) / 10}
            for section, number in zip(sections, numbers.tolist(), strict=True)
        ]
        columns = self.keys(numbers, edition) | {
            "doc_id": pa.array([f"document-{number:07d}" for number in numbers.tolist()]),
            "ordinal": pa.array(np.zeros(len(numbers), np.int32)),
            "start": pa.array(np.zeros(len(numbers), np.int64)),
            "end": pa.array([len(text) for text in texts], pa.int64()),
            "text": pa.array(texts),
            "metadata": pa.array(metadata, METADATA),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSION),
        }
        schema = vector_schema(METADATA, DIMENSION, "float16")
        return pa.table({name: columns[name] for name in schema.names}, schema=schema)

    def beside(self, numbers: NDArray[np.int64], edition: int) -> pa.Table:
        chance = np.random.default_rng([int(numbers[0]), edition, 1])
        landmarks = self.landmark_of[numbers + (self.rows // 3 if edition else 0)]
        spots = self.places[landmarks] + chance.normal(0, 0.12, (len(numbers), 2)).astype(np.float32)
        similarity = chance.uniform(0.5, 1, len(numbers)).astype(np.float32)
        columns = self.keys(numbers, edition) | {
            "landmark": pa.array(landmarks),
            "similarity": pa.array(similarity),
            "second": pa.array(landmarks),
            "second_similarity": pa.array(similarity),
            "x": pa.array(np.ascontiguousarray(spots[:, 0])),
            "y": pa.array(np.ascontiguousarray(spots[:, 1])),
            "cluster": pa.array(self.clusters[landmarks]),
        }
        return pa.table(columns, schema=BESIDE)

    def atlas(self) -> Atlas:
        names = {number: ", ".join(WORDS[place % 18] for place in (number, number * 7 + 3, number * 5 + 11)) for number in range(CLUSTERS)}
        near = np.stack([np.roll(np.arange(LANDMARKS, dtype=np.int32), step) for step in (1, 2)], axis=1)
        hashes = pa.array([number.to_bytes(16, "big") for number in range(LANDMARKS)], HASH)
        vectors = np.ones((LANDMARKS, DIMENSION), np.float32)
        ids = tuple(f"document-{number:07d}#0" for number in range(LANDMARKS))
        return Atlas(1, 1, ids, hashes, vectors, near, np.ones((LANDMARKS, 2), np.float32), self.places, self.clusters, names)


def parts(numbers: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (numbers[first : first + PART] for first in range(0, len(numbers), PART))


def make(folder: Path, rows: int) -> None:
    """A store in `folder`."""
    store = Store(str(folder))
    collection = Collection(store, NAME)
    making = Making(rows)
    table = ReportTable(collection, GENERATION, "a1")
    space = {"id": "0" * 32, "weights_sha256": "0" * 64, "normalize": True, "dimension": DIMENSION}
    meta = {"space": space, "chunk_table": CHUNKS, "model": {"name": "hash", "dimensions": DIMENSION}}
    vectors = store.create(GENERATION, vector_schema(METADATA, DIMENSION, "float16"), meta)
    chunks = store.create(CHUNKS, chunk_schema(METADATA), {})
    described = table.latest(BESIDE)
    keep_atlas(collection, GENERATION, making.atlas())
    run_id = "20260101T000000000000-000000"
    store.objects.put(collection.key(f"runs/{run_id}/intent.json"), b"{}")
    before = None
    count = int(rows * CHANGED)
    for epoch in (1, 2):
        fresh = [(np.arange(rows), 0)] if epoch == 1 else [(np.arange(count), 1), (np.arange(rows, rows + count), 0)]
        first = np.arange(0 if epoch == 1 else 2 * count, dtype=np.uint64)
        stale = (first // np.uint64(PART) << np.uint64(32)) + first % np.uint64(PART)  # the first rows, PART in each fragment
        shards = [(part, edition) for numbers, edition in fresh for part in parts(numbers)]
        vectors = changed(store, GENERATION, vectors, stale, (making.vectors(*shard) for shard in shards))
        described = changed(store, table.name, described, stale, (making.beside(*shard) for shard in shards))
        before = publication(store, before, vectors.version, chunks.version, run_id)
        record = KeptReport(
            collection=NAME,
            generation=GENERATION,
            version=vectors.version,
            kind="rows",
            identity=f"{epoch:012d}",
            atlas=1,
            summary={"rows": vectors.count_rows()},
            tables={table.name: described.version},
            commits={table.name: commit_of(described)},
            at=now(),
            who=whoami(),
        )
        keep_report(collection, record)
        keep_report(collection, replace(record, kind="map", tables={}, commits={}))


def changed(store: Store, name: str, dataset: Any, stale: NDArray[np.uint64], fresh: Iterable[pa.Table]) -> Any:
    """The table without some rows, by address, and with others."""
    staged = [fragment for rows in fresh for fragment in store.stage(name, rows.schema, rows.to_batches())]
    return commit(store, dataset, Change(stale, staged), {})


def publication(store: Store, before: Publication | None, version: int, chunk_version: int, run_id: str) -> Publication:
    new = Publication(
        collection=NAME,
        epoch=before.epoch + 1 if before else 1,
        action="publish",
        generation=GENERATION,
        version=version,
        chunk_table=CHUNKS,
        chunk_version=chunk_version,
        space="0" * 32,
        model=json.dumps({"name": "hash", "dimensions": DIMENSION}),
        chunks=store.open(GENERATION, version).count_rows(),
        dead_letters=0,
        restores=0,
        run_id=run_id,
        at=now(),
        who=whoami(),
        why="",
    )
    return publish(store, new)


def ask(address: str, path: str) -> tuple[float, int]:
    """Seconds, and bytes as they are sent."""
    connection = HTTPConnection(address.removeprefix("http://"), timeout=300)
    began = time.perf_counter()
    connection.request("GET", f"/c/{NAME}/map{path}", headers={"Authorization": f"Bearer {TOKEN}", "Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    size = len(answer.read())
    if answer.status != 200:
        raise SystemExit(f"{path}: status {answer.status}")
    return time.perf_counter() - began, size


def painted(address: str) -> Iterator[float]:
    """Seconds from the address to all points on the screen, by a software renderer, again and again; nothing where there is no browser."""
    browser = shutil.which("chromium")
    if browser is None:
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        page = opened.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{address}/?token={TOKEN}")
        for _ in range(ROUNDS):
            began = time.perf_counter()
            page.goto(f"{address}/c/{NAME}/map")
            page.locator("#stage[data-drawn]").wait_for()
            yield time.perf_counter() - began
        opened.close()


def look(store: Path) -> str:
    """What a server of the store takes for each answer, first and again, and then a browser."""
    since = f"{GENERATION.rpartition('.')[2]}@2"
    star = ",".join(f"{round(32768 + 30000 * np.cos(turn) * size)},{round(32768 + 30000 * np.sin(turn) * size)}" for turn, size in STAR)
    asked = {
        "page": "",
        "points": "/points",
        "colours by a text": "/codes?by=metadata.section",
        "colours by a number": "/codes?by=metadata.year",
        "colours by age": "/codes?by=age",
        "page beside a version": f"?since={since}",
        "what changed": f"/codes?since={since}",
        "a cluster's table": "/chosen?cluster=3",
        "a lasso's, 100 corners": f"/chosen?lasso={star}",
        "a chunk": "/chosen?point=77",
        "its neighbours": "/chosen?point=77&near=1",
    }
    with tempfile.TemporaryDirectory() as folder:
        token = Path(folder) / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        command = [*REVECTOR, "dashboard", "--store", str(store), "--port", "0", "--token-file", str(token)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "NO_COLOR": "1"})
        assert server.stdout
        try:
            told = next(word for line in server.stdout for word in line.split() if word.startswith("http://"))
            address = told.partition("/?")[0].rstrip("/")
            rows = []
            for what, path in asked.items():
                first, again = ask(address, path), min(ask(address, path) for _ in range(ROUNDS))
                rows.append(
                    [what, f"{first[0]:.2f} s", f"{1000 * again[0]:.0f} ms", f"{again[1]:,} B", f"{peak_bytes(server.pid) / 1e6:.0f} MB"]
                )
            times = list(painted(address))
            rows += [["all points on the screen", f"{times[0]:.2f} s", f"{1000 * min(times):.0f} ms", "", ""]] if times else []
        finally:
            server.terminate()
            server.wait()
    return table(("answer", "first", "again", "size, compressed", "server's memory, most so far"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not options.folder.exists():
        make(options.folder, options.rows)
    publish_section(f"## The map of {options.rows:,} points\n\n{machine()}\n\n{look(options.folder)}", options.out)


if __name__ == "__main__":
    main()
