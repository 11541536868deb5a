"""What the vectors of a version are like: for people, who see from it that something moved. No gate depends on it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.measures.quality import Drift, anisotropy, drift, effective_rank, unit
from storage.reading.completeness import distinct_contents
from storage.reading.neighbours import sample, vectors_at
from storage.store.lance import ROW_ADDRESS
from workers.planning.known_models import Subject

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


def shape(subject: Subject) -> Shape:
    """Measure it."""
    rows, vectors = subject.vectors.count_rows(), _directions(subject)
    duplicates = 1 - distinct_contents(subject.vectors) / rows if rows else 0.0
    enough = len(vectors) > 1
    return Shape(rows, duplicates, effective_rank(vectors) if enough else None, anisotropy(vectors) if enough else None)


def drift_between(first: Subject, second: Subject) -> Drift | None:
    """How far the contents of two versions of one space are apart; None for two spaces, or an empty version.

    The samples have in common what the versions have, so p tells less than of independent ones: of a small change it is near 1.
    """
    if first.space["id"] != second.space["id"]:
        return None
    samples = _directions(first), _directions(second)
    return drift(*samples) if all(map(len, samples)) else None


def _directions(subject: Subject) -> NDArray[np.float32]:
    """Of a fixed sample of contents, (n, d); without those that have none."""
    vectors = unit(vectors_at(subject.vectors, sample(subject.vectors, SAMPLE)[ROW_ADDRESS].to_numpy()))
    return vectors[np.isfinite(vectors).all(axis=1)]
