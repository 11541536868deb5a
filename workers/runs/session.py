"""A run while it goes on: its place in the ledger, its right to commit, and what it has done so far."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from typing import Any

from pipelines.errors import Conflict, RevectorError
from pipelines.logs import bound, log
from pipelines.redaction import redact
from pipelines.spec.running import PricesSpec
from storage.history.fence import Fence, take_fence
from storage.history.heartbeat import Heartbeat
from storage.history.ledger import Run
from storage.store import commit
from storage.store.examination import require_sound
from storage.store.lance import Store
from storage.who import new_run_id, now, whereabouts, whoami
from workers.cluster.connection import on_cluster
from workers.observing import costs
from workers.observing.account import FOR_NOTHING, Tally, usable_cores
from workers.observing.costs import Cost, Held
from workers.observing.profile import Profile
from workers.observing.provenance import environment
from workers.observing.report import Progress, Report, Stage
from workers.observing.workforce import Workforce


class Session:
    """One run of one collection."""

    def __init__(self, store: Store, run: Run, fence: Fence, report: Report, closing: ExitStack, prices: PricesSpec = FOR_NOTHING) -> None:
        """`closing` is left when the run ends: what the run opens on the way is closed then."""
        self.store = store
        self.run = run
        self.fence = fence
        self.closing = closing
        self.profile = Profile()
        self.workforce = Workforce()
        self._prices = prices
        self._alone = not on_cluster()
        """On a machine that it has for itself."""
        self.tasks = Held()
        """By tasks on a cluster that read the corpus."""
        self.change = ""
        """The kind of change that it brings."""
        self.documents = 0
        """Read so far."""
        self.shard_numbers = count()
        self.tallies: list[Tally] = []
        """Of the generations that were begun."""
        self.began = time.monotonic()
        self.moment: Progress | None = None
        """The last that was reported."""
        self.speed = 0.0
        """Tokens per second of the last generation that went through the model."""
        self._report = report
        self.embedding_since: float | None = None
        """When the first shard of the present generation began: models take long to load, and that says nothing of the speed."""

    def begin(self, **intent: Any) -> None:
        """Write down what is about to be done, beside who does it, where and with which token."""
        run = self.run
        common = {"run_id": run.run_id, "collection": run.collection, "token": self.fence.token, "at": now(), "who": whoami()}
        where = whereabouts()
        run.write("intent.json", {**common, "where": where, "environment": environment(), **intent})
        self.change = intent.get("change", "")
        told = {"what": intent.get("upkeep", "apply"), "change": self.change, "token": self.fence.token}
        log("run began", **told, where=where["kind"], host=where["host"])

    def begin_generation(self) -> Tally:
        """Count for another generation from here on."""
        self.embedding_since = None
        self.tallies.append(Tally())
        return self.tallies[-1]

    def commit(self, table: str, version: int, change: commit.Change) -> int:
        """One fenced commit on top of `version`. Gives the version that it made."""
        self.fence.check()
        dataset = self.store.open(table, version)
        properties = {"run_id": self.run.run_id, commit.TOKEN: str(self.fence.token)}
        made = int(commit.commit(self.store, dataset, change, properties).version)
        log("committed", table=table, version=made, fragments=len(change.fragments), deleted=len(change.deleted))
        return made

    def held(self) -> dict[str, Held]:
        """What each stage has held so far: on a machine of its own all cores, on a cluster one, and what its actors and tasks have."""
        alone, actors = self._alone, self.workforce.held()
        stages = self.profile.so_far()
        stages["other"] = max(0.0, time.monotonic() - self.began - sum(stages.values()))
        held = {stage: Held(seconds * (usable_cores() if alone else 1)) for stage, seconds in stages.items()}
        held["embed"] = held.get("embed", Held()) + (Held(0.0, actors.gpu_seconds) if alone else actors)
        held["read"] = held.get("read", Held()) + (Held() if alone else self.tasks)
        return held

    def cost(self) -> Cost | None:
        """Of what it has held so far; None without prices."""
        return costs.cost(self.held(), self._prices)

    def spent(self) -> dict[str, Any]:
        """What it took so far, for the record: `seconds`, `profile`, `nodes` and `cost`."""
        model = sum(worker["model"] for worker in self.profile.workers.values())
        return {
            "seconds": {"total": time.monotonic() - self.began, "model": model},
            "profile": {**self.profile.to_dict(), "held": self.held()},
            "nodes": self.workforce.nodes(),
            "cost": self.cost(),
        }

    def tell(self, stage: Stage) -> None:
        """Report where the run is: of several generations, in the present one."""
        tally = self.tallies[-1] if self.tallies else Tally()
        elapsed = time.monotonic() - self.embedding_since if self.embedding_since else 0.0
        done = tally.embedded + tally.reused
        rate = tally.tokens / elapsed if elapsed else 0.0
        left = None
        if stage == "embed" and tally.total is not None and tally.embedded:
            left = elapsed / tally.embedded * (tally.total - done)
        shared = tally.reused + max(0, tally.embedded - tally.contents)
        if stage == "embed" and rate:
            self.speed = rate
        self.moment = Progress(stage, self.documents, done, tally.total, tally.tokens, rate, shared, left)
        self._report(self.moment)


@contextmanager
def open_session(
    store: Store, collection: str, report: Report, run_id: str | None = None, prices: PricesSpec = FOR_NOTHING
) -> Iterator[Session]:
    """A run, with its right to commit and its heartbeat; a record of the error, and of what was spent, if it ends with one.

    `run_id`: of whoever submitted it; None: a new one. Raises Conflict while another run has the collection, or if the run has begun
    before; StorageError for a store that would lose commits.
    """
    require_sound(store)
    run = Run(store.objects, collection, run_id or new_run_id())
    if run_id and run.exists("heartbeat.json"):
        raise Conflict(f"run {run_id} of {collection} has begun before: what goes on from it is a run of another id")
    fence = take_fence(store.objects, collection, run.run_id)
    session: Session | None = None
    try:
        with ExitStack() as closing, bound(collection=collection, run_id=run.run_id):
            session = Session(store, run, fence, report, closing, prices)
            with Heartbeat(run, lambda: session.moment):
                yield session
    except BaseException as error:
        with suppress(OSError):  # a store that is away must not hide why
            if not run.exists("result.json"):
                status = "cancelled" if isinstance(error, KeyboardInterrupt) else "failed"
                spent = session.spent() if session else {}
                run.write("result.json", {"run_id": run.run_id, "status": status, "error": _describe(error), "at": now(), **spent})
        raise


def _describe(error: BaseException) -> str:
    """Only our own messages are known to hold no texts; what a store said may stand in them."""
    return redact(f"{type(error).__name__}: {error}") if isinstance(error, RevectorError) else type(error).__name__
