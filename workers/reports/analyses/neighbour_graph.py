"""neighbours: of every chunk the contents nearest to its own."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.content.chunks import HASH
from pipelines.content.diff import member
from pipelines.fingerprint import whole
from storage.store.commit import Change
from storage.store.lance import scan_batches
from storage.store.spill import Spill, by_hash
from workers.observing.telling import Progress
from workers.reports.analysis import Findings, Study
from workers.reports.pairing.near import BLOCK_NUMBERS
from workers.reports.pairing.nearest import K, Searched, search
from workers.reports.pairing.neighbour_table import LINKS, NEIGHBOURS, listed_before, lists_of, settle_lists
from workers.reports.pairing.pair_table import as_hashes
from workers.reports.pairing.shelf import Shelf, Since, shelve

LEAST = 10
"""Neighbours that a list has at least: one that has lost more is searched again."""
SAMPLED = 200
"""Contents whose lists are held against all other contents."""
TIE = 1e-3
"""Cosines of float16 that differ by less may be equal."""


def study_neighbours(study: Study) -> Findings:
    """The 15 nearest contents of each, of which a list may have lost some: 10 at least, where there are so many.

    The table is brought up to the version: contents that are new are searched, and put into the lists of those that they are near to; what
    is gone drops out of all lists.
    """
    table = study.table("neighbours")
    stored = table.latest(NEIGHBOURS)
    with shelve(study.rows, study.version.vectors, study.atlas.size, listed_before(stored)) as shelf:
        change = _change(study, table.name, shelf, stored)
        number = table.commit(int(stored.version), change, study.run_id)
        summary = {"rows": int(shelf.copies.sum()), "contents": len(shelf), "k": K, **_figures(shelf, table.open(number))}
    return Findings(summary, tables={table.name: number})


def _change(study: Study, table: str, shelf: Shelf, stored: Any) -> Change:
    lists = lists_of(shelf, stored)
    asked = np.asarray((shelf.since != Since.KEPT) | ((lists.lengths < LEAST) & (shelf.landmark >= 0)))
    links = Spill(LINKS, by_hash("content_hash"))
    wanted, done = int((asked & (shelf.landmark >= 0)).sum()), 0
    for searched in search(shelf, study.version.vectors, asked, lists.last):
        done += len(searched.places)
        study.report(Progress("report", chunks=done, total=wanted))
        for found in _links(shelf, searched):
            links.add(found)
    again = Spill(pa.schema([("content_hash", HASH)]), by_hash("content_hash"))
    again.add(pa.table({"content_hash": as_hashes(shelf.hashes[asked])}))
    deleted = [np.zeros(0, np.uint64)]

    def coming() -> Iterator[pa.RecordBatch]:
        for rows, addresses in settle_lists(study.rows, stored, links, again, whole(shelf.gone["chunk_id"])):
            deleted.append(addresses)
            yield from rows.cast(NEIGHBOURS).to_batches()

    staged = study.version.collection.store.stage(table, NEIGHBOURS, coming())
    return Change(np.concatenate(deleted), staged)


def _links(shelf: Shelf, searched: Searched) -> Iterator[pa.Table]:
    """What was found, both ways."""
    row, column = np.nonzero(searched.near >= 0)
    yield _linked(shelf, searched.places[row], searched.near[row, column], searched.cosines[row, column])
    yield _linked(shelf, *searched.gains)


def _linked(shelf: Shelf, places: NDArray[np.int64], neighbours: NDArray[np.int64], cosines: NDArray[np.float32]) -> pa.Table:
    names = shelf.ids.take(pa.array(neighbours))
    return pa.table([as_hashes(shelf.hashes[places]), names, pa.array(cosines.astype(np.float16))], schema=LINKS)


def _figures(shelf: Shelf, lists: Any) -> dict[str, Any]:
    """What the lists are like, and how many of the nearest are in those of a sample."""
    sample = np.sort(np.argsort(shelf.hashes[:, 1])[:SAMPLED])  # not by the first half, by which landmarks are chosen
    hashes, found = as_hashes(shelf.hashes[sample]), dict[bytes, Any]()
    nearest, farthest, rows, short = 0.0, 0.0, 0, 0
    for part in scan_batches(lists, ["content_hash", "cosines"]):
        cosines = whole(part["cosines"])
        ends = np.concatenate([[0], np.cumsum(pc.list_value_length(cosines).to_numpy())])
        numbers = cosines.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        some = ends[1:] > ends[:-1]
        nearest, farthest = nearest + float(numbers[ends[:-1][some]].sum()), farthest + float(numbers[ends[1:][some] - 1].sum())
        rows, short = rows + int(some.sum()), short + int((np.diff(ends) < K).sum())
        for place in np.flatnonzero(member(part["content_hash"], hashes)).tolist():
            found[part["content_hash"][place].as_py()] = numbers[ends[place] : ends[place + 1]]
    recall = _recall(_exact(shelf, sample), [found[hash] for hash in hashes.to_pylist()])
    means = {"mean_nearest": nearest / rows, "mean_farthest": farthest / rows} if rows else {}
    return {"shorter_lists": short, **means, "recall": recall, "recall_of": len(sample)}


def _exact(shelf: Shelf, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """The cosines of the K nearest of some contents among all, (n, K), largest first; -inf where there are fewer."""
    wanted, best = shelf.vectors(places), np.full((len(places), K), -np.inf, np.float32)
    step = max(1, BLOCK_NUMBERS // max(1, shelf.stored.shape[1]))
    for begin in range(0, len(shelf), step):
        products = wanted @ shelf.vectors(slice(begin, begin + step)).T
        products[~np.isfinite(products) | (shelf.landmark[begin : begin + step] < 0)] = -np.inf
        within = np.flatnonzero((places >= begin) & (places < begin + step))
        products[within, places[within] - begin] = -np.inf
        best = -np.sort(-np.concatenate([best, products], axis=1), axis=1)[:, :K]
    return best


def _recall(exact: NDArray[np.float32], found: list[NDArray[np.float32]]) -> float | None:
    """The share of the K nearest that lists have, by cosines: of contents that are equally near any will do."""
    there = [row[np.isfinite(row)] for row in exact]
    hits = [min(int((cosines >= row[-1] - TIE).sum()), len(row)) for row, cosines in zip(there, found, strict=True) if len(row)]
    total = sum(map(len, there))
    return round(sum(hits) / total, 4) if total else None
