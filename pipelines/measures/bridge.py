"""The bridge: a map from a new model's space into that of vectors which are stored already, learned from pairs.

While a collection is embedded anew, readers still have the old vectors. A query that the new model encodes is mapped into the old
space and searched there. Two maps of Drift-Adapter (Vejendla, EMNLP 2025, arXiv:2509.23471); its third, a network, was the best for
no number of pairs and the slowest for most (docs/measurements.md):

| kind | y of x, after both were centred |
|---|---|
| `procrustes` | x R, R orthogonal: a turn and nothing else; good with few pairs |
| `affine` | x A B: linear, of limited rank |

What is fitted by least squares is drawn to the mean, the more the worse it fits, and all that is near the mean then looks near to
every query. So every map is widened to the spread of the stored vectors. MiniLM's vectors mapped to mpnet's, 8,000 WordNet glosses,
4,000 pairs: recall@10 of the affine map .621 instead of .609, of the turn .635 instead of .608.
"""

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pipelines.measures.quality import unit

Kind = Literal["identity", "procrustes", "affine"]
Matrix = NDArray[np.float32]

RIDGES = (0.001, 0.01, 0.1, 1.0)
"""To choose from; times the mean variance of a direction."""
RANKS = (1, 2, 4, 8)
"""To choose from: the full rank divided by these."""
CHECKED = 5
"""One in so many pairs is kept from a first fit, to choose rank and ridge by."""
NEAREST = 10
"""Neighbours that a choice looks at."""


_FACTS = ("kind", "from_space", "to_space", "normalize")
"""What a file says of a bridge, beside its arrays."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """A learned map from one space into another."""

    kind: Kind
    from_space: str
    """The id of the space that it takes."""
    to_space: str
    """The id of the space that it gives."""
    normalize: bool
    """Whether vectors of the space that it gives have unit length."""
    arrays: Mapping[str, Matrix]
    """What was learned, by the names that `apply` knows."""

    def apply(self, vectors: Matrix) -> Matrix:
        """Map `vectors`, float32 (n, dimension of `from_space`), to float32 (n, dimension of `to_space`)."""
        if self.kind == "identity":
            return vectors
        mapped = _map(self.kind, self.arrays, vectors - self.arrays["mean"]) + self.arrays["offset"]
        return unit(mapped) if self.normalize else mapped

    def to_bytes(self) -> bytes:
        """As an npz file without pickled objects."""
        facts: dict[str, Any] = {f"_{name}": np.array(getattr(self, name)) for name in _FACTS}
        file = io.BytesIO()
        np.savez(file, **facts, **self.arrays)  # type: ignore[arg-type]
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Bridge":
        """What `to_bytes` gave. Raises ValueError if it is anything else, or of a kind that other versions know."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            facts = {name: arrays.pop(f"_{name}").item() for name in _FACTS}
        except (KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"no bridge: {error}") from error
        if facts["kind"] not in get_args(Kind):
            raise ValueError(f"one of kind {facts['kind']!r}, which this version does not know")
        return cls(**facts, arrays=arrays)


def identity(space: str) -> Bridge:
    """From a space to itself: leaves every vector as it is."""
    return Bridge("identity", space, space, False, {})


def _map(kind: Kind, arrays: Mapping[str, Matrix], x: Matrix) -> Matrix:
    """Of centred vectors, to centred vectors."""
    if kind == "affine":
        return np.asarray(x @ arrays["down"] @ arrays["up"])
    return np.asarray(x @ arrays["turn"])


def fit(kind: Kind, new: Matrix, old: Matrix) -> dict[str, Matrix]:
    """The arrays of the `kind` of bridge that takes `new`, float32 (n, d_new), to `old`, float32 (n, d_old): vectors of the same texts.

    Deterministic. What there is to choose is chosen by pairs that a first fit has not seen, then all pairs are fitted.
    """
    mean, offset = new.mean(axis=0), old.mean(axis=0)
    x, y = new - mean, old - offset
    learned = _FITS[kind](x, y)
    return {"mean": mean, "offset": offset, **_widened(learned, np.linalg.norm(y) / np.linalg.norm(_map(kind, learned, x)))}


def _widened(arrays: Mapping[str, Matrix], factor: np.floating[Any]) -> dict[str, Matrix]:
    """A map whose results are `factor` times as large."""
    return {name: array * np.float32(factor) if name in {"turn", "up"} else array for name, array in arrays.items()}


def _procrustes(x: Matrix, y: Matrix) -> dict[str, Matrix]:
    """The R with orthonormal rows or columns, and the scale, for which |x R - y| is least.

    Schönemann, 1966; the scale by Schönemann and Carroll, 1970. Of spaces of two dimensions this is the answer for vectors filled up
    with zeros, cut to size.
    """
    left, values, right = np.linalg.svd(x.T @ y, full_matrices=False)
    return {"turn": np.asarray(left @ right * (values.sum() / np.square(x).sum()), np.float32)}


def _affine(x: Matrix, y: Matrix) -> dict[str, Matrix]:
    """Reduced-rank regression (Izenman, 1975) with ridge (Mukherjee and Zhu, 2011)."""
    check = _checked(x)
    truth = _nearest(y[check], y[~check])
    options = _reduced(x[~check], y[~check], RIDGES, RANKS)
    shares = {option: _overlap(truth, _nearest(_map("affine", arrays, x[check]), y[~check])) for option, arrays in options}
    ridge, divisor = max(shares, key=shares.__getitem__)
    return next(arrays for _, arrays in _reduced(x, y, [ridge], [divisor]))


def _reduced(
    x: Matrix, y: Matrix, ridges: Sequence[float], divisors: Sequence[int]
) -> Iterator[tuple[tuple[float, int], dict[str, Matrix]]]:
    """For every ridge and rank the best map: the regression, cut to the directions in which it explains `y` best."""
    together = (x.T @ y).astype(np.float64)
    variances, directions = np.linalg.eigh((x.T @ x).astype(np.float64))
    for ridge in ridges:
        weights = directions @ ((directions.T @ together) / (variances + ridge * variances.mean())[:, None])
        _, main = np.linalg.eigh(together.T @ weights)
        for divisor in divisors:
            kept = main[:, ::-1][:, : max(1, min(together.shape) // divisor)]
            yield (ridge, divisor), {"down": (weights @ kept).astype(np.float32), "up": kept.T.astype(np.float32)}


_FITS: dict[Kind, Callable[[Matrix, Matrix], dict[str, Matrix]]] = {"procrustes": _procrustes, "affine": _affine}


def _checked(x: Matrix) -> NDArray[np.bool_]:
    """Which of the pairs a first fit does not see, (n,)."""
    return np.asarray(np.arange(len(x)) % CHECKED == 0)


def _nearest(queries: Matrix, vectors: Matrix) -> NDArray[np.intp]:
    """The NEAREST of `vectors` to each of `queries` by inner product, in no order: which are near is all that a search needs."""
    count = min(NEAREST, len(vectors) - 1)
    return np.argpartition(-(queries @ vectors.T), count, axis=1)[:, :count]


def _overlap(a: NDArray[np.intp], b: NDArray[np.intp]) -> float:
    """Share of the neighbours in `a` that are in `b`, (n, k) both."""
    return float((a[:, :, None] == b[:, None, :]).any(axis=2).mean())
