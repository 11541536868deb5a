"""Metrics of an actor. Ray exports them on the metrics port of its node, with `ray_` before their names; one costs some microseconds."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workers.embedding.embed_shard import Receipt


LABELS = ("collection", "space")
SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]
"""Bounds of the histogram: a shard should take about five seconds."""


class ActorMetrics:
    """What an actor counts. To be made in its process: Ray need not be connected, but then nobody reads them."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self._shards = Counter("revector_actor_shards", "Shards that are done.", LABELS)
        self._contents = Counter("revector_actor_contents", "Forward passes.", LABELS)
        self._failed = Counter("revector_actor_failed_contents", "Contents that the model could not take.", LABELS)
        self._tokens = Counter("revector_actor_tokens", "Tokens through the model, padding not counted.", LABELS)
        self._seconds = Histogram("revector_actor_shard_seconds", "Seconds of each step of a shard.", SECONDS, (*LABELS, "step"))
        self._gpu = Gauge("revector_actor_gpu_bytes", "The most GPU memory that the model and its batches have had.", LABELS)

    def count(self, collection: str, space: str, receipt: "Receipt") -> None:
        """Add what the receipt of a shard says, under its collection and the id of its space."""
        labels = {"collection": collection, "space": space}
        self._shards.inc(1, labels)
        for counter, value in ((self._contents, receipt.contents), (self._failed, len(receipt.failed)), (self._tokens, receipt.tokens)):
            if value:  # Ray refuses to add nothing
                counter.inc(value, labels)
        for step, seconds in receipt.spent.items():
            self._seconds.observe(seconds, {**labels, "step": step})
        if gpu := _gpu_bytes():
            self._gpu.set(gpu, labels)


def _gpu_bytes() -> int:
    """By PyTorch's allocator; 0 where no model is on a GPU."""
    torch = sys.modules.get("torch")
    return int(torch.cuda.max_memory_allocated()) if torch and torch.cuda.is_initialized() else 0
