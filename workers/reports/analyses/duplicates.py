"""duplicates: contents that several chunks have, and pairs of contents that are nearly the same."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.content.diff import member
from pipelines.content.settling import halves
from pipelines.errors import NotFound
from pipelines.spec.reports import DuplicatesOptions
from storage.reports.kept_reports import kept_reports
from storage.reports.report_table import ReportTable
from storage.store.commit import Change
from storage.store.lance import ROW_ADDRESS, scan_batches
from storage.store.spill import Spill, by_hash
from workers.reports.analysis import Findings, Study
from workers.reports.pairing.near import LISTED, Cells, cells_of, joined, pairs_in
from workers.reports.pairing.pair_table import PAIRS, as_hashes, pair_rows, settle_pairs, shortened
from workers.reports.pairing.shelf import Shelf, Since, earlier_rows, shelve
from workers.reports.pairing.stars import stars

PAIRS_SHOWN = 1000
GROUPS_SHOWN = 100


def study_duplicates(study: Study) -> Findings:
    """Exact duplicates by hash; near ones by the cosine of contents that have one of their two landmarks in common.

    The table of pairs is brought up to the version: contents that are new are compared, pairs of contents that are gone go.
    """
    options = study.options
    assert isinstance(options, DuplicatesOptions)
    table = study.table("pairs")
    stored = table.latest(PAIRS)
    before = _rows_of(study, table, int(stored.version))
    with shelve(study.rows, study.version.vectors, study.atlas.size, earlier_rows(before)) as shelf:
        cells = cells_of(shelf, joined(study.atlas))
        known = None if before is None else stored
        change = _change(study, table, cells, stored, known, options.min_cosine)
        number = table.commit(int(stored.version), change, study.run_id)
        near = {"min_cosine": options.min_cosine, **_near(table.open(number))}
        summary = {"rows": int(shelf.copies.sum()), "contents": len(shelf), "exact": _exact(shelf), "near": near, "capped": _capped(cells)}
    return Findings(summary, tables={table.name: number, _rows_name(study): int(study.rows.version)})


def _rows_name(study: Study) -> str:
    return ReportTable(study.version.collection, study.version.generation, f"a{study.atlas.number}").name


def _rows_of(study: Study, table: ReportTable, number: int) -> Any:
    """The rows that version `number` of the table of pairs is of; None where no record tells, or they are no longer kept."""
    version, rows = study.version, _rows_name(study)
    for kept in reversed(kept_reports(version.collection, version.generation, "duplicates")):
        if kept.options == study.options.model_dump(mode="json") and kept.tables.get(table.name) == number and rows in kept.tables:
            try:
                return version.collection.store.open(rows, kept.tables[rows])
            except NotFound:
                continue
    return None


def _change(study: Study, table: ReportTable, cells: Cells, stored: Any, known: Any, least: float) -> Change:
    """What makes of the pairs that are stored those of the version. `known`: the same; None if it is not known what they are of."""
    new, outdated = _to_compare(cells, known)
    found = Spill(PAIRS, by_hash("other_hash"))
    for first, other, cosine in pairs_in(cells, cells.around(new), new, least):
        found.add(pair_rows(cells.shelf, first, other, cosine))
    deleted = [np.zeros(0, np.uint64)]

    def coming() -> Iterator[pa.RecordBatch]:
        for rows, addresses in settle_pairs(found, stored, outdated):
            deleted.append(addresses)
            yield from rows.to_batches()

    staged = study.version.collection.store.stage(table.name, PAIRS, coming())
    return Change(np.concatenate(deleted), staged)


def _to_compare(cells: Cells, known: Any) -> tuple[NDArray[np.bool_], pa.Array | None]:
    """Whether each content is compared to all others, and the contents of which no stored pair holds; None for all."""
    shelf = cells.shelf
    new = np.asarray(shelf.since != Since.KEPT)
    if known is None:
        return new, None
    gone = shelf.gone.filter(pa.array(~shelf.gone["there"].to_numpy()))["content_hash"].combine_chunks()
    new |= cells.having(cells.renewed)
    new |= _on_shelf(shelf, shortened(known, gone))
    return new, pa.concat_arrays([as_hashes(shelf.hashes[new]), gone])


def _on_shelf(shelf: Shelf, contents: pa.Array) -> NDArray[np.bool_]:
    return member(as_hashes(shelf.hashes), contents) if len(contents) else np.zeros(len(shelf), bool)


def _exact(shelf: Shelf) -> dict[str, Any]:
    """Contents that several chunks have: of the largest groups the smallest chunk id, and how many there are."""
    several = np.flatnonzero(shelf.copies > 1)
    copies, hashes = shelf.copies[several], shelf.hashes[several]
    shown = several[np.lexsort((hashes[:, 1], hashes[:, 0], -copies))[:GROUPS_SHOWN]]
    ids = shelf.ids.take(pa.array(shown)).to_pylist()
    top = [{"chunk_id": id, "rows": rows} for id, rows in zip(ids, shelf.copies[shown].tolist(), strict=True)]
    return {"groups": len(several), "rows": int(copies.sum()), "largest": top}


def _near(pairs: Any) -> dict[str, Any]:
    """Pairs and their groups; the pairs to look at, nearest first."""
    best, ends = PAIRS.empty_table(), [np.zeros((0, 2), np.uint64)]
    for rows in scan_batches(pairs, PAIRS.names):
        ends.append(np.stack([halves(rows[name])[:, 0] for name in PAIRS.names[3:]], axis=1))
        best = pa.concat_tables([best, rows.drop_columns([ROW_ADDRESS]).cast(PAIRS)])
        best = best.sort_by([("cosine", "descending"), ("chunk_id", "ascending"), ("other", "ascending")]).slice(0, PAIRS_SHOWN)
    first, other = np.concatenate(ends).T
    groups = stars(first, other)
    largest = np.lexsort((groups.centres, -groups.sizes))[:GROUPS_SHOWN]
    return {
        "pairs": len(first),
        "contents": len(np.unique(np.concatenate([first, other]))),
        "groups": len(groups.sizes),
        "grouped": int(groups.sizes.sum()),
        "largest": _named(pairs, groups.centres[largest], groups.sizes[largest]),
        "full_lists": int((np.unique(other, return_counts=True)[1] >= LISTED).sum()),
        "nearest": best.select(PAIRS.names[:3]).to_pylist(),
    }


def _named(pairs: Any, centres: NDArray[np.uint64], sizes: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Groups by the chunk that is their centre, which is the first of a pair."""
    names: dict[int, str] = {}
    for rows in scan_batches(pairs, ["chunk_id", "content_hash"]):
        keys = halves(rows["content_hash"])[:, 0]
        some = np.isin(keys, centres)
        names |= dict(zip(keys[some].tolist(), rows["chunk_id"].filter(pa.array(some)).to_pylist(), strict=True))
    return [{"chunk_id": names[centre], "contents": size} for centre, size in zip(centres.tolist(), sizes.tolist(), strict=True)]


def _capped(cells: Cells) -> dict[str, int]:
    """Cells with so many contents that not all of them were compared to all."""
    return {"cells": int(cells.capped.sum()), "contents": int(cells.sizes[cells.capped].sum())}
