"""What runs in a worker process: a model, and the plain code around it."""

import socket
import sys
import threading
import time

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import WorkerError
from pipelines.spaces.resolving import resolve_model
from pipelines.spaces.space import Role
from pipelines.spec.declared import ModelSpec
from pipelines.spec.running import WorkersSpec
from workers.cluster.nodes import cores_each
from workers.embedding.actor_metrics import ActorMetrics
from workers.embedding.embed_shard import Embedding, Receipt, Shard, embed_shard
from workers.encoders.encoder import Items, encode
from workers.encoders.loading import load_encoder
from workers.encoders.machine import Machine
from workers.observing.workforce import Loaded


class EmbedActor:
    """A model in a process of its own. Thin: all that it does is `embed_shard`, in threads that take turns at the model."""

    def __init__(self, model: ModelSpec, space: str, workers: WorkersSpec, actors: int) -> None:
        """`space`: the id of the one that the model must have here, too. `actors`: how many there are to be."""
        self._model = model
        self._space = space
        self._workers = workers
        self._actors = actors
        self._turn = threading.Lock()
        self._metrics = ActorMetrics()
        self._began = time.monotonic()

    def load(self) -> Loaded:
        """Load the model, and say how it will run. Not the constructor's work: of an error there Ray tells only the text."""
        model = resolve_model(self._model)
        if model.space.id != self._space:
            raise WorkerError(f"expected a model of space {self._space} on every node, found {model.space.id}: do the weights differ?")
        self._encoder = load_encoder(model, self._machine())
        return Loaded(self._encoder.how, socket.gethostname(), _gpus(), time.monotonic() - self._began)

    def _machine(self) -> Machine:
        """A GPU, or this actor's share of the cores of the node that Ray has put it on."""
        import ray

        workers = self._workers
        if workers.gpus_per_actor:
            return Machine("cuda", threads=1, precision=workers.precision, batch_tokens=workers.batch_tokens)
        return Machine(threads=cores_each(ray, workers, self._actors), precision=workers.precision, batch_tokens=workers.batch_tokens)

    def run(self, embedding: Embedding, shard: Shard) -> Receipt:
        receipt = embed_shard(embedding, self._encoder, shard, self._turn)
        self._metrics.count(embedding.collection, self._space, receipt)
        return receipt

    def encode(self, items: Items, role: Role) -> NDArray[np.float32]:
        with self._turn:
            return encode(self._encoder, items, role).vectors


def _gpus() -> tuple[str, ...]:
    """By name: those that Ray lets this process see; none where torch was not loaded."""
    torch = sys.modules.get("torch")
    return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())) if torch else ()
