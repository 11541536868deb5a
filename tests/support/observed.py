"""`apply` in a process of its own, on the cluster that RAY_ADDRESS names, as in a Ray Job. Reads and actors note where they are.

python -m tests.support.observed OPTIONS, in the folder of the spec; OPTIONS are JSON: the fields of `Options`.
"""

import dataclasses
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from flows import apply
from pipelines.content.documents import SourceShard
from workers.embedding import actor, pool
from workers.embedding.embed_shard import Embedding, Receipt, Shard
from workers.ingest import tasks
from workers.ingest.source_shard import Ingest, Ingested, ingest_shard
from workers.planning import plan
from workers.runs import filling, ingesting


@dataclass(frozen=True)
class Options:
    """Of a run."""

    read_seconds: float = 0.0
    """That reading a source shard takes longer."""
    shard_seconds: float = 0.1
    """That a shard of contents takes longer."""
    unfit: str = ""
    """A node that no model can be loaded on."""
    leak: int = 0
    """Bytes that a shard of contents leaves behind in its actor."""


@dataclass(frozen=True)
class Notes:
    """What reads and actors wrote down: a file each."""

    folder: Path

    @contextmanager
    def during(self, what: str, **more: Any) -> Iterator[None]:
        """Note that `what` begins here, and when it has ended."""
        context = ray.get_runtime_context()
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "") if context.get_accelerator_ids().get("GPU") else ""
        note = {"what": what, "node": context.get_node_id(), "gpu": gpus, "pid": os.getpid(), **more}
        name = uuid.uuid4().hex
        (self.folder / name).write_text(json.dumps(note | {"done": False}))
        yield
        (self.folder / name).write_text(json.dumps(note | {"done": True}))

    def read(self, what: str) -> list[dict[str, Any]]:
        """Those of `what`."""
        found = [_parsed(file.read_text()) for file in self.folder.iterdir()]
        return [note for note in found if note and note["what"] == what]


def _parsed(text: str) -> dict[str, Any] | None:
    """None while it is being written."""
    return dict(json.loads(text)) if text.endswith("}") else None


def main() -> None:
    options, notes = Options(**json.loads(sys.argv[1])), Notes(Path("notes").absolute())

    class Observed(actor.EmbedActor):
        leaked = b""

        def load(self) -> str:
            with notes.during("load", threads=self._machine().threads):
                if ray.get_runtime_context().get_node_id() == options.unfit:
                    raise MemoryError
                return super().load()

        def run(self, embedding: Embedding, shard: Shard) -> Receipt:
            with notes.during("embed"):
                time.sleep(options.shard_seconds)
                self.leaked += b"x" * options.leak
                return super().run(embedding, shard)

    def read(ingest: Ingest, shard: SourceShard) -> Ingested:
        with notes.during("read"):
            time.sleep(options.read_seconds)
            return ingest_shard(ingest, shard)

    pool.EmbedActor, tasks.ingest_shard = Observed, read  # type: ignore[misc]
    ingesting.RAY_BYTES, plan.SHARD_BYTES = 0, 1  # each file is a shard, read by a task
    filling.ACTOR_TOKENS, filling.FIRST_SHARD_TOKENS, filling.SHARD_SECONDS = 1, 100, 0.0  # there is work for any number of actors
    filling.HERE_SECONDS = 0.0
    pool.GROWTH_SECONDS = 0.2
    done = apply()
    print(json.dumps({"status": done.status, "dead": done.dead_letters, **dataclasses.asdict(done)["profile"]}))


if __name__ == "__main__":
    main()
