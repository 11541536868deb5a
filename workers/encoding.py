"""Vectors of a few texts, outside of a load: queries, and samples that are made again. The model is loaded only when it is needed."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ModelError, WorkerError
from pipelines.models import STAND_IN, Model, resolve_model
from pipelines.spec import CollectionSpec, ModelSpec
from workers.cluster import on_cluster, start_ray
from workers.encoders import Encoder, load_encoder

ACTOR_SECONDS = 600.0
"""That one call may take: a sample of a few hundred texts takes seconds."""


Encode = Callable[[str, Sequence[str]], NDArray[np.float32]]
"""What `encode` does once it has an encoder."""


class Workers(Protocol):
    """Who has a model loaded: a Pool is one."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *_: object) -> None: ...

    def encode(self, kind: str, texts: Sequence[str]) -> NDArray[np.float32]: ...


class HasModel(Protocol):
    """What an Encoding needs to know: a Target is one."""

    @property
    def model(self) -> Model: ...

    @property
    def spec(self) -> CollectionSpec: ...


class Encoding:
    """The model of a target, for a few texts at a time. A context: on leaving, what was started is ended.

    In this process, unless a cluster or GPUs are asked for: then on one Ray actor with the resources of the spec.
    """

    def __init__(self, target: HasModel) -> None:
        self._target = target
        self._closing = ExitStack()
        self._encoder: Encoder | None = None
        self._run: Encode | None = None

    def __enter__(self) -> "Encoding":
        return self

    def __exit__(self, *_: object) -> None:
        self._run = self._encoder = None
        self._closing.close()

    def encoder(self) -> Encoder:
        """The model in this process, loaded once."""
        if self._encoder is None:
            workers = self._target.spec.workers
            self._encoder = load_encoder(self._target.model, batch_tokens=workers.batch_tokens, precision=workers.precision)
        return self._encoder

    def keep(self, workers: "Workers") -> None:
        """Enter `workers`, which have the model loaded, and have texts encoded by them from now on. They are left when this is."""
        self._closing.enter_context(workers)
        self._run = workers.encode

    def documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Their vectors with the document prompt, (n, d). Zeros for a text that the model cannot take."""
        return self._encode("documents", texts)

    def queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Their vectors with the query prompt, (n, d). Raises ModelError if one has none."""
        return self._encode("queries", texts)

    def _encode(self, kind: str, texts: Sequence[str]) -> NDArray[np.float32]:
        if not texts:
            return np.zeros((0, self._target.model.space.dimension), np.float32)
        if self._run is None:
            self._run = self._on_ray() if self._needs_actor() else self._here()
        return self._run(kind, texts)

    def _needs_actor(self) -> bool:
        workers = self._target.spec.workers
        if self._encoder is not None:
            return False
        return self._target.model.spec.name != STAND_IN and (on_cluster() or workers.gpus_per_actor > 0 or bool(workers.label))

    def _here(self) -> "Encode":
        encoder = self.encoder()
        return lambda kind, texts: encode(encoder, kind, texts)

    def _on_ray(self) -> "Encode":
        ray = start_ray(self._closing)
        workers, model = self._target.spec.workers, self._target.model
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": workers.gpus_per_actor, "max_restarts": 0, "max_task_retries": 0}
        if workers.label:
            options["label_selector"] = workers.label
        loading = {
            "device": "cuda" if workers.gpus_per_actor else "cpu",
            "batch_tokens": workers.batch_tokens,
            "threads": 1,
            "precision": workers.precision,
        }
        actor = ray.remote(EncodeActor).options(**options).remote(model.spec, model.space.id, loading)
        self._closing.callback(ray.kill, actor)
        answer(ray, actor.load.remote(), workers.ready)
        return lambda kind, texts: answer(ray, actor.run.remote(kind, texts), ACTOR_SECONDS)


class EncodeActor:
    """A model in a process of its own. Thin: all that it does is `encode`."""

    def __init__(self, model: ModelSpec, space: str, options: dict[str, Any]) -> None:
        """`options`: of `load_encoder`."""
        self._model = model
        self._space = space
        self._options = options

    def load(self) -> None:
        """Not the constructor's work: of an error there Ray tells only the text."""
        model = resolve_model(self._model)
        if model.space.id != self._space:
            raise WorkerError(f"expected a model of space {self._space} on every node, found {model.space.id}: do the weights differ?")
        self._encoder = load_encoder(model, **self._options)

    def run(self, kind: str, texts: Sequence[str]) -> NDArray[np.float32]:
        return encode(self._encoder, kind, texts)


def encode(encoder: Encoder, kind: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """The vectors of `texts`, (n, d); `kind`: "documents" or "queries"."""
    if kind == "documents":
        return encoder.encode(texts).vectors
    return encoder.encode_queries(texts)


def answer(ray: Any, call: Any, seconds: float) -> Any:
    """What the actor gives, or the error that it raised, as if it had been raised here."""
    try:
        return ray.get(call, timeout=seconds)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, (ModelError, WorkerError)):
            raise error.cause from error
        raise WorkerError(f"expected vectors from the worker, found {type(error.cause).__name__}: run again") from error
    except ray.exceptions.RayError as error:  # it died, there is no room for it, or it hangs
        raise WorkerError(f"expected an actor's answer within {seconds:.0f} s, found {type(error).__name__}: run again") from error
