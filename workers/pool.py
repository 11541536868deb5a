"""A pool of Ray actors that embed shards: at least once each, whatever dies.

Ray's own restarts and retries are off: for seconds after a node is lost its calls fail in ways that use them up, or hang. Here a shard
that fails goes back into the queue, its actor is replaced, and a shard that fails again is halved until the input is alone that does it.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import RevectorError, WorkerError
from pipelines.models import Model, resolve_model
from pipelines.spec import ModelSpec, WorkersSpec
from workers.embed import Embedding, Receipt, Shard, embed_shard
from workers.encoders import load_encoder
from workers.encoding import answer, encode

ATTEMPTS = 2
"""Of a shard, before it is halved; of a single input, before it is given up."""
IN_FLIGHT = 2
"""Shards of an actor: one in the model, one being written, or read and tokenised."""
FRUITLESS = 12
"""Failures in a row, over all shards, after which it is not the inputs."""
LARGEST_LOCAL_POOL = 4
"""Actors on one machine without GPUs unless told otherwise: each holds a model."""


class EmbedActor:
    """A model in a process of its own. Thin: all that it does is `embed_shard`, in IN_FLIGHT threads that take turns at the model."""

    def __init__(self, embedding: Embedding, model: ModelSpec, space: str, options: dict[str, Any]) -> None:
        """`options`: of `load_encoder`."""
        self._embedding = embedding
        self._model = model
        self._space = space
        self._options = options
        self._turn = threading.Lock()

    def load(self) -> str:
        """Load the model, and say how it will run. Not the constructor's work: of an error there Ray tells only the text."""
        model = resolve_model(self._model)
        if model.space.id != self._space:
            raise WorkerError(f"expected a model of space {self._space} on every node, found {model.space.id}: do the weights differ?")
        self._encoder = load_encoder(model, **self._options)
        return self._encoder.how

    def run(self, shard: Shard) -> Receipt:
        return embed_shard(self._embedding, self._encoder, shard, self._turn)

    def encode(self, kind: str, texts: Sequence[str]) -> NDArray[np.float32]:
        with self._turn:
            return encode(self._encoder, kind, texts)


@dataclass(frozen=True, slots=True)
class Lost:
    """A single content that ends every actor that touches it."""

    shard: Shard
    reason: str


@dataclass(eq=False)
class _Member:
    """One actor and what it is doing."""

    actor: Any
    calls: dict[Any, Shard | None]
    """The pending calls in their order: `load` (None), or `run` of a shard."""
    deadline: float
    """Of the first of them."""
    loaded: bool = False

    @property
    def shards(self) -> list[Shard]:
        return [shard for shard in self.calls.values() if shard is not None]


class Pool:
    """Runs shards on actors. A context: on leaving, the actors are ended."""

    def __init__(self, ray: Any, embedding: Embedding, model: Model, workers: WorkersSpec, most: int) -> None:
        """At most `most` actors: no more than there is work for."""
        self.how = ""
        """How the model runs, once an actor has said it."""
        self._ray = ray
        resources = self._ray.cluster_resources()
        cpus, gpus = int(resources.get("CPU", 1)), resources.get("GPU", 0)
        self._workers = workers
        self._size = max(1, min(most, _pool_size(workers, cpus, gpus)))
        device = "cuda" if workers.gpus_per_actor else "cpu"
        threads = max(1, cpus // self._size) if device == "cpu" else 1
        options = {"device": device, "batch_tokens": workers.batch_tokens, "threads": threads, "precision": workers.precision}
        self._arguments = (embedding, model.spec, model.space.id, options)
        self._members: list[_Member] = []
        self._suspects: deque[Shard] = deque()
        self._failures: dict[int, int] = {}
        self._fruitless = 0
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
            if self._exhausted and not self._suspects and not any(member.shards for member in self._members):
                return
            yield from self._collect(numbers)

    def encode(self, kind: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of a few texts, (n, d), from an actor that has the model; `kind`: "documents" or "queries". When no shard is left."""
        member = next((each for each in self._members if each.loaded), self._members[0])
        for load in member.calls:
            answer(self._ray, load, self._workers.ready)
        vectors: NDArray[np.float32] = answer(self._ray, member.actor.encode.remote(kind, texts), self._workers.deadline)
        return vectors

    def _feed(self, next_shard: Callable[[], Shard | None]) -> None:
        """Give every actor that has room a shard, the idle ones first. One that failed before is given alone, to blame no other."""
        for room in range(IN_FLIGHT):
            for member in self._members:
                if not member.loaded or len(member.calls) > room or any(self._failures.get(shard.number) for shard in member.shards):
                    continue
                if self._suspects and not member.calls:
                    self._assign(member, self._suspects.popleft())
                elif not self._exhausted:
                    shard = next_shard()
                    self._exhausted = shard is None
                    if shard is not None:
                        self._assign(member, shard)

    def _collect(self, numbers: Iterator[int]) -> Iterator[Receipt | Lost]:
        """Wait for something to happen, and deal with it."""
        members = {call: member for member in self._members for call in member.calls}
        done, _ = self._ray.wait(list(members), num_returns=1, timeout=1.0)
        for call in done:
            yield from self._finish(members[call], call, numbers)
        for member in [m for m in self._members if m.calls and time.monotonic() > m.deadline]:
            yield from self._overdue(member, numbers)

    def _finish(self, member: _Member, call: Any, numbers: Iterator[int]) -> Iterator[Receipt | Lost]:
        errors = self._ray.exceptions
        shard = member.calls[call]
        try:
            result = self._ray.get(call)
        except errors.RayTaskError as error:
            # The code raised, the actor lives. A spec or model that is wrong is wrong for every shard.
            if isinstance(error.cause, RevectorError):
                raise error.cause from error
            del member.calls[call]
            if shard is None:
                self._replace(member)  # it could not load its model
            yield from self._failed([shard] if shard else [], f"{type(error.cause).__name__} in the worker", numbers, error)
        except (errors.RayActorError, errors.GetTimeoutError, errors.ObjectLostError) as error:
            self._replace(member)
            yield from self._failed(member.shards, "its worker died", numbers, error)
        else:
            del member.calls[call]
            member.deadline = time.monotonic() + self._workers.deadline
            if shard is None:
                member.loaded, self.how = True, result
            else:
                self._fruitless = 0
                yield result

    def _overdue(self, member: _Member, numbers: Iterator[int]) -> Iterator[Lost]:
        if member.shards:
            self._replace(member)
            yield from self._failed(member.shards, f"no result within {self._workers.deadline:.0f} s", numbers, None)
        elif any(other.shards for other in self._members):
            member.deadline = time.monotonic() + self._workers.ready  # others work: this one joins when the cluster has a place for it
        else:
            within = f"within {self._workers.ready:.0f} s"
            raise WorkerError(f"expected an actor with {self._needs()} {within}, found a cluster of {self._cluster()}")

    def _failed(self, shards: list[Shard], reason: str, numbers: Iterator[int], error: BaseException | None) -> Iterator[Lost]:
        """Put shards back, halve them, or give them up."""
        self._fruitless += 1
        if self._fruitless >= FRUITLESS:
            raise WorkerError(f"expected workers that finish a shard, found {self._fruitless} failures in a row: {reason}") from error
        for shard in shards:
            failures = self._failures[shard.number] = self._failures.get(shard.number, 0) + 1
            if failures < ATTEMPTS:
                self._suspects.append(shard)
            elif shard.contents > 1:
                for half in shard.halves(numbers):
                    self._failures[half.number] = ATTEMPTS - 1
                    self._suspects.append(half)
            else:
                yield Lost(shard, reason)

    def _assign(self, member: _Member, shard: Shard) -> None:
        if not member.calls:
            member.deadline = time.monotonic() + self._workers.deadline
        member.calls[member.actor.run.remote(shard)] = shard

    def _spawn(self) -> _Member:
        workers = self._workers
        options: dict[str, Any] = {
            "num_cpus": 1,
            "num_gpus": workers.gpus_per_actor,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": IN_FLIGHT,
        }
        if workers.label:
            options["label_selector"] = workers.label
        actor = self._ray.remote(EmbedActor).options(**options).remote(*self._arguments)
        return _Member(actor, {actor.load.remote(): None}, time.monotonic() + workers.ready)

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
