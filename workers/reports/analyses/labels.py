"""labels: labels for all chunks, from those of a few."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.content.chunks import HASH
from pipelines.errors import SpecError
from pipelines.fingerprint import DIGEST_BYTES, fingerprint
from pipelines.measures.labelling import Labeller, fit_labeller
from pipelines.measures.quality import unit
from pipelines.spec.reports import LabelsOptions
from storage.reading.neighbours import to_numpy, vectors_at
from storage.reports.report_table import ReportTable
from storage.store.commit import Change
from storage.store.lance import ROW_ADDRESS, scan_batches, take
from storage.tables.version import Version
from workers.observing.telling import Progress
from workers.reports.analysis import Findings, Study
from workers.reports.beside import SHARD_ROWS, differences
from workers.reports.given import given_labels

SEEDS = 10_000
"""Labelled rows that are learned from: those of the smallest contents, where there are more."""
MOST = 1_000
"""Labels that a summary lists."""
LABELLED = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("content_hash", HASH, nullable=False),
        pa.field("row_hash", HASH, nullable=False),
        pa.field("label", pa.string()),
        pa.field("confidence", pa.float32(), nullable=False),
    ]
)
"""Of each row the label that is suggested, null where none is likely enough, and how likely it is held to be."""
_READ = ["chunk_id", "doc_id", "content_hash", "row_hash", "vector"]


def study_labels(study: Study) -> Findings:
    """Suggest a label for each row, and keep them in a table. Raises SpecError without a file of labels, or where nothing of it is here."""
    options = study.options
    assert isinstance(options, LabelsOptions)
    if "seeds" not in study.files:
        raise SpecError("reports.labels.seeds: expected a CSV or JSON lines file with id and label of some documents, found none")
    given = given_labels("reports.labels.seeds", study.files["seeds"])
    seeds = _seeds(study.version, given)
    if not len(seeds):
        raise SpecError(f"reports.labels.seeds: expected ids of documents or chunks of {study.version}, found none of its {len(given):,}")
    names = sorted({*seeds["label"].to_pylist()})
    codes = pc.index_in(seeds["label"], pa.array(names)).to_numpy().astype(np.intp)
    labeller = fit_labeller(unit(vectors_at(study.version.vectors, seeds[ROW_ADDRESS].to_numpy())), codes, len(names))
    hand = Hand(labeller, pa.array(names), given, options.min_confidence)
    table, number = _follow(study, hand)
    counts = _counted(table.open(number))
    rows, suggested = sum(counts.values()), sorted(names, key=lambda name: (-counts[name], name))
    summary = {
        "seeds": len(seeds),
        "unused_ids": len(given.keys() - {*seeds["chunk_id"].to_pylist(), *seeds["doc_id"].to_pylist()}),
        "labels": len(names),
        "way": labeller.way,
        "accuracy": labeller.accuracy,
        "rows": rows,
        "unlabelled": counts[None],
        "suggested": [{"label": name, "rows": counts[name]} for name in suggested[:MOST]],
        "table": table.name,
    }
    return Findings(summary, tables={table.name: number})


@dataclass(frozen=True)
class Hand:
    """What puts labels on rows."""

    labeller: Labeller
    names: pa.Array
    """Of its labels."""
    given: Mapping[str, str]
    """What people said, by document or chunk: it stays."""
    least: float
    """Confidence."""

    @property
    def identity(self) -> str:
        """Of all that decides the label of a vector."""
        numbers = np.concatenate([self.labeller.weights.ravel(), self.labeller.offsets]).tobytes()
        said = {"names": self.names.to_pylist(), "given": sorted(self.given.items()), "least": self.least}
        return fingerprint({"numbers": blake2b(numbers, digest_size=DIGEST_BYTES).hexdigest(), **said})[:12]

    def label(self, rows: pa.Table) -> pa.Table:
        """LABELLED, of rows with _READ. One without a direction gets no label but one that was given."""
        vectors = unit(to_numpy(rows["vector"].combine_chunks()))
        known: NDArray[np.bool_] = np.asarray(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1))
        codes, confidence = self.labeller.label(np.where(known[:, None], vectors, 0))
        likely = known & (confidence >= self.least)
        suggested = self.names.take(pa.array(codes, mask=~likely))
        said = said_of(rows, self.given)
        labels = pc.coalesce(said, suggested)
        sure = np.where(pc.is_valid(said).to_numpy(zero_copy_only=False), 1, np.where(known, confidence, 0)).astype(np.float32)
        return pa.table([*(rows[name] for name in LABELLED.names[:3]), labels, pa.array(sure)], schema=LABELLED)


def said_of(rows: pa.Table, given: Mapping[str, str]) -> pa.Array:
    """What people said of each row's chunk, or else of its document; null where they said nothing."""
    ids, labels = pa.array(list(given), pa.string()), pa.array(list(given.values()), pa.string())
    of_chunk, of_document = (labels.take(pc.index_in(rows[name].combine_chunks(), ids)) for name in ("chunk_id", "doc_id"))
    return pc.coalesce(of_chunk, of_document)


def _seeds(version: Version, given: Mapping[str, str]) -> pa.Table:
    """Rows that people labelled, in the order of their contents, which says nothing; those with a direction, at most SEEDS."""
    found = []
    for rows in scan_batches(version.vectors, ["chunk_id", "doc_id", "content_hash"]):
        said = said_of(rows, given)
        found.append(rows.append_column("label", said).filter(pc.is_valid(said)))
    seeds = pa.concat_tables(found) if found else pa.table({"label": []})
    if not len(seeds):
        return seeds
    seeds = seeds.sort_by([("content_hash", "ascending"), ("chunk_id", "ascending")]).slice(0, SEEDS).combine_chunks()
    vectors = vectors_at(version.vectors, seeds[ROW_ADDRESS].to_numpy())
    return seeds.filter(pa.array(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)))


def _follow(study: Study, hand: Hand) -> tuple[ReportTable, int]:
    """Bring the table of these labels to exactly the rows of the version: what is there already is not looked at again."""
    table = study.table(f"labels-{hand.identity}")
    dataset = table.latest(LABELLED)
    fresh, stale = differences(study.version, dataset)
    staged = list[str]()
    for first in range(0, len(fresh), SHARD_ROWS):
        rows = take(study.version.vectors, fresh[first : first + SHARD_ROWS], _READ).combine_chunks()
        staged += study.version.collection.store.stage(table.name, LABELLED, hand.label(rows).to_batches())
        study.report(Progress("report", chunks=first + len(rows), total=len(fresh)))
    return table, table.commit(int(dataset.version), Change(stale, staged), study.run_id)


def _counted(dataset: Any) -> Counter[str | None]:
    """Rows by label; None: those that have none."""
    counts = Counter[str | None]()
    for rows in scan_batches(dataset, ["label"]):
        counts.update({one["values"]: one["counts"] for one in pc.value_counts(rows["label"].combine_chunks()).to_pylist()})
    return counts
