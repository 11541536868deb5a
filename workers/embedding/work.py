"""What a generation lacks: which rows have no vector, which of those can take a stored one, which need the model."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.content.chunks import HASH
from pipelines.content.diff import diff_rows
from pipelines.spaces.space import Space
from storage.reading.donors import DONOR_SCHEMA, Donors
from storage.store.lance import ROW_ADDRESS
from storage.store.spill import Spill, by_fragment, by_hash, matched
from storage.tables.chunk_table import DESIRED_SCHEMA
from storage.tables.generations import EMBEDDED_SCHEMA, Generation
from workers.embedding.embed_shard import Shard

SHARD_ROWS = 65_536
CODE_POINTS_A_TOKEN = 4.0
"""English text in WordPiece, roughly; replaced by what earlier runs measured."""
TOKENS_A_TEXT = 2
"""Special tokens."""
_PENDING = pa.schema([("content_hash", HASH), ("length", pa.int64()), (ROW_ADDRESS, pa.uint64())])
_EMBED = pa.schema([(ROW_ADDRESS, pa.uint64()), ("length", pa.int64())])
_REUSE = pa.schema([*_EMBED, ("source", pa.int32()), ("donor", pa.uint64())])


class Work:
    """The difference between a chunk table and a generation. Row addresses are those of the chunk table; lengths are in code points."""

    def __init__(self, donors: Donors, fragments: np.ndarray) -> None:
        """`fragments`: numbers of those that rows are in, sorted."""
        self.donors = donors
        self.embed = Spill(_EMBED, by_fragment(ROW_ADDRESS, fragments))
        """One row of each content that needs a forward pass: address, `length`."""
        self.reuse = Spill(_REUSE, by_fragment(ROW_ADDRESS, fragments))
        """Rows whose vector is stored already: address, `length`, and `source` and `donor`, where `donors` have it."""
        self.copies = Spill(_EMBED, by_fragment(ROW_ADDRESS, fragments))
        """Further rows of the contents in `embed`: they can take a vector once there is one."""
        self.code_points = 0
        """Text that goes through the model."""
        self.stale = np.zeros(0, dtype=np.uint64)
        """Addresses in the vectors table of rows that the corpus no longer says."""

    @property
    def rows(self) -> int:
        """Chunks that have no vector yet."""
        return self.embed.rows + self.copies.rows + self.reuse.rows

    @property
    def empty(self) -> bool:
        return not self.rows and not len(self.stale)


def find_work(generation: Generation, version: int | None, space: Space, desired: Iterable[pa.Table], fragments: np.ndarray) -> Work:
    """Compare `desired` rows (DESIRED_SCHEMA), which are in `fragments`, to the generation at `version` (None: it does not exist yet)."""
    work = Work(Donors(generation, version, space), fragments)
    pending, work.stale = _differences(generation, version, desired)
    offers = Spill(DONOR_SCHEMA, by_hash("content_hash"))
    if pending.rows:
        wanted = pc.unique(pending.whole()["content_hash"]) if pending.in_memory else None
        for rows in work.donors.rows(wanted):
            offers.add(rows)
    for rows, stored in matched(pending, offers):
        _divide(work, rows.sort_by(ROW_ADDRESS), stored)
    return work


def _differences(generation: Generation, version: int | None, desired: Iterable[pa.Table]) -> tuple[Spill, np.ndarray]:
    """The rows without a vector (_PENDING), and the addresses of stale vectors."""
    stored, wanted = Spill(EMBEDDED_SCHEMA, by_hash("row_hash")), Spill(DESIRED_SCHEMA, by_hash("row_hash"))
    pending = Spill(_PENDING, by_hash("content_hash"))
    for rows in generation.embedded(version):
        stored.add(rows)
    for rows in desired:
        (wanted if stored.rows else pending).add(rows)
    stale = []
    for rows, known in matched(wanted, stored):
        difference = diff_rows(rows, known)
        pending.add(rows.take(pa.array(difference.pending)))
        stale.append(known[ROW_ADDRESS].to_numpy()[difference.stale])
    return pending, np.concatenate(stale)


def _divide(work: Work, rows: pa.Table, offers: pa.Table) -> None:
    """Put rows (_PENDING, by address) and what is stored of their contents where they belong in `work`."""
    hashes = pa.concat_arrays([rows["content_hash"].combine_chunks(), offers["content_hash"].combine_chunks()])
    codes = np.asarray(hashes.dictionary_encode().indices, dtype=np.int64)
    code, offered = codes[: len(rows)], codes[len(rows) :]
    donor = np.full(codes.max(initial=-1) + 1, -1, dtype=np.int64)
    donor[offered[::-1]] = np.arange(len(offers))[::-1]  # of repeated indices the last assignment stays: the first offer
    place = donor[code]
    stored = place >= 0
    # codes are given in the order of their first row
    first = code > np.concatenate([[-1], np.maximum.accumulate(code)])[: len(code)]
    embed = rows.filter(pa.array(first & ~stored))
    work.embed.add(embed)
    work.code_points += pc.sum(embed["length"]).as_py() or 0
    work.copies.add(rows.filter(pa.array(~first & ~stored)))
    taken = offers.select(["source", "donor"]).take(pa.array(place[stored]))
    work.reuse.add(pa.table([*rows.filter(pa.array(stored)).select(_EMBED.names).columns, *taken.columns], schema=_REUSE))


class Cutter:
    """Cuts the contents that need the model into shards, one at a time: how large, is known only while the work goes on."""

    def __init__(self, work: Work, code_points_a_token: float, numbers: Iterator[int]) -> None:
        """`numbers`: of the shards, none of them twice in a run."""
        self.numbers = numbers
        self.tokens = int(work.code_points / code_points_a_token + TOKENS_A_TEXT * work.embed.rows)
        """Of all contents, by estimate."""
        self._code_points_a_token = code_points_a_token
        self._parts = work.embed.parts()
        self._returned: list[Shard] = []
        self._next = 0
        self._addresses = np.zeros(0, dtype=np.uint64)
        self._tokens = np.zeros(1)

    def cut(self, tokens: float) -> Shard | None:
        """The next contents, of about `tokens` by estimate and at most SHARD_ROWS; at least one. None when there are no more."""
        if self._returned:
            return self._returned.pop()
        if self._next == len(self._addresses) and not self._load():
            return None
        begin = self._next
        fitting = int(np.searchsorted(self._tokens, self._tokens[begin] + tokens, side="right")) - 1
        stop = self._next = max(begin + 1, min(fitting, begin + SHARD_ROWS, len(self._addresses)))
        return Shard(next(self.numbers), self._addresses[begin:stop])

    def put_back(self, shard: Shard) -> None:
        """Let `cut` give it again, before any other."""
        self._returned.append(shard)

    def _load(self) -> bool:
        """Take up the next rows, in the order in which they are stored. False if there are none."""
        rows = next((part for part in self._parts if len(part)), None)
        if rows is None:
            return False
        rows = rows.sort_by(ROW_ADDRESS)
        lengths = rows["length"].to_numpy()
        self._addresses, self._next = rows[ROW_ADDRESS].to_numpy(), 0
        self._tokens = np.concatenate([[0], np.cumsum(lengths / self._code_points_a_token + TOKENS_A_TEXT)])
        return True
