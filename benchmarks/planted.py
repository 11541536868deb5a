"""Do drift and balance see what was planted, and nothing else, on stored vectors.

    python -m benchmarks.planted STORE COLLECTION FIELD [--clusters 100] [--nights 20]

Rows of a collection are cut into clusters by k-means. Half of them are there at first. In a clean night 1 % of them go and as many others
come, all drawn at random. In a planted one as many come, and beside them rows of one value of FIELD that were held back until then.

For balance rows are dealt to groups by chance, and FIELD is what neighbours are asked for. In a planted case the vectors of one group are
made worse: turned away from where they belong, by noise.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.measures.divergence import Shift, change
from pipelines.measures.groups import gap
from pipelines.measures.quality import drift, unit
from pipelines.measures.scores import nearest_labels
from storage import open_published
from storage.reading.neighbours import to_numpy

CHURN = 0.01
PLANTED = 0.013
SAMPLE = 500


@dataclass
class Corpus:
    """Rows that are there, and those that may come, as places among all."""

    clusters: NDArray[np.int64]
    there: NDArray[np.int64]
    pool: NDArray[np.int64]
    random: np.random.Generator

    def night(self, planted: NDArray[np.int64], churn: float = CHURN) -> tuple[Shift, NDArray[np.int64]]:
        """What a change by chance, and `planted` beside it, look like; and the rows that came."""
        count = round(churn * len(self.there))
        self.there, self.pool = self.random.permutation(self.there), self.random.permutation(self.pool)
        gone, came = self.there[:count], np.concatenate([self.pool[:count], planted])
        kinds = int(self.clusters.max()) + 1
        before, added, removed = (np.bincount(self.clusters[rows], minlength=kinds) for rows in (self.there, came, gone))
        self.there, self.pool = np.concatenate([self.there[count:], came]), self.pool[count:]
        return change(before, added, removed), came


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("store", "collection", "field"):
        parser.add_argument(name)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--nights", type=int, default=20)
    asked = parser.parse_args()
    rows = open_published(asked.store, asked.collection).table.to_arrow()
    vectors = unit(to_numpy(rows["vector"].combine_chunks()))
    values = np.array(rows["metadata"].combine_chunks().field(asked.field).to_pylist())
    clusters = partition(vectors, asked.clusters)
    clean(vectors, clusters, asked.nights)
    plant(vectors, clusters, values)
    deal(vectors, values)


def partition(vectors: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    from sklearn.cluster import MiniBatchKMeans

    return MiniBatchKMeans(count, random_state=0, n_init=1, batch_size=4096).fit_predict(vectors).astype(np.int64)


def clean(vectors: NDArray[np.float32], clusters: NDArray[np.int64], nights: int) -> None:
    """Each night against the one before, at several sizes of a change."""
    print("clean nights: churn, alarms (p at most .001), smallest p, mean divergence, mean bound, largest z, largest share moved")
    for churn in (0.002, 0.01, 0.02):
        random = np.random.default_rng(1)
        order = random.permutation(len(clusters))
        corpus = Corpus(clusters, order[: len(order) // 2], order[len(order) // 2 :], random)
        found = [corpus.night(order[:0], churn)[0] for _ in range(nights)]
        alarms = sum(one.p <= 0.001 for one in found)
        print(f"  {churn:.1%} {alarms} of {nights}; {min(one.p for one in found):.3f}", end="; ")
        print(f"{np.mean([one.divergence for one in found]):.6f}; {np.mean([one.chance for one in found]):.6f}", end="; ")
        print(f"{max(abs(one.z).max() for one in found):.2f}; {max(one.moved for one in found):.4f}")


def plant(vectors: NDArray[np.float32], clusters: NDArray[np.int64], values: NDArray[np.str_]) -> None:
    """Rows of one value come that were not there, 1.3 % of all, and some of one that was there."""
    print("planted: value, its rows there before, planted, p, divergence, bound, z, its cluster right, MMD p, share moved")
    names, counts = np.unique(values, return_counts=True)
    for held_back in (True, False):
        for name in names[np.argsort(-counts)][2:12]:
            random = np.random.default_rng(2)
            of_it = random.permutation(np.flatnonzero(values == name))
            others = random.permutation(
                np.flatnonzero(values != name) if held_back else np.setdiff1d(np.arange(len(values)), of_it[: len(of_it) // 2])
            )
            corpus = Corpus(clusters, others[: len(others) // 2], others[len(others) // 2 :], random)
            planted = (
                of_it[: round(PLANTED * len(corpus.there))] if held_back else of_it[: len(of_it) // 2][: round(PLANTED * len(corpus.there))]
            )
            there = vectors[random.choice(corpus.there, SAMPLE, replace=False)]
            present = int((values[corpus.there] == name).sum())
            found, came = corpus.night(planted)
            right = int(found.z.argmax()) == int(np.bincount(clusters[planted]).argmax())
            moved = drift(there, vectors[random.choice(came, min(SAMPLE, len(came)), replace=False)])
            print(f"  {name} {present} {len(planted)}; {found.p:.3f} {found.divergence:.6f} {found.chance:.6f}", end=" ")
            print(f"{found.z.max():.1f} {right}; {moved.p:.3f}; {found.moved:.4f}")


def deal(vectors: NDArray[np.float32], values: NDArray[np.str_]) -> None:
    """Groups of 60, 20, 10, 5, 2.5, 1.5 and 1 % by chance, of 12,000 rows as the report looks at them."""
    print("dealt: worse group, noise; of 20 deals: imbalance above 0, above .1, mean gap as measured, mean beyond chance")
    labels = np.unique(values, return_inverse=True)[1]
    shares = np.array([0.6, 0.2, 0.1, 0.05, 0.025, 0.015, 0.01])
    for worse, noise in ((0, 0.0), (2, 2.0), (2, 4.0), (4, 2.0), (4, 4.0), (5, 4.0), (6, 4.0)):
        found = []
        for seed in range(20):
            random = np.random.default_rng(seed)
            rows = random.permutation(len(vectors))[:12_000]
            groups = random.choice(len(shares), len(rows), p=shares)
            seen = vectors[rows].copy()
            turned = random.normal(size=seen.shape, scale=noise / np.sqrt(seen.shape[1])).astype(np.float32)
            seen[groups == worse] += turned[groups == worse]
            train, test = slice(0, 8_000), slice(8_000, None)
            told, _ = nearest_labels(seen[train], labels[rows][train], seen[test])
            wrong, counts = told != labels[rows][test], np.bincount(groups[test], minlength=len(shares))
            rates = np.bincount(groups[test], wrong, minlength=len(shares)) / np.maximum(counts, 1)
            found.append(gap(rates.tolist(), counts.tolist()))
        gaps = [one for one in found if one]
        print(f"  {shares[worse]:.1%} {noise}; {sum(one.certain > 0 for one in gaps)}, {sum(one.certain > 0.1 for one in gaps)}", end=", ")
        print(f"{np.mean([one.gap for one in gaps]):.3f}, {np.mean([one.certain for one in gaps]):.3f}")


if __name__ == "__main__":
    main()
