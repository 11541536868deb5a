"""The table of pairs: what of it goes, and what comes, when some contents are compared anew."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.content.chunks import HASH
from pipelines.content.diff import member
from pipelines.content.settling import halves
from storage.store.lance import ROW_ADDRESS, scan_batches
from storage.store.spill import Spill, by_hash, matched
from workers.reports.pairing.near import LISTED
from workers.reports.pairing.shelf import Shelf, first_of_run

PAIRS = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("other", pa.string(), nullable=False),
        pa.field("cosine", pa.float32(), nullable=False),
        pa.field("content_hash", HASH, nullable=False),
        pa.field("other_hash", HASH, nullable=False),
    ]
)
"""Two contents, the one of the smaller hash first, each by the smallest of its chunk ids, and their cosine."""
_STORED = pa.schema([("content_hash", HASH), ("other_hash", HASH), (ROW_ADDRESS, pa.uint64())])


def pair_rows(shelf: Shelf, first: NDArray[np.int64], other: NDArray[np.int64], cosine: NDArray[np.float32]) -> pa.Table:
    """PAIRS, of places on a shelf."""
    ids = [shelf.ids.take(pa.array(places)) for places in (first, other)]
    hashes = [as_hashes(shelf.hashes[places]) for places in (first, other)]
    return pa.table([*ids, pa.array(cosine, pa.float32()), *hashes], schema=PAIRS)


def as_hashes(numbers: NDArray[np.uint64]) -> pa.Array:
    """What `halves` was given."""
    return pa.Array.from_buffers(HASH, len(numbers), [None, pa.py_buffer(np.ascontiguousarray(numbers, dtype=">u8"))])


def shortened(stored: Any, gone: pa.Array) -> pa.Array:
    """The contents whose list of firsts was full and has lost one of `gone`: there may be others now that found no room in it."""
    losers = [pairs["other_hash"].filter(pa.array(member(pairs["content_hash"], gone))).combine_chunks() for pairs in _scan(stored)]
    lost = pa.concat_arrays([pa.array([], HASH), *losers]).unique()
    counts = np.zeros(len(lost), np.int64)
    for pairs in _scan(stored):
        counts += np.bincount(pc.index_in(pairs["other_hash"], lost).drop_null().to_numpy(), minlength=len(lost))
    return lost.filter(pa.array(counts >= LISTED))


def _scan(stored: Any) -> Iterator[pa.Table]:
    return scan_batches(stored, _STORED.names[:2])


def settle_pairs(found: Spill, stored: Any, outdated: pa.Array | None) -> Iterator[tuple[pa.Table, NDArray[np.uint64]]]:
    """The rows that come, and the addresses of those that go, some at a time.

    `found`: PAIRS by their `other_hash`, each with a content that is outdated or new; some may come twice. `stored`: the table as it is.
    `outdated`: contents of which no stored pair holds; None: of none one holds. A content keeps its first LISTED of all pairs.
    """
    kept = Spill(_STORED, by_hash("other_hash"))
    for pairs in _scan(stored):
        kept.add(pairs)
    for new, old in matched(found, kept):
        goes = np.ones(len(old), bool) if outdated is None else _any_of(old, outdated)
        keys = np.concatenate([_keys(old.filter(pa.array(~goes))), _keys(new)])
        addresses, rows = np.flatnonzero(~goes), np.arange(len(new))
        listed = _listed(keys)
        goes[addresses[~listed[: len(addresses)]]] = True
        yield new.take(pa.array(rows[listed[len(addresses) :]])), old[ROW_ADDRESS].to_numpy()[goes]


def _any_of(pairs: pa.Table, contents: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(member(pairs["content_hash"], contents) | member(pairs["other_hash"], contents))


def _keys(pairs: pa.Table) -> NDArray[np.uint64]:
    """Of the other and of the first, (n, 4)."""
    return np.concatenate([halves(pairs["other_hash"]), halves(pairs["content_hash"])], axis=1)


def _listed(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of the pairs hold: each once, and of each other one the LISTED of the smallest firsts."""
    order = np.lexsort(keys.T[::-1])
    ordered = keys[order]
    once = first_of_run(ordered)
    order, ordered = order[once], ordered[once]
    starts = np.flatnonzero(first_of_run(ordered[:, :2]))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    listed = np.zeros(len(keys), dtype=bool)
    listed[order[rank < LISTED]] = True
    return listed
