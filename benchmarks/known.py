"""What is known elsewhere, measured with ours: effects of word lists on GloVe, and labels that are spread from a few.

    python -m benchmarks.known weat VECTORS.npy INDEX.parquet [--most 400000]
    python -m benchmarks.known labels STORE COLLECTION FIELD

`weat`: VECTORS (n, d), and the column `index` of words in lower case. Beside the effects that Caliskan et al. (2017) measured on GloVe of
840B tokens and 300 dimensions. `labels`: FIELD of a share of the rows is given, and asked for of all others: by what reports do, by the
nine nearest labelled rows, and by label spreading (Zhou et al., 2004) on the graph of 15 neighbours of at most 15,000 landmarks.
"""

import argparse
import time

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.measures.association import built_in_tests, measure_test
from pipelines.measures.labelling import fit_labeller
from pipelines.measures.quality import unit
from pipelines.measures.scores import nearest_labels
from storage import open_published
from storage.reading.neighbours import to_numpy
from workers.reports.atlas.graph import beside, graph

PUBLISHED = {"weat1": 1.50, "weat6": 1.81, "weat7": 1.06, "weat8": 1.24}
HOMONYMS = ("fly", "cricket")
"""Insects that are mostly something else in lower case."""
LANDMARKS, STEPS, KEPT = 15_000, 40, 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    weat = what.add_parser("weat")
    weat.add_argument("vectors")
    weat.add_argument("index")
    weat.add_argument("--most", type=int, default=400_000)
    labels = what.add_parser("labels")
    for name in ("store", "collection", "field"):
        labels.add_argument(name)
    asked = parser.parse_args()
    if asked.what == "weat":
        effects(asked.vectors, asked.index, asked.most)
    else:
        spread(asked.store, asked.collection, asked.field)


def effects(vectors: str, index: str, most: int) -> None:
    numbers = np.load(vectors, mmap_mode="r")
    words = {word: place for place, word in enumerate(pq.read_table(index)["index"].to_pylist()[:most])}
    print("test, effect, published, p, words that are missing")
    for name, test in built_in_tests().items():
        for left_out in ((), HOMONYMS) if name == "weat1" else ((),):
            known = {word: numbers[words[word.lower()]] for word in test.words if word.lower() in words and word not in left_out}
            found = measure_test(test, known)
            assert found is not None
            without = f" without {' and '.join(left_out)}" if left_out else ""
            sampled = "" if found.exact else " sampled"
            print(f"  {name}{without}: {found.effect:.2f}, {PUBLISHED[name]:.2f}, {found.p:.5f}{sampled}, {found.missing}")


def spread(store: str, collection: str, field: str) -> None:
    rows = open_published(store, collection).table.to_arrow().sort_by("content_hash")
    vectors = unit(to_numpy(rows["vector"].combine_chunks()))
    names, truth = np.unique(np.array(rows["metadata"].combine_chunks().field(field).to_pylist()), return_inverse=True)
    landmarks = np.arange(min(LANDMARKS, len(rows)))
    near, places = graph(vectors[landmarks]), beside(vectors, vectors[landmarks])
    print("share given, rows given, seed: accuracy by ours (its way, its own estimate), of suggestions >= .5; nine nearest; spreading")
    for share in (0.001, 0.01, 0.05):
        for seed in (1, 2, 3):
            given = np.random.default_rng(seed).permutation(len(rows))[: round(share * len(rows))]
            rest = np.setdiff1d(np.arange(len(rows)), given)
            began = time.perf_counter()
            labeller = fit_labeller(vectors[given], truth[given], len(names))
            told, confidence = labeller.label(vectors[rest])
            seconds, right, likely = time.perf_counter() - began, told == truth[rest], confidence >= 0.5
            nine = nearest_labels(vectors[given], truth[given], vectors[rest])[0] == truth[rest]
            zhou = spreading(near.places, near.cosines, places.places, places.cosines, given, truth, len(names))[rest] == truth[rest]
            print(
                f"  {share:.1%} {len(given)} {seed}: {right.mean():.3f} ({labeller.way}, {labeller.accuracy:.3f}, {seconds:.1f} s),",
                end=" ",
            )
            print(f"{right[likely].mean():.3f} of {likely.mean():.3f}; {nine.mean():.3f}; {zhou.mean():.3f}")


def spreading(
    near: NDArray[np.int32],
    cosines: NDArray[np.float32],
    places: NDArray[np.int32],
    similar: NDArray[np.float32],
    given: NDArray[np.int64],
    truth: NDArray[np.intp],
    count: int,
) -> NDArray[np.intp]:
    """Labels of all rows: rows give what is known to their two landmarks, and take from them what was spread."""
    from scipy.sparse import csr_matrix, diags

    size, k = near.shape
    edges = csr_matrix((np.maximum(cosines, 0).ravel(), (np.repeat(np.arange(size), k), near.ravel())), (size, size))
    edges = (edges + edges.T) / 2
    scale = diags(1 / np.sqrt(np.maximum(np.asarray(edges.sum(axis=1)).ravel(), 1e-9)))
    step = (scale @ edges @ scale).astype(np.float32)
    weights = np.maximum(similar, 0) ** 4
    known = np.zeros((size, count), np.float32)
    np.add.at(known, (places[given].ravel(), np.repeat(truth[given], 2)), weights[given].ravel())
    held = known
    for _ in range(STEPS):
        held = KEPT * (step @ held) + (1 - KEPT) * known
    held = held / np.maximum(held.sum(axis=0), 1e-12) * np.bincount(truth[given], minlength=count)
    held = held / np.maximum(held.sum(axis=1, keepdims=True), 1e-12)
    told: NDArray[np.intp] = (held[places] * weights[:, :, None]).sum(axis=1).argmax(axis=1)
    return told


if __name__ == "__main__":
    main()
