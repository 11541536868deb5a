"""`revector` as the nodes of the tests' cluster have it: workers wait while there is a file `hold` beside the store.

So a run is at work, with its actors, for as long as a test needs. Actors note on which node they are, in `nodes` beside the store.
"""

import os
import sys
import time
from pathlib import Path

import ray

from flows.cli.main import main
from workers.embedding import actor, pool
from workers.embedding.embed_shard import Embedding, Receipt, Shard


def hold_workers(here: Path) -> None:
    """Let all actors of this driver look at `here`."""

    class Held(actor.EmbedActor):
        def load(self) -> str:
            labels = ray.get_runtime_context().get_node_labels()
            (here / "nodes").mkdir(exist_ok=True)
            (here / "nodes" / str(os.getpid())).write_text(labels.get("pool", ""))
            return super().load()

        def run(self, embedding: Embedding, shard: Shard) -> Receipt:
            while (here / "hold").exists():
                time.sleep(0.05)
            return super().run(embedding, shard)

    pool.EmbedActor = Held  # type: ignore[misc]


if __name__ == "__main__":
    (store,) = (argument.partition("=")[2] for argument in sys.argv if argument.startswith("--store="))
    hold_workers(Path(store).parent)
    main()
