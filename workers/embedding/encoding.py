"""Vectors of a few items, outside of a load: queries, and samples that are made again. The model is loaded only when it is needed."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.spaces.space import STAND_IN, Model, Role
from pipelines.spec.running import WorkersSpec
from workers.cluster.connection import on_cluster, start_ray
from workers.embedding.pool import Pool
from workers.encoders.encoder import Encoder, Items, encode
from workers.encoders.loading import load_encoder
from workers.encoders.machine import Machine
from workers.observing.workforce import Workforce

Encode = Callable[[Items, Role], NDArray[np.float32]]
"""What `encode` does once it has an encoder."""


class HasModel(Protocol):
    """Whose model it is: a Target's or a Version's. It is asked for when there is something to encode: it may not be at hand."""

    @property
    def model(self) -> Model: ...


class Encoding:
    """A model, for a few items at a time. A context: on leaving, what was started is ended.

    In this process, unless a cluster or GPUs are asked for: then on a Ray actor with the resources and labels of the spec.
    """

    def __init__(self, of: HasModel, workers: WorkersSpec, workforce: Workforce | None = None) -> None:
        """`workforce`: to enter an actor in."""
        self._of = of
        self._workers = workers
        self._workforce = workforce
        self._closing = ExitStack()
        self._encoder: Encoder | None = None
        self._run: Encode | None = None

    def __enter__(self) -> "Encoding":
        return self

    def __exit__(self, *_: object) -> None:
        self._run = self._encoder = None
        self._closing.close()

    def encoder(self) -> Encoder:
        """The model in this process, loaded at the first call. Raises ModelError if that cannot be."""
        if self._encoder is None:
            workers = self._workers
            self._encoder = load_encoder(self._of.model, Machine(precision=workers.precision, batch_tokens=workers.batch_tokens))
        return self._encoder

    def keep(self, pool: Pool) -> None:
        """Enter `pool`, and have items encoded by it from now on. It is left when this is."""
        self._closing.enter_context(pool)
        self._run = pool.encode

    def encode(self, items: Items, role: Role) -> NDArray[np.float32]:
        """Their vectors, (n, d). Zeros for a document that the model cannot take; of a query that it cannot take it raises ModelError."""
        if not items:
            return np.zeros((0, self._of.model.space.dimension), np.float32)
        if self._run is None:
            self._run = self._on_ray() if self._needs_actor() else self._here()
        return self._run(items, role)

    def _needs_actor(self) -> bool:
        workers = self._workers
        if self._encoder is not None:
            return False
        return self._of.model.spec.name != STAND_IN and (on_cluster() or workers.gpus_per_actor > 0 or bool(workers.label))

    def _here(self) -> Encode:
        encoder = self.encoder()
        return lambda items, role: encode(encoder, items, role).vectors

    def _on_ray(self) -> Encode:
        pool = Pool(start_ray(self._closing), self._of.model, self._workers, 1, self._workforce)
        self.keep(pool)
        return pool.encode
