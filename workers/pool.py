"""A pool of Ray actors that embed shards: at least once each, whatever dies.

Ray's own restarts and retries are off: for seconds after a node is lost its calls fail in ways that use them up, or hang. Here a shard
that fails goes back into the queue, its actor is replaced, and a shard that fails again is halved until the input is alone that does it.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.errors import RevectorError, WorkerError
from pipelines.models import Model, resolve_model
from pipelines.spec import ModelSpec, WorkersSpec
from workers.embed import Embedding, Receipt, Shard, embed_shard
from workers.encoders import load_encoder

ATTEMPTS = 2
"""Of a shard, before it is halved; of a single input, before it is given up."""
FRUITLESS = 12
"""Failures in a row, over all shards, after which it is not the inputs."""
LARGEST_LOCAL_POOL = 4
"""Actors on one machine without GPUs unless told otherwise: each holds a model."""


class EmbedActor:
    """A model in a process of its own. Thin: all that it does is `embed_shard`."""

    def __init__(self, embedding: Embedding, model: ModelSpec, space: str, device: str, batch_tokens: int, threads: int) -> None:
        self._embedding = embedding
        self._model = model
        self._space = space
        self._options: dict[str, Any] = {"device": device, "batch_tokens": batch_tokens, "threads": threads}

    def load(self) -> None:
        """Load the model. Not the constructor's work: of an error there Ray tells only the text."""
        model = resolve_model(self._model)
        if model.space.id != self._space:
            raise WorkerError(f"expected a model of space {self._space} on every node, found {model.space.id}: do the weights differ?")
        self._encoder = load_encoder(model, **self._options)

    def run(self, shard: Shard) -> Receipt:
        return embed_shard(self._embedding, self._encoder, shard)


@dataclass(frozen=True, slots=True)
class Lost:
    """A single content that ends every actor that touches it."""

    shard: Shard
    reason: str


@dataclass(eq=False)
class _Member:
    """One actor and what it is doing."""

    actor: Any
    call: Any
    """The pending call: `load`, or `run` of `shard`."""
    shard: Shard | None
    deadline: float


class Pool:
    """Runs shards on actors. A context: on leaving, the actors are ended."""

    def __init__(self, ray: Any, embedding: Embedding, model: Model, workers: WorkersSpec, most: int) -> None:
        """At most `most` actors: no more than there is work for."""
        self._ray = ray
        resources = self._ray.cluster_resources()
        cpus, gpus = int(resources.get("CPU", 1)), resources.get("GPU", 0)
        self._workers = workers
        self._size = max(1, min(most, _pool_size(workers, cpus, gpus)))
        device = "cuda" if workers.gpus_per_actor else "cpu"
        threads = max(1, cpus // self._size) if device == "cpu" else 1
        self._arguments = (embedding, model.spec, model.space.id, device, workers.batch_tokens, threads)
        self._members: list[_Member] = []
        self._queue: deque[Shard] = deque()
        self._failures: dict[int, int] = {}
        self._fruitless = 0
        self._was_ready = False
        self._exhausted = False

    def __enter__(self) -> "Pool":
        self._members = [self._spawn() for _ in range(self._size)]
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._members:
            self._ray.kill(member.actor)

    def run(self, next_shard: Callable[[], Shard | None], numbers: Iterator[int]) -> Iterator[Receipt | Lost]:
        """Pull shards from `next_shard` until it gives None, and yield what became of each, in any order.

        `numbers` gives numbers for the halves of shards that had to be split. Raises WorkerError when nothing works any more.
        """
        while True:
            self._feed(next_shard)
            if self._exhausted and not self._queue and all(member.shard is None for member in self._members):
                return
            yield from self._collect(numbers)

    def _feed(self, next_shard: Callable[[], Shard | None]) -> None:
        """Give every idle actor a shard, the ones that failed before new ones."""
        for member in self._members:
            if member.call is None:
                shard = self._queue.popleft() if self._queue else None if self._exhausted else next_shard()
                if shard is None:
                    self._exhausted = True
                    return
                self._assign(member, shard)

    def _collect(self, numbers: Iterator[int]) -> Iterator[Receipt | Lost]:
        """Wait for something to happen, and deal with it."""
        calls = {member.call: member for member in self._members if member.call is not None}
        done, _ = self._ray.wait(list(calls), num_returns=1, timeout=1.0)
        for call in done:
            yield from self._finish(calls[call], numbers)
        for member in [m for m in self._members if m.call is not None and time.monotonic() > m.deadline]:
            yield from self._overdue(member, numbers)

    def _finish(self, member: _Member, numbers: Iterator[int]) -> Iterator[Receipt | Lost]:
        errors = self._ray.exceptions
        try:
            result = self._ray.get(member.call)
        except errors.RayTaskError as error:
            # The code raised, the actor lives. A spec or model that is wrong is wrong for every shard.
            if isinstance(error.cause, RevectorError):
                raise error.cause from error
            if member.shard is None:
                self._replace(member)  # it could not load its model
            yield from self._failed(member, f"{type(error.cause).__name__} in the worker", numbers, error)
        except (errors.RayActorError, errors.GetTimeoutError, errors.ObjectLostError) as error:
            self._replace(member)
            yield from self._failed(member, "its worker died", numbers, error)
        else:
            shard, member.shard, member.call = member.shard, None, None
            self._was_ready = True
            if shard is not None:
                self._fruitless = 0
                yield result

    def _overdue(self, member: _Member, numbers: Iterator[int]) -> Iterator[Lost]:
        if member.shard is not None:
            self._replace(member)
            yield from self._failed(member, f"no result within {self._workers.deadline:.0f} s", numbers, None)
        elif self._was_ready and any(other.shard is not None for other in self._members):
            member.deadline = time.monotonic() + self._workers.ready  # others work: this one joins when the cluster has a place for it
        else:
            within = f"within {self._workers.ready:.0f} s"
            raise WorkerError(f"expected an actor with {self._needs()} {within}, found a cluster of {self._cluster()}")

    def _failed(self, member: _Member, reason: str, numbers: Iterator[int], error: BaseException | None) -> Iterator[Lost]:
        """Put a shard back, halve it, or give it up."""
        shard, member.shard = member.shard, None
        member.call = None
        self._fruitless += 1
        if self._fruitless >= FRUITLESS:
            raise WorkerError(f"expected workers that finish a shard, found {self._fruitless} failures in a row: {reason}") from error
        if shard is None:
            return
        failures = self._failures[shard.number] = self._failures.get(shard.number, 0) + 1
        if failures < ATTEMPTS:
            self._queue.append(shard)
        elif shard.contents > 1:
            for half in shard.halves(numbers):
                self._failures[half.number] = ATTEMPTS - 1
                self._queue.append(half)
        else:
            yield Lost(shard, reason)

    def _assign(self, member: _Member, shard: Shard) -> None:
        member.shard = shard
        member.call = member.actor.run.remote(shard)
        member.deadline = time.monotonic() + self._workers.deadline

    def _spawn(self) -> _Member:
        workers = self._workers
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": workers.gpus_per_actor, "max_restarts": 0, "max_task_retries": 0}
        if workers.label:
            options["label_selector"] = workers.label
        actor = self._ray.remote(EmbedActor).options(**options).remote(*self._arguments)
        return _Member(actor, actor.load.remote(), None, time.monotonic() + workers.ready)

    def _replace(self, member: _Member) -> None:
        self._ray.kill(member.actor)
        self._members[self._members.index(member)] = self._spawn()

    def _needs(self) -> str:
        workers = self._workers
        return f"1 CPU, {workers.gpus_per_actor:g} GPU" + (f" and labels {workers.label}" if workers.label else "")

    def _cluster(self) -> str:
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        had = [(node["Resources"], node.get("Labels", {})) for node in nodes]
        return "; ".join(f"{has.get('CPU', 0):g} CPU, {has.get('GPU', 0):g} GPU, labels {labels}" for has, labels in had)


def _pool_size(workers: WorkersSpec, cpus: int, gpus: float) -> int:
    if workers.actors is not None:
        return workers.actors
    if workers.gpus_per_actor:
        return int(gpus / workers.gpus_per_actor)
    return min(cpus, LARGEST_LOCAL_POOL)
