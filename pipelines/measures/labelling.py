"""Labels for many vectors, from those of a few.

What is fitted is linear: a direction and an offset for each label, so that a row costs a product and no search. There are two ways, and
what is labelled decides between them, by cross-validation: the centre of each label's rows, for a few of each, and logistic regression,
for more. Both were better than the nine nearest labelled rows, and than label spreading on the landmarks' graph (Zhou et al., NeurIPS
2004), which stood beside them on sections of Debian packages (docs/measurements.md).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.measures.quality import unit

FOLDS = 5
SHARPNESS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
"""To choose from: factors of a score whose exponential a confidence is, so that of rows with a confidence of .8 four in five are right."""

Matrix = NDArray[np.float32]
Labels = NDArray[np.intp]
Way = Literal["centres", "regression"]
WAYS: tuple[Way, ...] = ("centres", "regression")


@dataclass(frozen=True)
class Labeller:
    """Gives c labels to vectors of d dimensions."""

    way: Way
    weights: NDArray[np.float64]
    """(c, d)."""
    offsets: NDArray[np.float64]
    """(c,); minus infinity for a label that nothing has."""
    accuracy: float | None
    """The share of labelled rows that got their own label from the others; None where that cannot be tried."""

    def label(self, vectors: Matrix) -> tuple[Labels, NDArray[np.float32]]:
        """The most likely label of each of `vectors` (n, d), and how likely it is held to be, 0 to 1."""
        chances = _chances(unit(vectors) @ self.weights.T.astype(np.float32) + self.offsets)
        best = chances.argmax(axis=1)
        return best, chances[np.arange(len(best)), best].astype(np.float32)


def fit_labeller(vectors: Matrix, labels: Labels, count: int) -> Labeller:
    """Of labelled `vectors` (n, d) in an order that says nothing, whose `labels` (n,) are below `count`."""
    directions = unit(vectors)
    folds = np.arange(len(labels)) % min(FOLDS, max(2, len(labels)))
    tried = [_tried(way, directions, labels, count, folds) for way in WAYS] if len(labels) > 1 else []
    if not tried:
        return Labeller("centres", *_fitted("centres", directions, labels, count), None)
    _, sharpness, accuracy, way = min(tried)
    weights, offsets = _fitted(way, directions, labels, count)
    return Labeller(way, weights * sharpness, offsets * sharpness, accuracy)


def _tried(way: Way, directions: Matrix, labels: Labels, count: int, folds: NDArray[np.intp]) -> tuple[float, float, float, Way]:
    """The least mean log loss of rows that took no part in the fit, the sharpness that gives it, and the share that is right."""
    scores = np.empty((len(labels), count))
    for fold in np.unique(folds):
        weights, offsets = _fitted(way, directions[folds != fold], labels[folds != fold], count)
        scores[folds == fold] = directions[folds == fold] @ weights.T + offsets
    own = np.arange(len(labels)), labels
    accuracy = float((scores.argmax(axis=1) == labels).mean())
    losses = [float(-np.log(np.maximum(_chances(scores * sharpness)[own], 1e-3)).mean()) for sharpness in SHARPNESS]
    best = int(np.argmin(losses))
    return losses[best], SHARPNESS[best], accuracy, way


def _fitted(way: Way, directions: Matrix, labels: Labels, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (count, d) and offsets (count,)."""
    there = np.unique(labels)
    weights, offsets = np.zeros((count, directions.shape[1])), np.full(count, -np.inf)
    if way == "centres" or len(there) < 2:
        sums = np.zeros_like(weights)
        np.add.at(sums, labels, directions)
        weights, offsets[there] = unit(sums).astype(np.float64), 0.0
        return weights, offsets
    from sklearn.linear_model import LogisticRegression

    places = np.searchsorted(there, labels)
    model = LogisticRegression(C=10.0, max_iter=200, tol=1e-3).fit(directions, places)
    if len(there) == 2:  # one plane divides two: half of its score for the one, half against the other
        weights[there], offsets[there] = (
            np.concatenate([-model.coef_, model.coef_]) / 2,
            np.concatenate([-model.intercept_, model.intercept_]) / 2,
        )
    else:
        weights[there], offsets[there] = model.coef_, model.intercept_
    return weights, offsets


def _chances(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares that add to 1, (n, c)."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return chances
