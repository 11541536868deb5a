"""A reader that searches what is published, again and again, and checks each answer. A process of its own, which `switch` starts.

python -m benchmarks.reader revector.toml COLLECTION QUERIES        # ends with its standard input; a JSON object an answer on stdout

The check is against the numbers themselves: an answer is right if its scores are the best exact cosines of *one* generation, with the
query encoded in the space of that generation. Of two models no ten scores agree by chance.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flows import search
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from pipelines.spec.parsing import load_spec
from storage import open_published
from storage.collection import Collection
from storage.history.catalog import Publication, publications, published
from storage.reading.published import Published
from storage.store.lance import Store
from workers.encoders.encoder import Encoder, encode
from workers.encoders.loading import load_encoder
from workers.encoders.machine import Machine

RESULTS = 10
TOLERANCE = 2e-3
"""Between the score of a search and the cosine computed here: vectors are stored as float16."""
PAUSE = 0.05
"""Seconds between two answers: the run that is watched needs the processor, too."""
COMMAND_EVERY = 40
"""One answer in so many is asked from `flows.search`, which encodes the query anew; the others from `open_published`."""

QUERIES = 64
SETTLED = 40
"""Answers from a publication after which the reader counts as having come to it."""
PATIENCE = 300
"""Seconds to wait for them."""

Way = Literal["open_published", "search"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One search."""

    at: float
    """When it was there, in seconds since 1970."""
    seconds: float
    """That it took, from asking what is published to the results; where a model was met first, the loading of it included."""
    way: Way
    epoch: int
    """Of the publication that it came from; 0: from none."""
    fault: str
    """What was wrong with it; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Contents:
    """A published version, read whole."""

    rows: dict[str, int]
    """Of each chunk id."""
    vectors: NDArray[np.float32]
    """Unit length, shape (n, d)."""

    def fault(self, query: NDArray[np.float32], found: dict[str, float]) -> str:
        """What is wrong with the scores `found`, by chunk id, as the best ones of this version."""
        if unknown := found.keys() - self.rows.keys():
            return f"{len(unknown)} results that it does not hold"
        cosines = self.vectors @ (query / np.linalg.norm(query))
        best = np.sort(cosines)[-RESULTS:][::-1]
        own = np.array([cosines[self.rows[chunk]] for chunk in found])
        scores = np.array(list(found.values()))
        if len(scores) != len(best):
            return f"{len(scores)} results instead of {len(best)}"
        if (off := max(np.abs(scores - own).max(), np.abs(scores - best).max())) > TOLERANCE:
            return f"scores up to {off:.3f} away from its cosines"
        return ""


class Reader:
    """Knows the models and the versions that it has met."""

    def __init__(self, config: Path, collection: str, queries: Sequence[str]) -> None:
        self._config, self._collection, self._queries = config, collection, queries
        self._root = load_spec(config).store
        self._encoders: dict[str, Encoder] = {}
        """Of each space, by its id."""
        self._encoded: dict[tuple[str, int], NDArray[np.float32]] = {}
        """The vector of a query in a space."""
        self._contents: dict[tuple[str, int], Contents] = {}

    def answers(self) -> Iterator[Answer]:
        for number in count():
            query = number % len(self._queries)
            yield self._by_command(query) if number % COMMAND_EVERY == COMMAND_EVERY - 1 else self._by_table(query)

    def _by_table(self, query: int) -> Answer:
        """As a service does it that keeps its models loaded."""
        began = time.time()
        here = open_published(self._root, self._collection)
        vector = self._vector(here.publication, query)
        rows = here.table.search(vector, vector_column_name="vector").distance_type("cosine").limit(RESULTS).to_arrow()
        at = time.time()
        found = dict(zip(rows["chunk_id"].to_pylist(), 1 - rows["_distance"].to_numpy(), strict=True))
        fault = _disagreement(here, vector) or self._read(here.publication).fault(vector, found)
        return Answer(at, at - began, "open_published", here.publication.epoch, fault)

    def _by_command(self, query: int) -> Answer:
        """It does not say which publication it answered from: it was one of those that were current meanwhile."""
        began = time.time()
        before = published(Collection(Store(self._root), self._collection))
        hits = search(self._collection, self._queries[query], self._config, k=RESULTS)
        at = time.time()
        found = {hit["chunk_id"]: hit["score"] for hit in hits}
        meanwhile = [one for one in publications(Collection(Store(self._root), self._collection)) if one.epoch >= before.epoch]
        faults = {one.epoch: self._read(one).fault(self._vector(one, query), found) for one in meanwhile}
        epoch = next((epoch for epoch, fault in faults.items() if not fault), 0)
        return Answer(at, at - began, "search", epoch, "" if epoch else f"from no publication: {faults}")

    def _vector(self, publication: Publication, query: int) -> NDArray[np.float32]:
        space = publication.space
        if space not in self._encoders:
            self._encoders[space] = load_encoder(resolve_model(ModelSpec(**publication.model_spec())), Machine(threads=1))
        if (space, query) not in self._encoded:
            self._encoded[space, query] = encode(self._encoders[space], [self._queries[query]], "query").vectors[0]
        return self._encoded[space, query]

    def _read(self, publication: Publication) -> Contents:
        key = (publication.generation, publication.version)
        if key not in self._contents:
            rows = Store(self._root).open(*key).to_table(columns=["chunk_id", "vector"]).combine_chunks()
            vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1).astype(np.float32)
            unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            self._contents[key] = Contents({chunk: row for row, chunk in enumerate(rows["chunk_id"].to_pylist())}, unit)
        return self._contents[key]


def _disagreement(here: Published, vector: NDArray[np.float32]) -> str:
    """Whether the table, its space, its publication and the query are of one generation."""
    told: dict[str, tuple[Any, Any]] = {
        "table": (here.table.name, here.publication.generation),
        "version": (here.table.version, here.publication.version),
        "space": (here.space["id"], here.publication.space),
        "dimension": (here.table.schema.field("vector").type.list_size, len(vector)),
    }
    return "; ".join(f"{name}: {found!r} instead of {expected!r}" for name, (found, expected) in told.items() if found != expected)


class Watched:
    """The process of a reader, and what it has answered so far. Its files lie beside the spec."""

    def __init__(self, config: Path, collection: str, queries: Sequence[str]) -> None:
        asked, self._log, self._errors = (config.with_name(name) for name in ("reader.json", "reader.jsonl", "reader.log"))
        asked.write_text(json.dumps(queries[:QUERIES]))
        command = [sys.executable, "-m", "benchmarks.reader", str(config), collection, str(asked)]
        with self._log.open("wb") as out, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=errors)

    def answers(self) -> list[Answer]:
        """A line that is still being written is left for later."""
        return [Answer(**json.loads(line)) for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def settle(self, epoch: int) -> None:
        """Wait until it has answered from a publication for a while. Raises SystemExit if it ends, or does not come to it."""
        deadline = time.monotonic() + PATIENCE
        while sum(answer.epoch == epoch for answer in self.answers()) < SETTLED:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"expected the reader to answer from epoch {epoch}\n{self._errors.read_text()[-3000:]}")
            time.sleep(0.2)

    def end(self) -> int:
        """Its exit code: 0 unless a search raised."""
        assert self._process.stdin
        self._process.stdin.close()
        return self._process.wait()


def main(config: str, collection: str, queries: str) -> None:
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    for answer in Reader(Path(config), collection, json.loads(Path(queries).read_text(encoding="utf-8"))).answers():
        print(json.dumps(asdict(answer)), flush=True)
        if ended.wait(PAUSE):
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
