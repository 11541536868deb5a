"""The table of neighbours: lists that lose what is gone, gain what is new, and are the same for all copies of a content."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.content.chunks import HASH
from pipelines.content.diff import member
from pipelines.content.settling import halves
from pipelines.fingerprint import whole
from storage.store.lance import ROW_ADDRESS, scan_batches
from storage.store.spill import Spill, by_hash, matched
from workers.reports.pairing.nearest import K
from workers.reports.pairing.shelf import EARLIER, Register, Shelf, first_of_run

NEIGHBOURS = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("row_hash", HASH, nullable=False),
        pa.field("content_hash", HASH, nullable=False),
        pa.field("neighbours", pa.list_(pa.string()), nullable=False),
        pa.field("cosines", pa.list_(pa.float16()), nullable=False),
    ]
)
"""Of each row the other contents that are nearest to its own, best first, each by the smallest of its chunk ids. Its copies are none."""
LINKS = pa.schema([("content_hash", HASH), ("neighbour", pa.string()), ("cosine", pa.float16())])
"""A content, and one that is near to it."""
_ROWS = NEIGHBOURS.names[:3]


@dataclass(frozen=True, slots=True)
class Lists:
    """What is stored of the contents of a shelf, less what is gone: a number each."""

    lengths: NDArray[np.int8]
    """Neighbours that are left; 0 for a content that has no list."""
    last: NDArray[np.float32]
    """The smallest of their cosines; inf for a content that has no list."""


def listed_before(stored: Any) -> Spill:
    """What `shelve` wants to know of the rows that have lists."""
    spill = Spill(EARLIER, by_hash("content_hash"))
    for rows in scan_batches(stored, ["content_hash", "chunk_id"]):
        nowhere = pa.array(np.full(len(rows), -1, np.int32))
        spill.add(rows.append_column("landmark", nowhere).append_column("second", nowhere))
    return spill


def lists_of(shelf: Shelf, stored: Any) -> Lists:
    """By one pass over the table."""
    lengths, last = np.zeros(len(shelf), np.int8), np.full(len(shelf), np.inf, np.float32)
    register, gone = Register(shelf), whole(shelf.gone["chunk_id"])
    for rows in scan_batches(stored, ["content_hash", "neighbours", "cosines"]):
        places = register.places(rows["content_hash"])
        owner, _, cosine = _links(rows, gone)
        lengths[places[places >= 0]] = np.bincount(owner, minlength=len(rows))[places >= 0]
        ends = np.append(owner[1:] != owner[:-1], True)[: len(owner)]
        there = ends & (places[owner] >= 0)
        last[places[owner[there]]] = cosine[there]
    return Lists(lengths, last)


def _links(rows: pa.Table, gone: pa.Array) -> tuple[NDArray[np.int64], pa.Array, NDArray[np.float16]]:
    """What is in the lists of rows, without those that are gone: the row's number, the neighbour, its cosine."""
    lists = whole(rows["neighbours"])
    owner, names = pc.list_parent_indices(lists).to_numpy(), pc.list_flatten(lists)
    cosine = pc.list_flatten(whole(rows["cosines"])).to_numpy(zero_copy_only=False)
    there = ~member(names, gone)
    return owner[there], names.filter(pa.array(there)), cosine[there]


def settle_lists(wanted: Any, stored: Any, links: Spill, searched: Spill, gone: pa.Array) -> Iterator[tuple[pa.Table, NDArray[np.uint64]]]:
    """The rows that come, and the addresses of those that go, some at a time.

    `wanted`: all rows of the version. `stored`: the table as it is. `links`: LINKS to add, by `content_hash`. `searched`: contents whose
    stored lists do not hold, by `content_hash`. `gone`: chunks that are nobody's neighbours any more.
    """
    rows, lists = Spill(pa.schema([NEIGHBOURS.field(name) for name in _ROWS]), by_hash("content_hash")), _stored(stored)
    for part in scan_batches(wanted, _ROWS):
        rows.add(part)
    for now, old, new, anew in matched(rows, lists, links, searched):
        yield _settled(now, old, new, anew, gone)


def _stored(stored: Any) -> Spill:
    spill = Spill(pa.schema([*NEIGHBOURS, (ROW_ADDRESS, pa.uint64())]), by_hash("content_hash"))
    for rows in scan_batches(stored, NEIGHBOURS.names):
        spill.add(rows)
    return spill


def _settled(now: pa.Table, old: pa.Table, new: pa.Table, anew: pa.Table, gone: pa.Array) -> tuple[pa.Table, NDArray[np.uint64]]:
    lost = pc.list_parent_indices(whole(old["neighbours"])).filter(pa.array(member(pc.list_flatten(whole(old["neighbours"])), gone)))
    changed = pa.concat_arrays([whole(part["content_hash"]) for part in (new, anew, old.take(lost.unique()))]).unique()
    comes = ~member(now["row_hash"], old["row_hash"]) | member(now["content_hash"], changed)
    goes = ~member(old["row_hash"], now["row_hash"]) | member(old["content_hash"], changed)
    rows = now.filter(pa.array(comes))
    contents = whole(rows["content_hash"]).unique()
    holds = member(old["content_hash"], contents) & ~member(old["content_hash"], whole(anew["content_hash"]))
    made = _joined(contents, _one_each(old.filter(pa.array(holds))), new, gone)
    order = pc.index_in(rows["content_hash"], contents)
    return rows.append_column("neighbours", made[0].take(order)).append_column("cosines", made[1].take(order)), old[ROW_ADDRESS].to_numpy()[
        goes
    ]


def _one_each(rows: pa.Table) -> pa.Table:
    """One row of each content: all have the same list."""
    rows = rows.sort_by("content_hash").combine_chunks()
    return rows.filter(pa.array(first_of_run(halves(rows["content_hash"]))))


def _joined(contents: pa.Array, old: pa.Table, new: pa.Table, gone: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The lists of `contents`, (n,) each: of what was in them and what is new the K nearest, each once."""
    owner, names, cosine = _links(old, gone)
    new = new.filter(pa.array(member(new["content_hash"], contents)))
    whose = pc.index_in(pa.concat_arrays([whole(old["content_hash"]).take(pa.array(owner)), whole(new["content_hash"])]), contents)
    links = pa.table(
        {
            "content": whose,
            "neighbour": pa.concat_arrays([names, whole(new["neighbour"])]),
            "cosine": np.concatenate([cosine, new["cosine"].to_numpy()]).astype(np.float32),
        }
    )
    best = [("content", "ascending"), ("cosine", "descending"), ("neighbour", "ascending")]
    links = (
        links.group_by(["content", "neighbour"])
        .aggregate([("cosine", "max")])
        .rename_columns(["content", "neighbour", "cosine"])
        .sort_by(best)
    )
    content = links["content"].to_numpy()
    starts = np.searchsorted(content, np.arange(len(contents) + 1))
    kept = links.filter(pa.array(np.arange(len(content)) - starts[content] < K))
    offsets = pa.array(np.concatenate([[0], np.cumsum(np.minimum(np.diff(starts), K))]), pa.int32())
    cosines = pa.array(kept["cosine"].to_numpy().astype(np.float16))
    return pa.ListArray.from_arrays(offsets, whole(kept["neighbour"])), pa.ListArray.from_arrays(offsets, cosines)
