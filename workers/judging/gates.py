"""The gates: what a version must show before readers get it.

hard         the rows of its chunk table and no others, vectors that can be compared, and that the model makes again of the same texts
promotion    it finds what exact search finds, what readers found before, and what people say is right
information  nothing depends on it

Of a version that follows one that passed, only what is new is looked at, so that an update costs what it changes.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.errors import ModelError, NotFound
from pipelines.fingerprint import digests
from pipelines.measures.gate import NAMED_ROWS, Gate, GateKind
from pipelines.measures.quality import TOP, unit
from storage.history.catalog import Publication
from storage.reading.completeness import Health, checksum, chunk_ids, differences, draw, examine, fragments_since, usual_length
from storage.reading.neighbourhoods import compare_neighbourhoods
from storage.reading.neighbours import sample, search_recall, to_numpy
from storage.sources.labelled import Labelled, load_labelled
from storage.store.lance import ROW_ADDRESS, SCAN_ROWS
from storage.tables.index import probes
from workers.embedding.encoding import Encoding
from workers.judging.ranking import Ranking, held_labels, rank
from workers.planning.known_models import Subject, published_subject
from workers.planning.target import Target

RECOMPUTED = 200
"""Rows whose vectors are made again: one wrong in twenty is missed with a chance of .00004."""
RECOMPUTED_SHARE = 10
"""Of the rows of an update at most one in so many."""
UNIT_BAND = 1.01
"""The factor by which the length of a normalised vector may differ from 1: float16 rounds to within .0005."""
LENGTH_BAND = 10.0
"""The same for others, from their median."""
INDEX_QUERIES = 100
GROWN = 0.05
"""The share of new rows from which on an update is judged like a new generation where that takes a look at the whole table."""
MEANINGLESS = "not measured: the stand-in's vectors mean nothing"
NDCG, RECALL = f"ndcg@{TOP}", f"recall@{TOP}"


def judge(
    target: Target,
    version: int,
    chunk_version: int,
    *,
    encoding: Encoding,
    published: Publication | None,
    since: int | None,
    failed: Collection[str],
    dead: int,
) -> list[Gate]:
    """Hold `version` of the target's vectors table against its gates.

    `chunk_version`: of the chunk table, which it should match row by row but for `failed`, the chunk ids that have no vector.
    `published`: what readers have now. `since`: the version of this generation that passed last; None: all is new.
    `dead`: dead letters of all kinds. Raises SpecError for a file of queries that cannot be read.
    """
    name, chunks = target.generation.name, target.chunk_table.name
    subject = Subject(target.store, target.spec, name, version, chunks, chunk_version, (target.model,), target.model.spec.model_dump())
    served = published_subject(target.store, target.spec, published, (target.model, *target.candidates)) if published else None
    return Judgement(subject, served, encoding, since, frozenset(failed), dead).gates()


@dataclass(frozen=True)
class Judgement:
    """One version before its gates."""

    subject: Subject
    served: Subject | None
    """What readers have."""
    encoding: Encoding
    """Of the subject's model."""
    since: int | None
    """The version that passed last."""
    failed: frozenset[str]
    dead: int

    def gates(self) -> list[Gate]:
        """All of them, in the order in which they are told."""
        return [self._rows(), *self._vectors(), self._recomputed(), self._letters(), self._index(), self._overlap(), *self._labelled()]

    @cached_property
    def _new(self) -> list[Any]:
        """The fragments that no version had that passed."""
        return fragments_since(self.subject.vectors, self._passed)

    @cached_property
    def _passed(self) -> Any:
        """The table at the version that passed last; None if there is none, or it was cleaned up."""
        try:
            return None if self.since is None else self.subject.store.open(self.subject.generation, self.since)
        except NotFound:
            return None

    @cached_property
    def _new_rows(self) -> int:
        return sum(fragment.count_rows() for fragment in self._new)

    @property
    def _settled(self) -> str:
        """Why what takes a look at the whole table need not be measured again; nothing if it must."""
        rows = self.subject.vectors.count_rows()
        if self._passed is None or self._new_rows > GROWN * rows:
            return ""
        return f"not measured again: {self._new_rows:,} of {rows:,} rows are new since version {self.since}, which passed"

    def _rows(self) -> Gate:
        """The rows of the chunk table, each once, and no others."""
        chunks, vectors = self.subject.chunks, self.subject.vectors
        missing = surplus = 0
        named: list[str] = []
        if checksum(chunks) != checksum(vectors):
            for lacking, extra in differences(chunks, vectors):
                for ids in self._lacking(lacking):
                    missing += len(ids)
                    named += ids[: NAMED_ROWS - len(named)]
                surplus += len(extra)
                named += chunk_ids(vectors, extra[: NAMED_ROWS - len(named)])
        detail = f"{missing:,} chunks have no vector, {surplus:,} vectors have no chunk or are there twice"
        if not missing and not surplus:
            excused = f" but for {len(self.failed):,} dead letters" if self.failed else ""
            detail = f"{vectors.count_rows():,} rows, those of the chunk table{excused}"
        return _gate("rows", "hard", missing + surplus, 0, missing + surplus == 0, detail, named)

    def _lacking(self, addresses: NDArray[np.uint64]) -> Iterator[list[str]]:
        """Chunk ids that have no vector and are no dead letters, some at a time."""
        for start in range(0, len(addresses), SCAN_ROWS):
            ids = chunk_ids(self.subject.chunks, addresses[start : start + SCAN_ROWS])
            yield [chunk_id for chunk_id in ids if chunk_id not in self.failed]

    def _vectors(self) -> list[Gate]:
        """Numbers, and lengths, of the new rows."""
        vectors, normal = self.subject.vectors, self.subject.space["normalize"]
        usual = 1.0 if normal else usual_length(vectors)
        health = examine(vectors, self._new, usual, UNIT_BAND if normal else LENGTH_BAND, NAMED_ROWS)
        told = f"of {health.rows:,} {self._looked_at}"
        band = "within .01 of 1" if normal else f"within a factor of {LENGTH_BAND:.0f} of the median, {usual:.3g}"
        return [
            self._health("finite", health.broken, health.broken_rows, f"{health.broken:,} {told} are zero, infinite or no number"),
            self._health("norms", health.out_of_band, health.band_rows, _norms(health, told, band)),
        ]

    @property
    def _looked_at(self) -> str:
        return "vectors" if self._passed is None else f"vectors that are new since version {self.since}"

    def _health(self, name: str, count: int, rows: list[int], detail: str) -> Gate:
        return _gate(name, "hard", count, 0, count == 0, detail, chunk_ids(self.subject.vectors, np.array(rows, np.uint64)))

    def _recomputed(self) -> Gate:
        """Committed vectors against those that the model makes of the same texts now."""
        least = self.subject.spec.gates.min_cosine
        if not self._new_rows:
            return _unmeasured("recomputed", "hard", least, f"not measured: no row is new since version {self.since}, which passed")
        count = RECOMPUTED if self._passed is None else min(RECOMPUTED, max(1, self._new_rows // RECOMPUTED_SHARE))
        rows = draw(self._new, count, ["chunk_id", "text", "content_hash", "vector"], seed=self.subject.version)
        cosines = self._again(rows)
        order = np.argsort(cosines, kind="stable")
        wrong = order[: int((cosines < least).sum())]
        detail = f"{len(wrong):,} of {len(rows):,} {self._looked_at} have a cosine below {least:g} to what the model makes of their texts"
        named = rows["chunk_id"].take(pa.array(wrong[:NAMED_ROWS])).to_pylist()
        return _gate("recomputed", "hard", float(cosines.min()), least, not len(wrong), detail, named)

    def _again(self, rows: pa.Table) -> NDArray[np.float32]:
        """The cosine of each stored vector to one that is made again; -1 where a row's text is not the one that it is known by."""
        texts = rows["text"].combine_chunks()
        stored = unit(to_numpy(rows["vector"].combine_chunks()))
        made = unit(self.encoding.encode(texts.to_pylist(), "document"))
        genuine = np.asarray(pc.equal(digests(texts), rows["content_hash"].combine_chunks()), dtype=bool)
        cosines: NDArray[np.float32] = np.nan_to_num((stored * made).sum(axis=1), nan=-1.0)
        return np.where(genuine, cosines, np.float32(-1))

    def _letters(self) -> Gate:
        """Dead letters, as a share of what there is to embed."""
        most, total = self.subject.spec.gates.max_failed, self.subject.chunks.count_rows() + self.dead
        share = self.dead / total if total else 0.0
        detail = f"{self.dead:,} dead letters of {total:,}: {share:.2%}, at most {most:.2%} (gates.max_failed)"
        return _gate("dead letters", "hard", share, most, share <= most, detail, sorted(self.failed)[:NAMED_ROWS])

    def _index(self) -> Gate:
        """A reader's search against exact search."""
        least, vectors = self.subject.spec.gates.min_index_recall, self.subject.vectors
        if probes(vectors) is None:
            return _unmeasured("index recall", "promotion", least, "not measured: there is no index, every search is exact")
        if self.subject.meaningless:
            return _unmeasured("index recall", "promotion", least, MEANINGLESS)
        if self._settled and probes(self._passed) is not None:
            return _unmeasured("index recall", "promotion", least, self._settled)
        places = sample(vectors, INDEX_QUERIES)[ROW_ADDRESS].to_numpy()
        recall = search_recall(vectors, places, TOP)
        detail = f"recall@{TOP} {recall:.3f} against exact search, of {len(places)} stored vectors; at least {least:g}"
        return _gate("index recall", "promotion", recall, least, recall >= least, detail)

    def _overlap(self) -> Gate:
        """Nearest neighbours in common with what readers have."""
        limits = self.subject.spec.gates
        why = self._not_comparable or self._settled
        if why or self.served is None:
            return _unmeasured("overlap", "promotion", None, why)
        found = compare_neighbourhoods(self.served.vectors, self.subject.vectors)
        same = self.served.space["id"] == self.subject.space["id"] and found.by == "content_hash"
        least = limits.min_overlap if same else limits.min_overlap_changed
        if found.mean is None:
            return _unmeasured("overlap", "promotion", least, f"not measured: nothing is shared with {self.served.generation}")
        what = "contents" if found.by == "content_hash" else "documents"
        beside = f"version {self.served.version} of {self.served.generation}"
        detail = f"overlap@{TOP} {found.mean:.3f} with {beside}, of {len(found.each)} {what}; at least {least:g}"
        return _gate("overlap", "promotion", found.mean, least, found.mean >= least, detail)

    @property
    def _not_comparable(self) -> str:
        """Why there are no neighbourhoods to compare; nothing if there are."""
        if self.served is None:
            return "not measured: nothing is published to compare with"
        if self.served.generation == self.subject.generation:
            return "not measured: readers have this generation already"
        if self.served.meaningless or self.subject.meaningless:
            return MEANINGLESS
        return ""

    def _labelled(self) -> list[Gate]:
        """How labelled queries are answered, beside how they are answered now."""
        limits = self.subject.spec.gates
        if limits.queries is None:
            return [_unmeasured(NDCG, "promotion", limits.min_ndcg, "not measured: gates.queries names no labelled queries")]
        labelled = load_labelled(limits.queries)
        labels = held_labels(self.subject, labelled)
        if not labels:
            why = f"not measured: the version holds no document that {limits.queries} names"
            return [_unmeasured(NDCG, "promotion", limits.min_ndcg, why)]
        ranking, before = rank(self.subject, labelled, labels, self.encoding), self._before(labelled, labels)
        allowed = None if isinstance(before, str) else before.mean("ndcg") - limits.max_ndcg_drop
        least = max((bound for bound in (limits.min_ndcg, allowed) if bound is not None), default=None)
        ndcg, recall = ranking.mean("ndcg"), ranking.mean("recall")
        told = f" of the {len(labels):,} of {len(labelled):,} labelled queries that have a relevant document here; "
        return [
            _gate(NDCG, "promotion", ndcg, least, least is None or ndcg >= least, f"{ndcg:.3f}{told}{_beside(before, 'ndcg')}"),
            _gate(RECALL, "information", recall, None, True, f"{recall:.3f}{told}{_beside(before, 'recall')}"),
        ]

    def _before(self, labelled: Sequence[Labelled], labels: Mapping[int, frozenset[str]]) -> Ranking | str:
        """How what readers have answers the same, or why that is not known."""
        if self.served is None:
            return "nothing is published to compare with"
        if (self.served.generation, self.served.version) == (self.subject.generation, self.subject.version):
            return "readers have this version"
        try:
            with Encoding(self.served) as encoding:
                return rank(self.served, labelled, labels, encoding)
        except ModelError as error:
            return f"what readers have was not measured: {error}"


def _beside(before: Ranking | str, measure: str) -> str:
    return before if isinstance(before, str) else f"what readers have: {before.mean(measure):.3f}"


def _norms(health: Health, told: str, band: str) -> str:
    return f"{health.out_of_band:,} {told} have a length that is not {band}; the worst is off by a factor of {1 + health.worst:.3f}"


def _gate(name: str, kind: GateKind, value: float, threshold: float | None, passed: bool, detail: str, rows: Sequence[str] = ()) -> Gate:
    return Gate(name, kind, float(value), threshold, bool(passed), detail, tuple(rows))


def _unmeasured(name: str, kind: GateKind, threshold: float | None, why: str) -> Gate:
    """Said aloud: it passes because there is nothing against it, not because it was looked at."""
    return Gate(name, kind, None, threshold, True, why)
