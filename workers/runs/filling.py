"""Fills a generation up to its chunk table: stored vectors first, then the model, and last what is stale goes.

In this order a crash at any line loses no vector that could have been used again.
"""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain

import numpy as np
import pyarrow as pa

from pipelines.logs import log
from storage.history.ledger import BROKEN_OFF, runs
from storage.store.commit import Change
from storage.store.lance import ROW_ADDRESS, take
from workers.cluster.connection import on_cluster, start_ray
from workers.embedding.embed_shard import Embedding, Receipt, embed_shard, reuse_rows
from workers.embedding.encoding import Encoding
from workers.embedding.pool import Lost, Pool
from workers.embedding.work import Cutter, Work, find_work
from workers.observing.account import Tally
from workers.planning.calibration import Calibration
from workers.planning.target import Target
from workers.runs.session import Session

COMMIT_SECONDS = 8.0
"""Between commits at least. A crash costs what was staged since, and the shards in progress."""
SHARD_SECONDS = 5.0
"""That a shard should take: the next one is cut by the speed of the last."""
FIRST_SHARD_TOKENS = 16_384
LARGEST_SHARD_TOKENS = 2_000_000
ACTOR_TOKENS = 30_000
"""Work that is worth starting one more actor for."""
HERE_SECONDS = 10.0
"""Work, at the speed of earlier runs, that is sooner done in this process than Ray has started."""

INPUT_ERRORS = (RuntimeError, ValueError, TypeError, LookupError)
"""What a model raises on an input that it cannot take."""


class Filling:
    """The work of one run on one generation."""

    def __init__(self, session: Session, target: Target, tally: Tally, encoding: Encoding, chunk_version: int, version: int) -> None:
        """`version`: of the vectors table, as it is. `tally`: to count in. `encoding`: gets the model that is loaded here."""
        self.version = version
        self._session = session
        self._target = target
        self._tally = tally
        self._encoding = encoding
        self._chunk_version = chunk_version
        self._name = target.generation.name
        self._embedding = Embedding(target.store, target.chunk_table.name, chunk_version, self._name)
        self._reasons: dict[bytes, str] = {}
        """Contents that could not be embedded, and why."""
        self._shard_tokens: float = FIRST_SHARD_TOKENS
        self._staged: list[str] = []
        self._committed_at = self._embed_began = time.monotonic()

    def perform(self, calibration: Calibration) -> int:
        """Gives the last version of the vectors table, which is the one that it began with if nothing was to be done.

        Raises WorkerError when no worker can go on; what is committed by then stays.
        """
        tally, profile = self._tally, self._session.account.profile
        with profile.stage("compare"):
            work = self._find()
        tally.total = work.rows
        counts = {"forward_passes": work.embed.rows, "chunks": work.rows, "reused": work.reuse.rows, "removed": len(work.stale)}
        log("work found", generation=self._name, **counts)
        with profile.stage("reuse"):
            for count in self._reuse(work):
                tally.reused += count
                self._session.account.tell("reuse")
        if work.embed.rows:
            with profile.stage("embed"):
                self._embed(Cutter(work, calibration.code_points_a_token, self._session.account.shard_numbers), calibration)
            if self._session.account.embedding_since:
                profile.split("embed", "start the model", self._session.account.embedding_since - self._embed_began)
        if work.copies.rows or self._reasons:
            # Rows of contents that have a vector by now, and those of contents that cannot have one.
            with profile.stage("copies"):
                rest = self._find()
                for count in self._reuse(rest):
                    tally.embedded += count
                    self._session.account.tell("embed")
                self._bury(rest)
        if len(work.stale):
            self.version = self._session.commit(self._name, self.version, Change(work.stale, []))
        return self.version

    def _find(self) -> Work:
        target, table = self._target, self._target.chunk_table
        desired, fragments = table.desired(self._chunk_version), table.fragments(self._chunk_version)
        return find_work(target.generation, self.version, target.model.space, desired, fragments)

    def _reuse(self, work: Work) -> Iterator[int]:
        """Copy stored vectors, some rows at a time: yields how many. All of them are committed in the end."""
        for part in work.reuse.parts():
            for fragments, count in reuse_rows(self._embedding, work.donors, part.sort_by(ROW_ADDRESS)):
                self._stage(fragments)
                yield count
        self._commit()

    def _embed(self, cutter: Cutter, calibration: Calibration) -> None:
        self._session.account.tell("embed")
        self._embed_began = time.monotonic()
        small = cutter.tokens <= max(ACTOR_TOKENS, HERE_SECONDS * (calibration.tokens_per_second or 0))
        for outcome in self._here(cutter) if small and self._may_run_here() else self._on_ray(cutter):
            if isinstance(outcome, Lost):
                self._failed(dict.fromkeys(outcome.shard.addresses.tolist(), outcome.reason))
            else:
                self._accept(outcome)
        self._commit()

    def _may_run_here(self) -> bool:
        """Whether nothing asks for an actor: no cluster, no GPU, and no run before this one that ended badly, maybe by an input."""
        target, run = self._target, self._session.run
        workers = target.spec.workers
        earlier = [other for other in runs(target.collection) if other.run_id != run.run_id]
        before = next((other for other in reversed(earlier) if "upkeep" not in (other.read("intent.json") or {})), None)
        last = before.read("result.json") if before else {"status": "nothing"}
        well = last is not None and last["status"] not in BROKEN_OFF
        return well and not on_cluster() and not workers.gpus_per_actor and not workers.label

    def _here(self, cutter: Cutter) -> Iterator[Receipt | Lost]:
        """A little work in this process: starting Ray and an actor would take longer. What goes wrong here is for the pool to sort out."""
        encoder = self._encoding.encoder()
        self._session.account.profile.how = encoder.how
        while shard := cutter.cut(self._shard_tokens):
            try:
                receipt = embed_shard(self._embedding, encoder, shard, nullcontext())
            except INPUT_ERRORS:
                cutter.put_back(shard)
                yield from self._on_ray(cutter)
            else:
                yield receipt

    def _on_ray(self, cutter: Cutter) -> Iterator[Receipt | Lost]:
        target = self._target
        most = cutter.tokens // ACTOR_TOKENS + 1
        session = self._session
        pool = Pool(start_ray(session.closing), target.model, target.spec.workers, most, session.account.workforce)
        self._encoding.keep(pool)
        yield from pool.run(self._embedding, lambda: cutter.cut(self._shard_tokens), cutter.numbers)
        session.account.profile.how = pool.how

    def _accept(self, receipt: Receipt) -> None:
        """Keep the receipt, count it, and commit it soon. Of two receipts of one shard the first wins."""
        record = {
            "shard": receipt.number,
            "generation": self._name,
            "contents": receipt.contents,
            "chunks": receipt.rows,
            "tokens": receipt.tokens,
            "unread": receipt.unread,
            "worker": receipt.worker,
            "seconds": receipt.spent,
            "failed": len(receipt.failed),
            "fragments": receipt.fragments,
        }
        if not self._session.run.receipt(receipt.number, record):
            return
        elapsed = sum(receipt.spent.values())
        self._shard_tokens = min(max(receipt.tokens / elapsed * SHARD_SECONDS, FIRST_SHARD_TOKENS), LARGEST_SHARD_TOKENS)
        if self._session.account.embedding_since is None:
            self._session.account.embedding_since = time.monotonic() - elapsed
        tally = self._tally
        tally.contents += receipt.contents
        tally.embedded += receipt.rows
        tally.tokens += receipt.tokens
        tally.code_points += receipt.code_points
        tally.unread = {unit: tally.unread[unit] + count for unit, count in receipt.unread.items()}
        self._session.account.profile.note(receipt.worker, receipt.tokens, receipt.spent)
        log("shard done", **{name: record[name] for name in ("shard", "worker", "contents", "tokens", "failed")}, seconds=elapsed)
        self._failed(receipt.failed)
        self._stage(receipt.fragments)
        self._session.account.tell("embed")

    def _failed(self, reasons: dict[int, str]) -> None:
        if reasons:
            hashes = self._take(np.array(list(reasons), dtype=np.uint64), "content_hash")
            self._reasons |= dict(zip(hashes["content_hash"].to_pylist(), reasons.values(), strict=True))

    def _bury(self, rest: Work) -> None:
        """A letter for each row of a content that failed."""
        for part in chain(rest.embed.parts(), rest.copies.parts()):
            rows = self._take(part[ROW_ADDRESS].to_numpy(), "chunk_id", "content_hash", "doc_key")
            self._tally.failed_documents.update(rows["doc_key"].to_pylist())
            for chunk_id, content in zip(rows["chunk_id"].to_pylist(), rows["content_hash"].to_pylist(), strict=True):
                self._tally.failed[chunk_id] = self._reasons[content]

    def _take(self, addresses: np.ndarray, *columns: str) -> pa.Table:
        return take(self._target.store.open(self._embedding.chunk_table, self._chunk_version), addresses, columns)

    def _stage(self, fragments: list[str]) -> None:
        self._staged += fragments
        if time.monotonic() - self._committed_at >= COMMIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        """Commit all that is staged at once, or nothing if nothing is. The time to the next commit begins here."""
        if self._staged:
            self.version = self._session.commit(self._name, self.version, Change(np.zeros(0, dtype=np.uint64), self._staged))
        self._staged = []
        self._committed_at = time.monotonic()
