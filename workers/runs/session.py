"""A run while it goes on: its place in the ledger, its right to commit, and its account."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pipelines.errors import Conflict, RevectorError
from pipelines.logs import bound, log
from pipelines.redaction import redact
from pipelines.spec.running import PricesSpec
from storage.collection import Collection
from storage.history.fence import Fence, take_fence
from storage.history.heartbeat import Heartbeat
from storage.history.ledger import Run
from storage.store.commit import TOKEN, Change, commit
from storage.store.examination import require_sound
from storage.who import check_run_id, new_run_id, now, whereabouts, whoami
from workers.cluster.connection import on_cluster
from workers.observing.account import FOR_NOTHING, Account
from workers.observing.provenance import environment
from workers.observing.telling import Report


@dataclass(frozen=True)
class Session:
    """One run of one collection, from its fence to its end."""

    run: Run
    fence: Fence
    account: Account
    closing: ExitStack = field(default_factory=ExitStack)
    """Left when the run ends: what the run opens on the way is closed then."""

    @property
    def collection(self) -> Collection:
        return self.run.collection

    def begin(self, **intent: Any) -> None:
        """Write down what is about to be done, beside who does it, where and with which token."""
        run, where = self.run, whereabouts()
        common = {"run_id": run.run_id, "collection": run.collection.name, "token": self.fence.token, "at": now(), "who": whoami()}
        run.write("intent.json", {**common, "where": where, "environment": environment(), **intent})
        self.account.change = intent.get("change", "")
        what = {"what": intent.get("upkeep", "apply"), "change": self.account.change, "token": self.fence.token}
        log("run began", **what, where=where["kind"], host=where["host"])

    def commit(self, table: str, version: int, change: Change) -> int:
        """One fenced commit on top of `version`. Gives the version that it made."""
        self.fence.check()
        store = self.collection.store
        properties = {"run_id": self.run.run_id, TOKEN: str(self.fence.token)}
        made = int(commit(store, store.open(table, version), change, properties).version)
        log("committed", table=table, version=made, fragments=len(change.fragments), deleted=len(change.deleted))
        return made


@contextmanager
def open_session(collection: Collection, report: Report, run_id: str | None = None, prices: PricesSpec = FOR_NOTHING) -> Iterator[Session]:
    """A run, with its right to commit and its heartbeat; a record of the error, and of what was spent, if it ends with one.

    `run_id`: of whoever submitted it; None: a new one. Raises Conflict while another run has the collection, or if the run has begun
    before; SpecError for an id that is none; StorageError for a store that would lose commits.
    """
    run = Run(collection, check_run_id(run_id) if run_id else new_run_id())
    require_sound(collection.store)
    if run_id and run.exists("heartbeat.json"):
        raise Conflict(f"run {run_id} of {collection} has begun before: what goes on from it is a run of another id")
    fence = take_fence(collection, run.run_id)
    account = Account(report, prices, alone=not on_cluster())
    try:
        with ExitStack() as closing, bound(collection=collection.name, run_id=run.run_id), Heartbeat(run, lambda: account.moment):
            yield Session(run, fence, account, closing)
    except BaseException as error:
        with suppress(OSError):  # a store that is away must not hide why
            if not run.exists("result.json"):
                status = "cancelled" if isinstance(error, KeyboardInterrupt) else "failed"
                record = {"run_id": run.run_id, "token": fence.token, "status": status, "error": _describe(error), "at": now()}
                run.write("result.json", record | account.spent())
        raise


def _describe(error: BaseException) -> str:
    """Only our own messages are known to hold no texts; what a store said may stand in them."""
    return redact(f"{type(error).__name__}: {error}") if isinstance(error, RevectorError) else type(error).__name__
