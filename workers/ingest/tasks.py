"""Source shards read as tasks of a Ray cluster, or right here."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa

from pipelines.content.documents import DeadLetter, SourceShard
from workers.cluster.in_order import deaths, in_order
from workers.ingest.source_shard import ROWS, SEEN, Ingest, Ingested, ingest_shard


def ingest_on_ray(ray: Any, ingest: Ingest, shards: Sequence[SourceShard], label: Mapping[str, str]) -> Iterator[Ingested]:
    """`ingest_shard` of each, as CPU tasks, in order; a bounded number ahead of the consumer.

    `label`: of the nodes that the actors are meant for: others go first. Raises what reading raises, WorkerError if there is no answer.
    """

    def apart(shard: SourceShard, read: Callable[[SourceShard], Ingested], error: Exception) -> Ingested:
        return _apart(deaths(ray), shard, read, error)

    return in_order(ray, ingest_shard, ingest, shards, label, apart)


def _apart(died: tuple[type[Exception], ...], shard: SourceShard, read: Callable[[SourceShard], Ingested], error: Exception) -> Ingested:
    """A shard that ended each process that read it, now file by file: the one that does it is a dead letter, the others are read."""
    files = [SourceShard(tuple(pieces)) for _, pieces in groupby(shard.pieces, lambda piece: piece.file)]
    if len(files) == 1:
        letter = DeadLetter("file", shard.pieces[0].file.path, "", f"{type(error).__name__}: no process survived reading it")
        return Ingested(SEEN.empty_table(), ROWS.empty_table(), [], 0, [letter])
    parts = []
    for file in files:
        try:
            parts.append(read(file))
        except died as again:
            parts.append(_apart(died, file, read, again))
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
