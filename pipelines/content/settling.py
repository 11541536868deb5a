"""Which rows hold once a corpus was read: each document is in one file, in one form, once. No I/O.

Readers of the corpus add the rows of every document that is new in its file, and ask nobody. Here it is settled what that makes of all
rows: two files may have a document of one id, a document may have moved, and a file may have been read twice after a crash.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pyarrow as pa

from pipelines.content.diff import member
from pipelines.fingerprint import whole


class Standing(IntEnum):
    """What a run knows of a file."""

    KEPT = 0
    """Unchanged, not opened: its rows are its documents."""
    READ = 1
    """Its documents were seen, and there are no others in it."""
    FAILED = 2
    """It could not be read to its end: what was stored of it stays, unless it was seen elsewhere."""
    GONE = 3


class Fate(IntEnum):
    """What became of a document."""

    ADDED = 0
    CHANGED = 1
    UNCHANGED = 2
    """In another file, maybe: then its rows are written anew, its vectors are not."""
    STALE = 3
    """Not seen: kept as it was, as the file that it is in could not be read."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What holds of some documents."""

    hold: np.ndarray
    """Whether each row stays: bool."""
    fates: np.ndarray
    """How many documents met each Fate, in its order: int64."""
    removed: int
    """Documents that had rows and have none now."""
    again: int
    """Old rows that go, and come back alike among the new."""
    losers: pa.Table
    """Documents left out for one of the same id: `doc_id`, `file`, and `holder`, the file of the one that holds."""
    stale: np.ndarray
    """The file of each document that is kept as it was, as its file could not be read: int32."""


def settle(rows: pa.Table, new: np.ndarray, seen: pa.Table, standing: np.ndarray, keep_last: bool) -> Settled:
    """Settle all documents whose rows or sightings are given.

    `rows`: `doc_key`, `doc_hash`, `row_hash`, `file` in any order; `new` (bool): which of them this run has added. `seen`: `doc_id`,
    `doc_key`, `doc_hash`, `file` in the order of reading. Files are numbers in path order, `standing` has the Standing of each.
    Of several documents of one id the first in file order holds, or the last.
    """
    keys = pa.concat_arrays([whole(seen["doc_key"]), whole(rows["doc_key"])]).dictionary_encode()
    codes = np.asarray(keys.indices, dtype=np.int64)
    seen_code, row_code = codes[: len(seen)], codes[len(seen) :]
    file = np.concatenate([seen["file"].to_numpy(), rows["file"].to_numpy()])
    hashes = np.concatenate([halves(seen["doc_hash"]), halves(rows["doc_hash"])])
    row_file, row_hash = file[len(seen) :], hashes[len(seen) :]

    winner = _winners(codes, file, len(seen), standing, keep_last, len(keys.dictionary))
    of_row = winner[row_code]
    agrees = (hashes[of_row] == row_hash).all(axis=1) & (of_row >= 0)
    hold = _once(rows["row_hash"], agrees & (file[of_row] == row_file))

    fates, removed = _count(winner, row_code[~new], agrees[~new], len(seen), standing[file[winner]])
    gone, back = ~hold & ~new, hold & new
    again = member(rows["row_hash"].filter(pa.array(back)), rows["row_hash"].filter(pa.array(gone))).sum() if back.any() else 0

    lost = np.flatnonzero(winner[seen_code] != np.arange(len(seen)))
    # A document of a file that was not opened, and that another file has taken over.
    taken = np.flatnonzero((standing[row_file] == Standing.KEPT) & (of_row >= 0) & (of_row < len(seen)))
    _, first = np.unique(row_code[taken] * len(standing) + row_file[taken], return_index=True)  # once for all its rows
    taken = taken[first]
    ids = np.concatenate([lost, of_row[taken]])
    losers = pa.table(
        {
            "doc_id": seen["doc_id"].take(pa.array(ids)),
            "file": pa.array(np.concatenate([file[lost], row_file[taken]])),
            "holder": pa.array(np.concatenate([file[winner[seen_code[lost]]], file[of_row[taken]]])),
        }
    )
    kept = winner[winner >= len(seen)]
    return Settled(hold, fates, removed, int(again), losers, file[kept[standing[file[kept]] == Standing.FAILED]])


def _winners(codes: np.ndarray, file: np.ndarray, seen: int, standing: np.ndarray, keep_last: bool, documents: int) -> np.ndarray:
    """For each document the sighting or row that holds, as a position in both together; -1 for none: int64."""
    place = np.arange(len(codes))
    trusted = (place < seen) | (standing[file] == Standing.KEPT) | (standing[file] == Standing.FAILED)
    candidates = np.flatnonzero(trusted)
    last_resort = (candidates >= seen) & (standing[file[candidates]] == Standing.FAILED)
    order = place[candidates], file[candidates]
    if keep_last:
        order = -order[0], -order[1]
    candidates = candidates[np.lexsort((*order, last_resort))]
    winner = np.full(documents, -1, dtype=np.int64)
    winner[codes[candidates][::-1]] = candidates[::-1]  # of repeated indices the last assignment stays
    return winner


def _once(hashes: pa.ChunkedArray, hold: np.ndarray) -> np.ndarray:
    """Of equal rows that hold only the first: a document may be in its file twice, word for word."""
    positions = np.flatnonzero(hold)
    codes = whole(hashes).take(pa.array(positions)).dictionary_encode()
    if len(codes.dictionary) < len(codes):
        _, first = np.unique(np.asarray(codes.indices), return_index=True)
        hold = np.zeros(len(hold), dtype=bool)
        hold[positions[first]] = True
    return hold


def _count(winner: np.ndarray, code: np.ndarray, agrees: np.ndarray, seen: int, standing: np.ndarray) -> tuple[np.ndarray, int]:
    """Documents by Fate, and those that went, by the old rows: their documents, and whether they agree with what holds now."""
    had, same = np.zeros(len(winner), dtype=bool), np.zeros(len(winner), dtype=bool)
    had[code] = True
    same[code[agrees]] = True
    sighted = (winner >= 0) & (winner < seen)
    last_resort = (winner >= seen) & (standing == Standing.FAILED)
    fates = np.array([(sighted & ~had).sum(), (sighted & had & ~same).sum(), (sighted & same).sum(), last_resort.sum()])
    return fates, int((had & (winner < 0)).sum())


def halves(hashes: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """16-byte hashes as two numbers each, in the order of the hashes: uint64, shape (n, 2)."""
    column = whole(hashes)
    if not len(column):
        return np.zeros((0, 2), dtype=np.uint64)
    both = np.frombuffer(column.buffers()[1], dtype=">u8")
    return both[2 * column.offset : 2 * (column.offset + len(column))].reshape(-1, 2).astype(np.uint64)


def file_numbers(paths: pa.Array | pa.ChunkedArray, numbers: Mapping[str, int]) -> np.ndarray:
    """The number of each of `paths` (string, or a dictionary of strings): int32."""
    column = whole(paths)
    codes = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
    known = np.array([numbers[path] for path in codes.dictionary.to_pylist()], dtype=np.int32)
    return np.asarray(known[np.asarray(codes.indices)])
