"""Hard gates: the rows of the chunk table and no others, vectors that can be compared, and that the model makes again of the same texts."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.fingerprint import digests
from pipelines.measures.gate import NAMED_ROWS, Gate, unmeasured
from pipelines.measures.quality import unit
from storage.reading.completeness import Health, chunk_ids, differences, draw, examine, usual_length
from storage.reading.neighbours import to_numpy
from storage.store.lance import SCAN_ROWS
from workers.judging.case import Case

ROWS = "rows"
"""Names the gate without which nothing is known of what a version lacks."""
RECOMPUTED = 200
"""Rows whose vectors are made again: one wrong in twenty is missed with a chance of .00004."""
RECOMPUTED_SHARE = 10
"""Of the rows of an update at most one in so many."""
OLDER = 32
"""Rows that passed before, and are made again with those of an update: a model that changed in silence agrees with what it makes now."""
UNIT_BAND = 1.01
"""The factor by which the length of a normalised vector may differ from 1: float16 rounds to within .0005."""
LENGTH_BAND = 10.0
"""The same for others, from their median."""
_REMADE = ["chunk_id", "text", "content_hash", "vector"]


def rows(case: Case) -> Iterator[Gate]:
    """The rows of the chunk table, each once, and no others."""
    chunks, vectors = case.version.chunks, case.version.vectors
    missing = surplus = 0
    named: list[str] = []
    if case.lacking not in ((0, 0, 0), case.excused):
        for lacking, extra in differences(chunks, vectors):
            for ids in _lacking(case, lacking):
                missing += len(ids)
                named += ids[: NAMED_ROWS - len(named)]
            surplus += len(extra)
            named += chunk_ids(vectors, extra[: NAMED_ROWS - len(named)])
    detail = f"{missing:,} chunks have no vector, {surplus:,} vectors have no chunk or are there twice"
    if not missing and not surplus:
        excused = f" but for {case.lacking[0]:,} dead letters" if case.lacking[0] else ""
        detail = f"{vectors.count_rows():,} rows, those of the chunk table{excused}"
    yield _hard(ROWS, missing + surplus, 0, missing + surplus == 0, detail, named)


def _lacking(case: Case, addresses: NDArray[np.uint64]) -> Iterator[list[str]]:
    """Chunk ids that have no vector and are no dead letters, some at a time."""
    for start in range(0, len(addresses), SCAN_ROWS):
        ids = chunk_ids(case.version.chunks, addresses[start : start + SCAN_ROWS])
        yield [chunk_id for chunk_id in ids if chunk_id not in case.failed]


def vectors(case: Case) -> Iterator[Gate]:
    """Of the new rows: "finite", that all components are numbers and not all zero, and "norms", that their lengths are alike."""
    table, normal = case.version.vectors, case.version.space["normalize"]
    usual = 1.0 if normal else usual_length(table)
    health = examine(table, case.new, usual, UNIT_BAND if normal else LENGTH_BAND, NAMED_ROWS)
    seen = f"of {health.rows:,} {case.scope}"
    band = "within .01 of 1" if normal else f"within a factor of {LENGTH_BAND:.0f} of the median, {usual:.3g}"
    broken = f"{health.broken:,} {seen} are zero, infinite or no number"
    yield _hard("finite", health.broken, 0, not health.broken, broken, _ids(case, health.broken_rows))
    yield _hard("norms", health.out_of_band, 0, not health.out_of_band, _norms(health, seen, band), _ids(case, health.band_rows))


def _norms(health: Health, seen: str, band: str) -> str:
    return f"{health.out_of_band:,} {seen} have a length that is not {band}; the worst is off by a factor of {1 + health.worst:.3f}"


def _ids(case: Case, addresses: list[int]) -> list[str]:
    return chunk_ids(case.version.vectors, np.array(addresses, np.uint64))


def recomputed(case: Case) -> Iterator[Gate]:
    """Committed vectors, beside those that are new a few that are not, against those that the model makes of the same texts now."""
    least = case.spec.gates.min_cosine
    if not case.new_rows:
        yield unmeasured("recomputed", "hard", least, f"not measured: no row is new since version {case.since}, which passed")
        return
    count = RECOMPUTED if case.passed is None else min(RECOMPUTED, max(1, case.new_rows // RECOMPUTED_SHARE))
    new = draw(case.new, count, _REMADE, seed=case.version.number)
    older = draw(case.old, OLDER, _REMADE, seed=case.version.number) if case.old else new.slice(0, 0)
    sample = pa.concat_tables([new, older])
    cosines = _again(case, sample)
    order = np.argsort(cosines, kind="stable")
    wrong = order[: int((cosines < least).sum())]
    seen = f"{len(new):,} {case.scope}" + (f" and {len(older):,} older ones" if case.old else "")
    detail = f"{len(wrong):,} of {seen} have a cosine below {least:g} to what the model makes of their texts"
    named = sample["chunk_id"].take(pa.array(wrong[:NAMED_ROWS])).to_pylist()
    yield _hard("recomputed", float(cosines.min()), least, not len(wrong), detail, named)


def _again(case: Case, sample: pa.Table) -> NDArray[np.float32]:
    """The cosine of each stored vector to one that is made again; -1 where a row's text is not the one that it is known by."""
    texts = sample["text"].combine_chunks()
    stored = unit(to_numpy(sample["vector"].combine_chunks()))
    made = unit(case.encoding.encode(texts.to_pylist(), "document"))
    genuine = np.asarray(pc.equal(digests(texts), sample["content_hash"].combine_chunks()), dtype=bool)
    cosines: NDArray[np.float32] = np.nan_to_num((stored * made).sum(axis=1), nan=-1.0)
    return np.where(genuine, cosines, np.float32(-1))


def letters(case: Case) -> Iterator[Gate]:
    """Documents that could not be read or embedded, as a share (0 to 1) of all."""
    most = case.spec.gates.max_failed
    if case.lost is None:
        yield unmeasured("dead letters", "hard", most, "not measured: the run that made the version did not count documents")
        return
    lost, total = case.lost
    remedy = f"`revector status {case.version.collection}` lists them; mend them, or raise gates.max_failed"
    named = sorted(case.failed)[:NAMED_ROWS]
    yield _share("dead letters", lost, total, "documents could not be read or embedded", "max_failed", most, remedy, named)


def removed(case: Case) -> Iterator[Gate]:
    """Documents that readers have and that the version has not, as a share (0 to 1) of those that they have."""
    most = case.spec.gates.max_removed
    if case.removed is None:
        yield unmeasured("removed", "hard", most, "not measured: there is nothing that readers have beside it")
        return
    gone, had = case.removed
    remedy = "is the source what it should be? `apply --allow-removal` confirms it"
    yield _share("removed", gone, had, "documents that readers have are gone", "max_removed", most, remedy)


def _share(name: str, part: int, whole: int, what: str, key: str, most: float, remedy: str, named: Sequence[str] = ()) -> Gate:
    share = part / whole if whole else 0.0
    detail = f"{part:,} of {whole:,} {what}: {share:.2%}, at most {most:.2%} (gates.{key})"
    return _hard(name, share, most, share <= most, detail if share <= most else f"{detail}: {remedy}", named)


def _hard(name: str, value: float, threshold: float, passed: bool, detail: str, named: Sequence[str]) -> Gate:
    return Gate(name, "hard", float(value), threshold, bool(passed), detail, tuple(named))
