"""Fills a generation up to its chunk table: stored vectors first, then the model, and last what is stale goes.

In this order a crash at any line loses no vector that could have been used again.
"""

import time

import numpy as np

from storage.tables import Change, take
from storage.vectors import replaced
from workers.cluster import start_ray
from workers.embed import Embedding, Receipt, Shard, reuse_rows
from workers.pool import Lost, Pool
from workers.session import Session
from workers.work import Cutter, Work

COMMIT_SECONDS = 8.0
"""Between commits at least. A crash costs what was staged since, and the shards in progress."""
SHARD_SECONDS = 5.0
"""That a shard should take."""
FIRST_SHARD_TOKENS = 16_384
LARGEST_SHARD_TOKENS = 2_000_000
ACTOR_TOKENS = 30_000
"""Work that is worth starting one more actor for."""


class Filling:
    """The work of one run on one generation."""

    def __init__(self, session: Session, work: Work, chunk_version: int, version: int) -> None:
        """`version`: of the vectors table, that `work` was found at."""
        target = session.target
        self.version = version
        self._session = session
        self._work = work
        self._name = target.generation.name
        self._embedding = Embedding(target.store, target.chunk_table.name, chunk_version, self._name)
        self._chunks = target.store.open(target.chunk_table.name, chunk_version)
        self._rows = np.argsort(work.addresses, kind="stable")
        vectors = target.store.open(self._name, version)
        self._replaces = replaced(self._chunks, work.addresses, vectors, work.stale)
        self._gone = np.zeros(len(work.stale), dtype=bool)
        self._waiting: list[tuple[list[str], np.ndarray]] = []
        self._committed_at = time.monotonic()

    def perform(self, code_points_a_token: float) -> int:
        """Do it. Gives the last version of the vectors table."""
        self._session.tally.total = len(self._work.rows)
        if len(self._work.reuse):
            self._reuse()
        if len(self._work.embed):
            self._embed(Cutter(self._work, code_points_a_token))
        rest = self._work.stale[~self._gone]
        if len(rest):
            self.version = self._session.commit(self._name, self.version, Change(rest, []))
        return self.version

    def _reuse(self) -> None:
        work, tally = self._work, self._session.tally
        for fragments, addresses in reuse_rows(self._embedding, work.donors, work.reuse, work.rows):
            tally.reused += len(addresses)
            self._stage(fragments, addresses)
            self._session.tell("reuse")
        self._commit()

    def _embed(self, cutter: Cutter) -> None:
        target = self._session.target
        tokens = float(FIRST_SHARD_TOKENS)
        most = cutter.tokens // ACTOR_TOKENS + 1

        def next_shard() -> Shard | None:
            return None if cutter.done else cutter.cut(tokens)

        self._session.tell("embed")
        with Pool(start_ray(self._session.closing), self._embedding, target.model, target.spec.workers, most) as pool:
            for outcome in pool.run(next_shard, cutter.numbers):
                if isinstance(outcome, Lost):
                    self._give_up(outcome)
                else:
                    self._accept(outcome)
                    tokens = float(np.clip(outcome.tokens / outcome.elapsed * SHARD_SECONDS, FIRST_SHARD_TOKENS, LARGEST_SHARD_TOKENS))
        self._commit()

    def _accept(self, receipt: Receipt) -> None:
        """Keep the receipt, count it, and commit it soon. Of two receipts of one shard the first wins."""
        record = {
            "shard": receipt.number,
            "contents": receipt.contents,
            "chunks": len(receipt.addresses),
            "tokens": receipt.tokens,
            "seconds": receipt.seconds,
            "elapsed": receipt.elapsed,
            "failed": len(receipt.failed),
            "fragments": receipt.fragments,
        }
        if not self._session.run.receipt(receipt.number, record):
            return
        if self._session.embedding_since is None:
            self._session.embedding_since = time.monotonic() - receipt.elapsed
        tally = self._session.tally
        tally.contents += receipt.contents
        tally.embedded += len(receipt.addresses)
        tally.tokens += receipt.tokens
        tally.code_points += receipt.code_points
        tally.model_seconds += receipt.seconds
        tally.failed |= receipt.failed
        self._stage(receipt.fragments, receipt.addresses)
        self._session.tell("embed")

    def _give_up(self, lost: Lost) -> None:
        ids = take(self._chunks, lost.shard.addresses, ["chunk_id"])["chunk_id"].to_pylist()
        self._session.tally.failed |= dict.fromkeys(ids, lost.reason)

    def _stage(self, fragments: list[str], addresses: np.ndarray) -> None:
        self._waiting.append((fragments, addresses))
        if time.monotonic() - self._committed_at >= COMMIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        """One atomic upsert of all that is staged: each new row takes the place of the old one of its chunk."""
        if not self._waiting:
            return
        fragments = [fragment for staged, _ in self._waiting for fragment in staged]
        change = Change(self._old_rows(np.concatenate([addresses for _, addresses in self._waiting])), fragments)
        if not change.empty:
            self.version = self._session.commit(self._name, self.version, change)
        self._waiting = []
        self._committed_at = time.monotonic()

    def _old_rows(self, addresses: np.ndarray) -> np.ndarray:
        """Addresses of the rows that these chunks had so far."""
        positions = self._rows[np.searchsorted(self._work.addresses, addresses, sorter=self._rows)]
        places = self._replaces[positions]
        places = places[places >= 0]
        self._gone[places] = True
        return np.asarray(self._work.stale[places])
