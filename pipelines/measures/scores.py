"""What vectors are good for: labels that neighbours and a plane tell, pairs that people scored, and analogies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.measures.quality import unit

NEIGHBOURS = 9
"""Labelled rows that decide about one that is not."""
_BLOCK = 4_096
"""Rows that are compared at a time."""

Matrix = NDArray[np.float32]
Labels = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Classification:
    """How well the labels of some rows are told from those of others."""

    accuracy: float
    """The share of rows whose label was told."""
    f1: float
    """The mean over labels of the harmonic mean of precision and recall: rare ones count as much as common ones."""


def nearest_labels(train: Matrix, labels: Labels, test: Matrix, k: int = NEIGHBOURS) -> tuple[Labels, NDArray[np.float32]]:
    """The label that most of the k nearest of `train` (n, d) have, for each of `test` (m, d), and the share of them that have it.

    By cosine. Of labels that are as frequent the one with the larger sum of cosines goes first.
    """
    known, kinds = unit(train), int(labels.max()) + 1
    k = min(k, len(known))
    told, shares = np.empty(len(test), np.intp), np.empty(len(test), np.float32)
    for start in range(0, len(test), _BLOCK):
        cosines = unit(test[start : start + _BLOCK]) @ known.T
        near = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        votes = np.zeros((len(near), kinds))
        rows = np.arange(len(near))[:, None]
        np.add.at(votes, (rows, labels[near]), 1 + np.take_along_axis(cosines, near, axis=1) / (4 * k))
        best = votes.argmax(axis=1)
        told[start : start + _BLOCK] = best
        shares[start : start + _BLOCK] = (labels[near] == best[:, None]).mean(axis=1)
    return told, shares


def linear_labels(train: Matrix, labels: Labels, test: Matrix) -> Labels:
    """The label that a logistic regression of `train` (n, d) gives each of `test` (m, d)."""
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels)) < 2:
        return np.full(len(test), labels[0])
    model = LogisticRegression(C=10.0, max_iter=200, tol=1e-3).fit(unit(train), labels)
    return np.asarray(model.predict(unit(test)), np.intp)


def classified(truth: Labels, told: Labels) -> Classification:
    """`told` beside `truth`, (m,) each, m at least 1. Labels that no row has in truth are left out of the mean of F1."""
    kinds = int(max(truth.max(), told.max())) + 1
    hits = np.bincount(truth[truth == told], minlength=kinds)
    there, said = np.bincount(truth, minlength=kinds), np.bincount(told, minlength=kinds)
    f1 = 2 * hits[there > 0] / (there + said)[there > 0]
    return Classification(float((truth == told).mean()), float(f1.mean()))


def spearman(first: Matrix, second: Matrix, scores: Sequence[float]) -> float | None:
    """Rank correlation of the cosines of pairs of vectors, (n, d) each, with what people scored; None if either never changes."""
    from scipy.stats import spearmanr

    cosines = np.einsum("ij,ij->i", unit(first), unit(second))
    if len(scores) < 2 or np.ptp(cosines) == 0 or min(scores) == max(scores):
        return None
    return float(spearmanr(cosines, scores).statistic)


def solved(questions: Sequence[tuple[str, str, str, str]], vectors: Mapping[str, NDArray[np.floating]]) -> float:
    """The share of analogies a : b = c : d whose d is nearest to b - a + c of all words but a, b and c (3CosAdd).

    Mikolov, Yih and Zweig, Linguistic regularities in continuous space word representations, NAACL 2013. `vectors`: of all words, (d,).
    """
    words = {word: place for place, word in enumerate(vectors)}
    known = unit(np.stack([*vectors.values()]))
    places = np.array([[words[word] for word in question] for question in questions])
    hits = 0
    for start in range(0, len(places), _BLOCK):
        a, b, c, d = places[start : start + _BLOCK].T
        cosines = unit(known[b] - known[a] + known[c]) @ known.T
        for given in (a, b, c):
            cosines[np.arange(len(given)), given] = -np.inf
        hits += int((cosines.argmax(axis=1) == d).sum())
    return hits / len(places)
