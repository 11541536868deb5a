"""A pool of Ray actors that embed shards: at least once each, whatever dies.

Ray's own restarts and retries are off: for seconds after a node is lost its calls fail in ways that use them up, or hang. Here a shard
that fails goes back into the queue, its actor is replaced, and a shard that fails again is halved until the input is alone that does it.
What is not an input's fault, a lost node or a store that is away, is not counted against it. The pool grows with the cluster.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import RevectorError, SpecError, WorkerError
from pipelines.logs import warn
from pipelines.spaces.space import Model, Role
from pipelines.spec.running import WorkersSpec
from workers.cluster.nodes import actor_options, describe, is_alive, needs, node_of, places
from workers.embedding.actor import EmbedActor
from workers.embedding.embed_shard import Embedding, Receipt, Shard
from workers.encoders.encoder import Items
from workers.observing.workforce import Stay, Workforce

ATTEMPTS = 2
"""Of a shard, before it is halved; of a single input, before it is given up."""
LOADS = 3
"""Of a model on a node, in a row, before that is left out: what an actor had may still be on its way back when the next one loads."""
IN_FLIGHT = 2
"""Shards of an actor: one in the model, one being written, or read and tokenised."""
FRUITLESS = 12
"""Failures in a row, over all shards, after which it is not the inputs. Of many actors three each: they may have shared a node."""
LARGEST_LOCAL_POOL = 4
"""Actors without GPUs unless told otherwise: each holds a model."""
GROWTH_SECONDS = 2.0
"""Between looks at what the cluster has places for."""


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
    stay: Stay
    loaded: bool = False

    @property
    def shards(self) -> list[Shard]:
        return [shard for shard in self.calls.values() if shard is not None]


class Pool:
    """Runs shards on actors. A context: on leaving, the actors are ended."""

    def __init__(self, ray: Any, model: Model, workers: WorkersSpec, most: int, workforce: Workforce | None = None) -> None:
        """At most `most` actors: no more than there is work for. `workforce`: to enter them in."""
        self._how = ""
        self._ray = ray
        self._workers = workers
        self._most = most
        self._model = model
        self._workforce = workforce or Workforce()
        self._members: list[_Member] = []
        self._looked = 0.0
        self._suspects: deque[Shard] = deque()
        self._failures: Counter[int] = Counter()
        """Of each shard, by number."""
        self._refusals: Counter[str] = Counter()
        """Of each node, by id: how often in a row the model could not be loaded there."""
        self._refusal = ""
        """Why, the last time."""
        self._fruitless = 0
        self._exhausted = False

    def __enter__(self) -> "Pool":
        self._grow()
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._members:
            self._kill(member)

    @property
    def how(self) -> str:
        """How the model runs, once an actor has said it, and on how many nodes it could not be loaded."""
        return f"{self._how}; left out {len(self._unfit)} nodes: {self._refusal}" if self._unfit else self._how

    def run(self, embedding: Embedding, next_shard: Callable[[], Shard | None], numbers: Iterator[int]) -> Iterator[Receipt | Lost]:
        """Pull shards from `next_shard` until it gives None, and yield what became of each, in any order.

        `numbers` gives numbers for the halves of shards that had to be split. Raises WorkerError when nothing works any more.
        """
        self._exhausted = False
        while True:
            self._grow()
            self._feed(embedding, next_shard)
            self._workforce.in_flight = sum(len(member.shards) for member in self._members)
            if self._exhausted and not self._suspects and not any(member.shards for member in self._members):
                return
            yield from self._collect(numbers)

    def encode(self, items: Items, role: Role) -> NDArray[np.float32]:
        """The vectors of a few items, (n, d), from an actor that has the model. To be asked when no shard is left.

        An actor that dies over it is replaced. Raises the model's own error, or WorkerError.
        """
        errors = self._ray.exceptions
        while True:
            member = self._loaded()
            try:
                vectors: NDArray[np.float32] = self._ray.get(member.actor.encode.remote(items, role), timeout=self._workers.deadline)
            except errors.RayTaskError as error:
                if isinstance(error.cause, RevectorError):
                    raise error.cause from error
                raise WorkerError(f"expected vectors from the worker, found {type(error.cause).__name__}: run again") from error
            except errors.GetTimeoutError as error:
                raise WorkerError(f"expected vectors within {self._workers.deadline:.0f} s, found no answer: run again") from error
            except errors.RayError as error:
                self._replace(member, "its worker died")
                self._count_failure("its worker died", error)
            else:
                self._fruitless = 0
                return vectors

    def _loaded(self) -> _Member:
        """An actor that has the model, as soon as there is one."""
        while True:
            for member in self._members:
                if member.loaded:
                    return member
            list(self._collect(iter(())))

    def _grow(self) -> None:
        """Add actors while the cluster has places for more: nodes join during a run."""
        if not self._members or time.monotonic() - self._looked >= GROWTH_SECONDS:
            for _ in range(self._wanted() - len(self._members)):
                self._members.append(self._spawn())
            self._looked = time.monotonic()

    def _wanted(self) -> int:
        """Actors that there should be: as many as the spec says, placed or not, or as many as the cluster has places for."""
        workers = self._workers
        if workers.actors:
            return min(self._most, workers.actors)
        room = places(self._ray, workers)
        return max(1, min(self._most, room if workers.gpus_per_actor else min(room, LARGEST_LOCAL_POOL)))

    def _feed(self, embedding: Embedding, next_shard: Callable[[], Shard | None]) -> None:
        """Give every actor that has room a shard, the idle ones first. One that failed before is given alone, to blame no other."""
        for room in range(IN_FLIGHT):
            for member in self._members:
                if not member.loaded or len(member.calls) > room or any(self._failures[shard.number] for shard in member.shards):
                    continue
                if self._suspects and not member.calls and not self._in_doubt:
                    self._assign(member, embedding, self._suspects.popleft())
                elif not self._exhausted:
                    shard = next_shard()
                    self._exhausted = shard is None
                    if shard is not None:
                        self._assign(member, embedding, shard)

    @property
    def _in_doubt(self) -> bool:
        """After some failures in a row: try a shard that has not failed yet, to see whether the workers or the suspects are to blame."""
        return not self._exhausted and self._fruitless % 4 == 3

    def _assign(self, member: _Member, embedding: Embedding, shard: Shard) -> None:
        if not member.calls:
            member.deadline = time.monotonic() + self._workers.deadline
        member.calls[member.actor.run.remote(embedding, shard)] = shard

    def _collect(self, numbers: Iterator[int]) -> Iterator[Receipt | Lost]:
        """Wait for something to happen, and deal with all that did. Late is who had not answered at the last look, however long ago."""
        members = {call: member for member in self._members for call in member.calls}
        calls = list(members)
        self._ray.wait(calls, num_returns=1, timeout=1.0)
        looked = time.monotonic()
        done, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        for call in done:
            if call in members[call].calls:  # else its actor was replaced a moment ago
                yield from self._finish(members[call], call, numbers)
        for member in [member for member in self._members if member.calls and looked > member.deadline]:
            yield from self._overdue(member, numbers)

    def _finish(self, member: _Member, call: Any, numbers: Iterator[int]) -> Iterator[Receipt | Lost]:
        errors = self._ray.exceptions
        try:
            result = self._ray.get(call)
        except errors.RayTaskError as error:  # the code raised, the actor lives
            yield from self._raised(member, call, numbers, error)
        except errors.RayError as error:  # the actor died or cannot be reached, or its answer is lost
            yield from self._died(member, numbers, error)
        else:
            if self._settle(member, call) is None:
                node = node_of(member.actor)
                member.loaded, self._how = True, result.how
                member.stay.begin(node, result)
                self._refusals.pop(node or "", None)
            else:
                self._fruitless = 0
                yield result

    def _settle(self, member: _Member, call: Any) -> Shard | None:
        """Take a call off that is over: now the next one counts."""
        member.deadline = time.monotonic() + self._workers.deadline
        return member.calls.pop(call)

    def _raised(self, member: _Member, call: Any, numbers: Iterator[int], error: Any) -> Iterator[Lost]:
        cause, reason = error.cause, f"{type(error.cause).__name__} in the worker"
        shard = self._settle(member, call)
        if shard is None:
            self._refused(member, reason, error)
        elif isinstance(cause, RevectorError):
            raise cause from error  # a spec, model or store that is wrong is wrong for every shard
        else:
            yield from self._failed([shard], reason, numbers, error, blame=not isinstance(cause, OSError))

    def _died(self, member: _Member, numbers: Iterator[int], error: Exception) -> Iterator[Lost]:
        errors = self._ray.exceptions
        if not member.loaded:
            self._refused(member, "its worker died", error)
            return
        by_itself = isinstance(error, (errors.ActorDiedError, errors.OutOfMemoryError)) and is_alive(self._ray, node_of(member.actor))
        yield from self._failed(self._replace(member, "its worker died"), "its worker died", numbers, error, blame=by_itself)

    def _overdue(self, member: _Member, numbers: Iterator[int]) -> Iterator[Lost]:
        if member.loaded:
            late = f"no result within {self._workers.deadline:.0f} s"
            yield from self._failed(self._replace(member, late), late, numbers, None)
        elif node_of(member.actor):
            self._refused(member, f"no answer within {self._workers.ready:.0f} s", None)
        elif any(other.loaded or node_of(other.actor) for other in self._members):
            member.deadline = time.monotonic() + self._workers.ready  # it joins when the cluster has a place for it
        else:
            within = f"within {self._workers.ready:.0f} s"
            raise WorkerError(f"expected an actor with {needs(self._workers)} {within}, found a cluster of {describe(self._ray)}")

    def _refused(self, member: _Member, reason: str, error: Any) -> None:
        """The model could not be loaded. Where that happens again, or says itself why, no actor goes any more; the others work on."""
        own = error.cause if isinstance(getattr(error, "cause", None), RevectorError) else None
        node = member.stay.node = node_of(member.actor)
        if node and is_alive(self._ray, node):
            self._refusals[node] += LOADS if own else 1
            self._refusal = reason
            if not self._may_load(member):
                tried = f"expected workers that load the model, found {reason} on every node that has a place ({len(self._unfit)})"
                raise own or WorkerError(f"{tried}: is the model too large for them?") from error
        else:
            self._count_failure(reason, error)
        self._replace(member, reason)

    def _may_load(self, refused: _Member) -> bool:
        """Whether another actor has the model or may still get it, or this one elsewhere."""
        others = (other for other in self._members if other is not refused)
        return any(other.loaded or node_of(other.actor) for other in others) or places(self._ray, self._workers, self._unfit) > 0

    @property
    def _unfit(self) -> set[str]:
        """Nodes that no actor should go to."""
        return {node for node, refusals in self._refusals.items() if refusals >= LOADS}

    def _failed(
        self, shards: list[Shard], reason: str, numbers: Iterator[int], error: BaseException | None, *, blame: bool = True
    ) -> Iterator[Lost]:
        """Put shards back, halve them, or give them up. Without `blame`: put them back as they are."""
        self._count_failure(reason, error)
        for shard in shards:
            self._failures[shard.number] += blame
            failures = self._failures[shard.number]
            if failures < ATTEMPTS:
                self._put_back(shard, [shard], reason)
            elif shard.contents > 1:
                halves = shard.halves(numbers)
                self._failures |= {half.number: ATTEMPTS - 1 for half in halves}
                self._put_back(shard, halves, reason)
            else:
                warn("shard given up", shard=shard.number, contents=shard.contents, reason=reason)
                yield Lost(shard, reason)

    def _put_back(self, shard: Shard, parts: list[Shard], reason: str) -> None:
        """Queue `parts`, which are `shard`."""
        self._suspects += parts
        self._workforce.requeued += 1
        event = "shard put back" if parts == [shard] else "shard halved"
        warn(event, shard=shard.number, into=[part.number for part in parts], contents=shard.contents, reason=reason)

    def _count_failure(self, reason: str, error: BaseException | None) -> None:
        self._fruitless += 1
        if self._fruitless >= max(FRUITLESS, 3 * len(self._members)):
            raise WorkerError(f"expected workers that finish a shard, found {self._fruitless} failures in a row: {reason}") from error

    def _spawn(self) -> _Member:
        options = actor_options(self._workers, self._unfit)
        try:
            kind = self._ray.remote(EmbedActor).options(max_concurrency=IN_FLIGHT, **options)
            actor = kind.remote(self._model.spec, self._model.space.id, self._workers, self._wanted())
        except ValueError as error:  # a label that Ray does not take, or one and a half GPUs
            raise SpecError(f"workers: expected what Ray takes, found {error}") from error
        stay = self._workforce.hire(self._workers.gpus_per_actor)
        return _Member(actor, {actor.load.remote(): None}, time.monotonic() + self._workers.ready, stay)

    def _replace(self, member: _Member, reason: str) -> list[Shard]:
        """Another actor instead. Gives the shards that this one had; should it still answer, nobody listens."""
        shards = member.shards
        member.calls.clear()
        self._kill(member)
        self._workforce.replaced += 1
        warn("actor replaced", node=member.stay.node, shards=[shard.number for shard in shards], reason=reason)
        self._members[self._members.index(member)] = self._spawn()
        return shards

    def _kill(self, member: _Member) -> None:
        member.stay.end()
        with suppress(self._ray.exceptions.RayError):  # the cluster itself is gone
            self._ray.kill(member.actor)
