"""A pool of Ray actors that embed shards: at least once each, whatever dies.

Ray's own restarts and retries are off: for seconds after a node is lost its calls fail in ways that use them up, or hang. Here a shard
that fails goes back into the queue, its actor is replaced, and a shard that fails again is halved until the input is alone that does it.
"""

import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from pipelines.documents import SourceShard
from pipelines.errors import RevectorError, WorkerError
from pipelines.models import Model, resolve_model
from pipelines.spec import ModelSpec, WorkersSpec
from workers.embed import Embedding, Receipt, Shard, embed_shard
from workers.encoders import load_encoder
from workers.ingest import Ingest, Ingested, ingest_shard

OBJECT_STORE_BYTES = 256 << 20
INGEST_SECONDS = 3600.0
"""After which a source shard that is being read counts as hung."""
ATTEMPTS = 2
"""Of a shard, before it is halved; of a single input, before it is given up."""
FRUITLESS = 12
"""Failures in a row, over all shards, after which it is not the inputs."""
LARGEST_LOCAL_POOL = 4
"""Actors on one machine without GPUs unless told otherwise: each holds a model."""
_RAY_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux: bind to loopback only
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # would zip the working directory and start workers through uv
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def start_ray(closing: ExitStack) -> Any:
    """Ray, connected: to the cluster that RAY_ADDRESS names (as in a Ray Job), else to one of its own on this machine.

    `closing` disconnects it again, unless it was connected before.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        for name, value in _RAY_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    import ray

    if not ray.is_initialized():
        on_stop = signal.getsignal(signal.SIGTERM)
        try:
            _connect(ray, address)
        except Exception as error:
            raise WorkerError(
                f"expected Ray to start, found {type(error).__name__}: {error}: is the machine short of memory or very busy?"
            ) from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_stop)  # Ray puts its own there: a stop would not unwind as Ctrl-C does
        closing.callback(ray.shutdown)
    return ray


def _connect(ray: Any, address: str | None) -> None:
    with warnings.catch_warnings():
        # Lance and lancedb warn of forks. Ray's are followed by an exec at once.
        warnings.filterwarnings("ignore", message=".*fork", category=Warning)
        if address:
            ray.init(address=address, log_to_driver=False)
        else:
            quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
            ray.init(address="local", object_store_memory=OBJECT_STORE_BYTES, **quiet)


def ingest_on_ray(ray: Any, ingest: Ingest, shards: Sequence[SourceShard]) -> Iterator[Ingested]:
    """`ingest_shard` of each, as CPU tasks, in order; a bounded number ahead of the consumer."""
    task = ray.remote(num_cpus=1)(ingest_shard)
    common = ray.put(ingest)
    ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting: deque[Any] = deque()
    for shard in shards:
        if len(waiting) == ahead:
            yield _ingested(ray, waiting.popleft())
        waiting.append(task.remote(common, shard))
    while waiting:
        yield _ingested(ray, waiting.popleft())


def _ingested(ray: Any, call: Any) -> Ingested:
    """What the task found, or the error that it raised, as if it had been raised here."""
    try:
        found: Ingested = ray.get(call, timeout=INGEST_SECONDS)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.GetTimeoutError as error:
        raise WorkerError(f"expected a source shard to be read within {INGEST_SECONDS:.0f} s, found it still going: run again") from error
    return found


class EmbedActor:
    """A model in a process of its own. Thin: all that it does is `embed_shard`."""

    def __init__(self, embedding: Embedding, model: ModelSpec, space: str, device: str, batch_tokens: int, threads: int) -> None:
        resolved = resolve_model(model)
        if resolved.space.id != space:
            raise WorkerError(f"expected a model of space {space} on every node, found {resolved.space.id}: do the weights differ?")
        self._embedding = embedding
        self._encoder = load_encoder(resolved, device=device, batch_tokens=batch_tokens, threads=threads)

    def ready(self) -> bool:
        return True

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
    """The pending call: `ready`, or `run` of `shard`."""
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
            yield from self._failed(member, f"{type(error.cause).__name__} in the worker", numbers, error)
        except (errors.RayActorError, errors.GetTimeoutError, errors.ObjectLostError) as error:
            if not self._was_ready and member.shard is None and (cause := _creation_error(error)) is not None:
                raise cause from error
            self._replace(member)
            yield from self._failed(member, "its worker died", numbers, error)  # the cause, if there is one, is in Ray's own logs
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
        return _Member(actor, actor.ready.remote(), None, time.monotonic() + workers.ready)

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


def _creation_error(error: BaseException) -> RevectorError | None:
    """What an actor's constructor raised, if that is why it died."""
    cause = error.__cause__ or getattr(error, "cause", None)
    return cause if isinstance(cause, RevectorError) else None


def run_inline(ingest: Ingest, shards: Iterable[SourceShard]) -> Iterator[Ingested]:
    """`ingest_shard` of each, here: for what is not worth starting Ray."""
    return (ingest_shard(ingest, shard) for shard in shards)
