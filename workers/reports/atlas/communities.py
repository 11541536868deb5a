"""Clusters of landmarks: groups that have more neighbours inside than a random graph would, by Leiden's method."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.reports.atlas.graph import Near

RESOLUTION = 1.5
"""Of modularity: 25,000 landmarks of package descriptions make 63 clusters."""
ROUNDS = 10
"""Of the method: with one only, two seeds agree less."""
MOST = 200
"""Clusters: a person reads no more. The smallest go to those that they have the most neighbours in."""
FRESH = 1_000
"""Numbers that belong to one atlas, for clusters that no earlier one had: more than MOST."""
SHARED = 0.5
"""The share of the members of both from which on a cluster is that of an earlier atlas."""


def communities(near: Near, before: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
    """The cluster of each of n landmarks (n,), from 0, the largest first; by the method of Traag, Waltman and van Eck (Scientific Reports
    9, 2019) on the graph of who is whose neighbour. Each is in one: there is no noise.

    `before`: the cluster of each in an earlier atlas, -1 where it was in none. Then it starts from these: with a tenth of the landmarks
    new .93 of the others stay where they were, instead of .815, at the same modularity.
    """
    from graspologic_native import leiden

    links = _links(near)
    if not links.nnz:
        return np.zeros(len(near.places), np.int32)
    coordinates = links.tocoo()
    pairs = zip(coordinates.row.tolist(), coordinates.col.tolist(), strict=True)
    edges = [(str(one), str(other), 1.0) for one, other in pairs if one < other]
    start = None if before is None else dict(zip(map(str, range(len(before))), _filled_in(before, near).tolist(), strict=True))
    _, found = leiden(edges, start, resolution=RESOLUTION, iterations=ROUNDS, use_modularity=True, seed=0)
    clusters = np.array([found[str(place)] for place in range(len(near.places))], np.int32)
    return _by_size(_fewer(_by_size(clusters), links))


def _filled_in(before: NDArray[np.int32], near: Near) -> NDArray[np.int32]:
    """`before`, numbered from 0, where a new landmark is in the cluster of its nearest neighbour that was in one; else in the first."""
    theirs = np.where(near.places >= 0, before[near.places], -1)
    nearest = np.take_along_axis(theirs, (theirs >= 0).argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.unique(np.where(before >= 0, before, nearest), return_inverse=True)[1].astype(np.int32)


def _links(near: Near) -> Any:
    """(n, n), 1 where one of two is among the neighbours of the other."""
    from scipy.sparse import csr_matrix

    there = near.places >= 0
    rows, columns = np.nonzero(there)[0], near.places[there]
    links = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(near.places),) * 2)
    return (links + links.T > 0).astype(np.float64).tocsr()


def _by_size(clusters: NDArray[np.int32]) -> NDArray[np.int32]:
    """Numbered anew, the largest first, of equal ones that of the first member."""
    _, first, numbers, sizes = np.unique(clusters, return_index=True, return_inverse=True, return_counts=True)
    ranks = np.empty(len(sizes), np.int32)
    ranks[np.lexsort((first, -sizes))] = np.arange(len(sizes), dtype=np.int32)
    return ranks[numbers]


def _fewer(clusters: NDArray[np.int32], links: Any) -> NDArray[np.int32]:
    """At most MOST: the members of the others go, cluster by cluster, to the one that they have the most links to, or to the last."""
    from scipy.sparse import csr_matrix

    count = int(clusters.max()) + 1
    members = csr_matrix((np.ones(len(clusters)), (np.arange(len(clusters)), clusters)), shape=(len(clusters), count))
    between = (members.T @ links @ members)[:, :MOST].toarray()
    goes = np.arange(count, dtype=np.int32)
    strongest = between.argmax(axis=1).astype(np.int32)
    goes[MOST:] = np.where(between.max(axis=1) > 0, strongest, MOST - 1)[MOST:]
    return goes[clusters]


def kept_numbers(clusters: NDArray[np.int32], before: NDArray[np.int32], atlas: int) -> dict[int, int]:
    """cluster -> the number that it has in atlas number `atlas`.

    `before`: the number of the cluster that each landmark had in the atlas before, -1 where it was in none. A cluster keeps the number of
    that with which it shares the most members, if these are at least SHARED of the larger one; each number goes to one (Kuhn, 1955). The
    others get numbers that no atlas has had.
    """
    from scipy.optimize import linear_sum_assignment

    now, then = np.unique(clusters), np.unique(before[before >= 0])
    known = before >= 0
    pairs = Counter(zip(clusters[known].tolist(), before[known].tolist(), strict=True))
    sizes, earlier = Counter(clusters[known].tolist()), Counter(before[known].tolist())
    shares = np.array([[pairs[one, other] / max(sizes[one], earlier[other], 1) for other in then.tolist()] for one in now.tolist()])
    rows, columns = linear_sum_assignment(-shares) if shares.size else ((), ())
    kept = {int(now[row]): int(then[column]) for row, column in zip(rows, columns, strict=True) if shares[row, column] >= SHARED}
    fresh = iter(range((atlas - 1) * FRESH, atlas * FRESH))
    return {cluster: kept[cluster] if cluster in kept else next(fresh) for cluster in now.tolist()}
