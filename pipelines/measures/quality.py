"""Measures of vectors and of rankings, on arrays alone."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOP = 10
"""Results that a ranking is judged by."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far two samples of vectors are from being of one distribution."""

    distance: float
    """Squared maximum mean discrepancy: 0 for the same, at most 2."""
    p: float
    """The share of random divisions of both samples that are at least as far apart."""


def overlap(first: Sequence[Hashable], second: Sequence[Hashable], k: int = TOP) -> float | None:
    """The share of the first k neighbours that two lists have in common, in any order; of as many as the shorter one has.

    None if one has none.
    """
    count = min(k, len(first), len(second))
    return len({*first[:count]} & {*second[:count]}) / count if count else None


def rank_quality(relevant: Mapping[str, Collection[str]], rankings: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """nDCG@10 and recall@10 of each query, as `{"ndcg": ..., "recall": ...}`, by trec_eval.

    `relevant`: document ids, at least one a query; `rankings`: distinct document ids, best first, for the same queries.
    """
    import ir_measures
    from ir_measures import R, nDCG

    names = {nDCG @ TOP: "ndcg", R @ TOP: "recall"}
    judged = {query: dict.fromkeys(documents, 1) for query, documents in relevant.items()}
    # scores that say nothing but the order: trec_eval sorts equal ones by their ids
    run = {query: {document: float(-place) for place, document in enumerate(documents)} for query, documents in rankings.items()}
    quality = {query: dict.fromkeys(names.values(), 0.0) for query in relevant}
    for metric in ir_measures.iter_calc(list(names), judged, run):
        quality[metric.query_id][names[metric.measure]] = metric.value
    return quality


def drift(first: NDArray[np.float32], second: NDArray[np.float32], permutations: int = 199, seed: int = 0) -> Drift:
    """Maximum mean discrepancy of two samples of vectors, (n, d) and (m, d), and the p value of a permutation test.

    A Gaussian kernel as wide as the median distance; the biased estimate (Gretton et al., A Kernel Two-Sample Test, JMLR 13, 2012).
    Memory and time are those of (n + m)^2 kernel values: for samples.
    """
    both = np.concatenate([first, second]).astype(np.float64)
    squares = (both * both).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * both @ both.T, 0)
    width = np.median(distances[np.triu_indices(len(both), 1)])
    kernel = np.exp(-distances / (2 * width)) if width else np.ones_like(distances)
    weights = np.concatenate([np.full(len(first), 1 / len(first)), np.full(len(second), -1 / len(second))])
    random = np.random.default_rng(seed)
    divisions = np.stack([weights, *(random.permutation(weights) for _ in range(permutations))])
    gaps = np.einsum("ij,ij->i", divisions @ kernel, divisions)
    return Drift(float(max(gaps[0], 0.0)), float((gaps >= gaps[0] - 1e-12).mean()))


def effective_rank(vectors: NDArray[np.float32]) -> float:
    """How many dimensions (n, d) vectors use: e to the entropy of their normalised singular values (Roy and Vetterli, EUSIPCO 2007)."""
    values = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def anisotropy(vectors: NDArray[np.float32]) -> float:
    """The mean cosine of two of (n, d) unit vectors, n at least 2: near 0 if they fill all directions (Ethayarajh, EMNLP 2019)."""
    count = len(vectors)
    total = vectors.sum(axis=0, dtype=np.float64)
    return float((total @ total - count) / (count * (count - 1)))


def unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """The directions of `vectors`, (n, d) float32. A row of zeros stays zero, one that is not finite is no number."""
    numbers = vectors.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(numbers, axis=1, keepdims=True)
        directions: NDArray[np.float32] = numbers / np.maximum(lengths, np.finfo(np.float32).tiny)
    return directions
