"""What an atlas keeps of a collection, and what it costs: places, clusters, refits, outliers.

    python -m benchmarks.landmarks map STORE COLLECTION [--landmarks 25000]
    python -m benchmarks.landmarks clusters STORE COLLECTION FIELD
    python -m benchmarks.landmarks outliers STORE COLLECTION JUNK.npy

`map`: the share of the true 15 neighbours, of landmarks among landmarks and of all rows among all rows, that are among the 15 nearest in
the plane. `clusters`: beside the labels of FIELD, with k-means with the true number of them; and the share of landmarks that keep their
cluster when some of them are others. `outliers`: JUNK (n, d) directions that a table of another kind of text has, half of the figures with
an atlas from before they came, half with one that was made of both.
"""

import argparse
import time

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.harness import table
from pipelines.content.settling import halves
from pipelines.measures.quality import unit
from storage import open_published
from storage.reading.neighbours import to_numpy
from storage.store.lance import scan_batches
from workers.reports.analyses.outliers import EQUAL, usual_of
from workers.reports.atlas.communities import communities, kept_numbers
from workers.reports.atlas.graph import K, beside, graph
from workers.reports.atlas.layout import PERPLEXITY, layout
from workers.reports.atlas.placing import placed, reach

ASKED = 2_000
"""Rows whose neighbours are looked for."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("what", "store", "collection"):
        parser.add_argument(name)
    parser.add_argument("more", nargs="?")
    parser.add_argument("--landmarks", type=int, default=25_000)
    asked = parser.parse_args()
    vectors, hashes, labels = contents(asked.store, asked.collection, asked.more if asked.what == "clusters" else None)
    if asked.what == "map":
        kept(vectors, hashes, asked.landmarks)
    elif asked.what == "clusters":
        agreement(vectors, labels, asked.landmarks)
    else:
        found(vectors, unit(np.load(asked.more)), asked.landmarks)


def contents(store: str, collection: str, field: str | None) -> tuple[NDArray[np.float32], NDArray[np.uint64], NDArray[np.intp]]:
    """One row of each content, in the order of hashes: directions, the second halves of the hashes, and codes of the field's values."""
    published = open_published(store, collection)
    dataset = published.store.open(published.publication.generation, published.publication.version)
    rows = pa.concat_tables(scan_batches(dataset, ["content_hash", "vector", "metadata"])).combine_chunks()
    both = halves(rows["content_hash"])
    order = np.lexsort((both[:, 1], both[:, 0]))
    order = order[np.r_[True, (both[order][1:] != both[order][:-1]).any(axis=1)]]
    names = [str((row or {}).get(field)) for row in rows["metadata"].take(pa.array(order)).to_pylist()]
    vectors = to_numpy(rows["vector"].combine_chunks())[order]
    return unit(vectors), both[order, 1], np.unique(names, return_inverse=True)[1]


def kept(vectors: NDArray[np.float32], hashes: NDArray[np.uint64], count: int) -> None:
    landmarks, seconds = vectors[:count], [time.process_time()]
    near = graph(landmarks, 3 * PERPLEXITY)
    seconds.append(time.process_time())
    places = layout(landmarks, near)
    seconds.append(time.process_time())
    first = beside(vectors, landmarks, 1)
    seconds.append(time.process_time())
    spots = placed(hashes, first.places[:, 0], first.cosines[:, 0], places, reach(places))
    some = np.random.default_rng(0).permutation(len(vectors))[:ASKED]
    truth = beside(vectors[some], vectors, K + 1).places
    mine = np.arange(0, count, max(1, count // ASKED))
    graphs, laid, rows = np.diff(seconds)
    figures = [
        f"{count:,}",
        f"{len(vectors):,}",
        f"{graphs:.1f}",
        f"{laid:.1f}",
        f"{1e6 * rows / len(vectors):.0f}",
        f"{preserved(places, near.places[mine], mine):.3f}",
        f"{preserved(spots, truth, some):.3f}",
    ]
    head = ["landmarks", "contents", "graph, CPU s", "places, CPU s", "beside, CPU us a row", "kept, landmarks", "kept, all"]
    print(table(head, [figures]))


def preserved(spots: NDArray[np.float32], truth: NDArray[np.int32], rows: NDArray[np.intp]) -> float:
    from scipy.spatial import cKDTree

    near = cKDTree(spots).query(spots[rows], K + 1)[1]
    both = zip(rows.tolist(), near.tolist(), truth.tolist(), strict=True)
    shares = [
        len({*[one for one in around if one != row][:K]} & {*[one for one in true if one != row][:K]}) / K for row, around, true in both
    ]
    return float(np.mean(shares))


def agreement(vectors: NDArray[np.float32], labels: NDArray[np.intp], count: int) -> None:
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    landmarks, true = vectors[:count], labels[:count]
    began = time.process_time()
    clusters = communities(graph(landmarks))
    took = {"ours": time.process_time() - began}
    kinds = int(labels.max()) + 1
    began = time.process_time()
    means = KMeans(kinds, n_init=1, random_state=0).fit(landmarks)
    took["k-means"] = time.process_time() - began
    nearest, measures, rows = beside(vectors, landmarks, 1).places[:, 0], (adjusted_rand_score, normalized_mutual_info_score), []
    for name, found_, every in (("ours", clusters, clusters[nearest]), ("k-means", means.labels_, means.predict(vectors))):
        figures = [measure(*pair) for pair in ((true, found_), (labels, every)) for measure in measures]
        rows.append([name, str(int(found_.max()) + 1), f"{took[name]:.1f}", *(f"{figure:.3f}" for figure in figures)])
    print(table(["", "clusters", "CPU s", "ARI, landmarks", "NMI, landmarks", "ARI, all", "NMI, all"], rows))
    print()
    print(
        table(
            ["landmarks that are others", "started", "ARI", "clusters that keep their number", "landmarks that do"],
            [row for share in (0.02, 0.1) for row in refits(vectors, clusters, share)],
        )
    )


def refits(vectors: NDArray[np.float32], clusters: NDArray[np.int32], share: float) -> list[list[str]]:
    from sklearn.metrics import adjusted_rand_score

    count, others = len(clusters), int(len(clusters) * share)
    stay = np.random.default_rng(1).choice(count, count - others, replace=False)
    chosen = np.sort(np.concatenate([stay, count + np.arange(others)]))
    before = np.where(chosen < count, clusters[np.minimum(chosen, count - 1)], -1).astype(np.int32)
    near, there, rows = graph(vectors[chosen]), before >= 0, []
    for how, start in (("anew", None), ("from the clusters before", before)):
        again = communities(near, start)
        numbers = kept_numbers(again, before, 2)
        same = np.mean([numbers[now] == then for now, then in zip(again[there].tolist(), before[there].tolist(), strict=True)])
        kept_ = len({*numbers.values()} & {*clusters.tolist()})
        agree = adjusted_rand_score(before[there], again[there])
        rows.append([f"{share:.0%}", how, f"{agree:.3f}", f"{kept_} of {int(clusters.max()) + 1}", f"{same:.3f}"])
    return rows


def found(vectors: NDArray[np.float32], junk: NDArray[np.float32], count: int) -> None:
    from sklearn.metrics import roc_auc_score

    every, planted = np.concatenate([vectors, junk]), np.r_[np.zeros(len(vectors)), np.ones(len(junk))]
    among = np.random.default_rng(0).random(len(junk)) < count / len(every)
    mixed = np.concatenate([vectors[: count - among.sum()], junk[among]])[np.random.default_rng(0).permutation(count)]
    rows = []
    for name, landmarks in (("before it came", vectors[:count]), ("made of both", mixed)):
        near, usual = beside(every, landmarks, 2), usual_of(landmarks)
        similarity = np.where(near.cosines[:, 0] > EQUAL, near.cosines[:, 1], near.cosines[:, 0])
        odds = usual.odds(similarity, near.places[:, 0])
        order = np.lexsort((similarity, odds))
        ranks = np.empty(len(order))
        ranks[order] = np.arange(len(order))
        hits = [planted[order[:most]].sum() for most in (len(junk), 1000)]
        rows.append(
            [
                name,
                f"{roc_auc_score(planted, -ranks):.4f}",
                f"{hits[0] / len(junk):.2f}",
                f"{hits[1] / len(junk):.2f}",
                f"{roc_auc_score(planted, -similarity):.4f}",
                f"{roc_auc_score(planted, -near.cosines.mean(axis=1)):.4f}",
            ]
        )
    print(
        table(["atlas", "AUC", "precision = recall at as many", "recall in 1,000", "AUC of similarity alone", "AUC of mean cosine"], rows)
    )


if __name__ == "__main__":
    main()
