"""What the vectors of a version are like: for people, who see from it that something moved. No gate depends on it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.measures.gate import Gate, unmeasured
from pipelines.measures.quality import Drift, anisotropy, drift, effective_rank, unit
from storage.history.catalog import kept_publications
from storage.reading.completeness import distinct_contents
from storage.reading.neighbours import sample, vectors_at
from storage.reading.versions import version_of
from storage.store.lance import ROW_ADDRESS
from storage.tables.version import Version

SAMPLE = 500
"""Contents that a distribution is read off."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Rows, and the directions of a sample of them."""

    rows: int
    duplicates: float
    """The share of rows whose content is that of another row before."""
    effective_rank: float | None
    """Dimensions that the sample uses; None for fewer than two contents."""
    anisotropy: float | None
    """The mean cosine of two of the sample; None for fewer than two contents."""


def shape(version: Version) -> Shape:
    rows, vectors = version.vectors.count_rows(), _directions(version)
    duplicates = 1 - distinct_contents(version.vectors) / rows if rows else 0.0
    enough = len(vectors) > 1
    return Shape(rows, duplicates, effective_rank(vectors) if enough else None, anisotropy(vectors) if enough else None)


def drift_between(first: Version, second: Version) -> Drift | None:
    """How far the contents of two versions of one space are apart; None for two spaces, or an empty version.

    The samples have in common what the versions have, so p tells less than of independent ones: of a small change it is near 1.
    """
    if first.space["id"] != second.space["id"]:
        return None
    samples = _directions(first), _directions(second)
    return drift(*samples) if all(map(len, samples)) else None


def _directions(version: Version) -> NDArray[np.float32]:
    """Of a fixed sample of contents, (n, d); without those that have none."""
    vectors = unit(vectors_at(version.vectors, sample(version.vectors, SAMPLE)[ROW_ADDRESS].to_numpy()))
    return vectors[np.isfinite(vectors).all(axis=1)]


def shape_measures(version: Version) -> Iterator[Gate]:
    """A Measure: what `shape` gives."""
    measured, few = shape(version), "not measured: fewer than two contents"
    sampled = f"a sample of at most {SAMPLE} contents"
    measures = [
        ("duplicates", measured.duplicates, f"share of {measured.rows:,} rows whose content is that of another row before"),
        ("effective rank", measured.effective_rank, f"dimensions that {sampled} uses, of {version.space['dimension']}"),
        ("anisotropy", measured.anisotropy, f"mean cosine of two of {sampled}"),
    ]
    for name, value, detail in measures:
        yield Gate(name, "information", value, None, True, few if value is None else detail)


def drift_measure(version: Version) -> Iterator[Gate]:
    """A Measure: the drift from what readers had last of the same space, other than this version."""
    earlier = [
        row
        for row in kept_publications(version.collection)
        if row.space == version.space["id"] and (row.generation, row.version) != (version.generation, version.number)
    ]
    before = version_of(version.collection.store, earlier[-1], version.known) if earlier else None
    moved = drift_between(before, version) if before else None
    if before is None or moved is None:
        yield unmeasured("drift", "information", None, "not measured: no other version of this space was published")
        return
    yield Gate("drift", "information", moved.distance, None, True, f"MMD² to {before}, p {moved.p:.3f}")
