"""Source shards read as tasks of a Ray cluster, or right here."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa

from pipelines.content.documents import DeadLetter, SourceShard
from pipelines.errors import WorkerError
from workers.cluster.nodes import describe, elsewhere
from workers.ingest.source_shard import ROWS, SEEN, Ingest, Ingested, ingest_shard

INGEST_SECONDS = 3600.0
"""After which a source shard that is being read counts as hung."""
RETRIES = 3
"""Of a source shard whose process or node died."""


def ingest_on_ray(ray: Any, ingest: Ingest, shards: Sequence[SourceShard], label: Mapping[str, str]) -> Iterator[Ingested]:
    """`ingest_shard` of each, as CPU tasks, in order; a bounded number ahead of the consumer. Ray repeats those that a lost node had.

    `label`: of the nodes that the actors are meant for: others go first. Raises what reading raises, WorkerError if there is no answer.
    """
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(ingest_shard)
    common = ray.put(ingest)
    waiting: deque[tuple[SourceShard, Any]] = deque()

    def read(shard: SourceShard) -> Any:
        return task.options(**elsewhere(ray, label)).remote(common, shard)

    def result() -> Ingested:
        shard, call = waiting.popleft()
        try:
            return _answer(ray, call)
        except _deaths(ray) as error:
            return _apart(ray, shard, read, error)

    for shard in shards:
        while len(waiting) >= _ahead(ray):
            yield result()
        waiting.append((shard, read(shard)))
    while waiting:
        yield result()


def _ahead(ray: Any) -> int:
    """Tasks to have submitted at a time, so that the cluster as it is now is never idle: two for each CPU."""
    return 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))


def _answer(ray: Any, call: Any) -> Ingested:
    """What the task gave, or the error that it raised, as if it had been raised here. Raises _deaths if its processes died."""
    try:
        ingested: Ingested = ray.get(call, timeout=INGEST_SECONDS)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except _deaths(ray):
        raise
    except ray.exceptions.RayError as error:
        within, instead = f"within {INGEST_SECONDS:.0f} s", type(error).__name__
        raise WorkerError(f"expected a source shard to be read {within}, found {instead} on {describe(ray)}: run again") from error
    return ingested


def _deaths(ray: Any) -> tuple[type[Exception], ...]:
    """What Ray raises when a task's process has died each time that it was tried."""
    return ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError


def _apart(ray: Any, shard: SourceShard, read: Callable[[SourceShard], Any], error: Exception) -> Ingested:
    """A shard that ended each process that read it, now file by file: the one that does it is a dead letter, the others are read."""
    files = [SourceShard(tuple(pieces)) for _, pieces in groupby(shard.pieces, lambda piece: piece.file)]
    if len(files) == 1:
        letter = DeadLetter("file", shard.pieces[0].file.path, "", f"{type(error).__name__}: no process survived reading it")
        return Ingested(SEEN.empty_table(), ROWS.empty_table(), [], 0, [letter])
    parts = []
    for file in files:
        try:
            parts.append(_answer(ray, read(file)))
        except _deaths(ray) as again:
            parts.append(_apart(ray, file, read, again))
    return Ingested(
        seen=pa.concat_tables([part.seen for part in parts]),
        rows=pa.concat_tables([part.rows for part in parts]),
        fragments=[fragment for part in parts for fragment in part.fragments],
        fresh=sum(part.fresh for part in parts),
        dead=[letter for part in parts for letter in part.dead],
        seconds=sum(part.seconds for part in parts),
    )


def run_inline(ingest: Ingest, shards: Iterable[SourceShard]) -> Iterator[Ingested]:
    """`ingest_shard` of each, here: for what is not worth starting Ray."""
    return (ingest_shard(ingest, shard) for shard in shards)
