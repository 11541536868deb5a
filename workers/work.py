"""What a generation lacks: which rows have no vector, which of those can take a stored one, which need the model."""

from dataclasses import dataclass
from itertools import count

import numpy as np
import pyarrow as pa

from pipelines.diff import Contents, diff_rows, group_contents, take_groups
from storage.tables import ROW_ADDRESS
from storage.vectors import Donors, Generation
from workers.embed import Shard

SHARD_ROWS = 65_536
CODE_POINTS_A_TOKEN = 4.0
"""English text in WordPiece, roughly; replaced by what earlier runs measured."""


@dataclass(frozen=True, slots=True)
class Work:
    """The difference between a chunk table and a generation. Row positions refer to `rows`."""

    rows: pa.Table
    """The rows without a vector: `row_hash`, `content_hash`, `length`, address in the chunk table."""
    embed: Contents
    """Contents that need a forward pass."""
    reuse: Contents
    """Contents whose vector is stored already."""
    donors: Donors
    """Where: position i serves content i of `reuse`."""
    stale: np.ndarray
    """Addresses in the vectors table of rows that the corpus no longer says: uint64."""

    @property
    def empty(self) -> bool:
        return not len(self.rows) and not len(self.stale)

    @property
    def addresses(self) -> np.ndarray:
        """Of `rows` in the chunk table: uint64."""
        return np.asarray(self.rows[ROW_ADDRESS])

    @property
    def code_points(self) -> int:
        """Text that goes through the model."""
        return int(np.asarray(self.rows["length"])[self.embed.first].sum())


def find_work(generation: Generation, version: int | None, space: str, desired: pa.Table) -> Work:
    """Compare `desired` rows to the generation at `version` (None: it does not exist yet)."""
    embedded = generation.embedded_rows(version)
    difference = diff_rows(desired, embedded)
    rows = desired.take(pa.array(difference.pending)).combine_chunks()
    contents = group_contents(rows["content_hash"])
    donors = Donors(generation.store, rows["content_hash"].take(pa.array(contents.first)).combine_chunks())
    if len(contents):
        donors.search(generation, version, space, embedded)
    found = donors.found
    stale = np.asarray(embedded[ROW_ADDRESS])[difference.stale]
    return Work(rows, take_groups(contents, ~found), take_groups(contents, found), donors.only_found(), stale)


class Cutter:
    """Cuts the contents that need the model into shards, one at a time: how large, is known only while the work goes on."""

    def __init__(self, work: Work, code_points_a_token: float) -> None:
        self.numbers = count()
        self._addresses = work.addresses[work.embed.rows]
        self._starts = work.embed.starts
        lengths = np.asarray(work.rows["length"])[work.embed.first]
        self._tokens = np.concatenate([[0], np.cumsum(lengths / code_points_a_token + 2)])
        self._next = 0

    @property
    def tokens(self) -> int:
        """Of all contents, by estimate."""
        return int(self._tokens[-1])

    @property
    def done(self) -> bool:
        return self._next >= len(self._starts) - 1

    def cut(self, tokens: float) -> Shard:
        """The next contents, of about `tokens` by estimate and at most SHARD_ROWS rows; at least one content."""
        begin = self._next
        by_tokens = int(np.searchsorted(self._tokens, self._tokens[begin] + tokens, side="right")) - 1
        by_rows = int(np.searchsorted(self._starts, self._starts[begin] + SHARD_ROWS, side="right")) - 1
        stop = self._next = max(begin + 1, min(by_tokens, by_rows, len(self._starts) - 1))
        first, last = self._starts[begin], self._starts[stop]
        estimate = int(self._tokens[stop] - self._tokens[begin])
        return Shard(next(self.numbers), self._addresses[first:last], self._starts[begin : stop + 1] - first, estimate)
