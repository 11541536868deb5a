"""Whether two states of a table hold the same rows: by sums of their hashes, of what is not in the same files."""

from typing import Any

import numpy as np
import orjson
from lance import LanceDataset

from pipelines.content.settling import halves
from pipelines.errors import Conflict
from pipelines.fingerprint import fingerprint
from storage.store.lance import scan_batches

Checksum = tuple[int, int, int]
"""Of a set of rows: how many, and the sums modulo 2^64 of both halves of their hashes."""


def checksum(dataset: LanceDataset, fragments: list[Any] | None = None) -> Checksum:
    """Rows, and the sums modulo 2^64 of both halves of their hashes: two tables of the same rows have the same, in whatever order.

    `fragments`: only the rows in these. Tables of other rows have another one but for a chance of 2^-128: row hashes are random numbers,
    unless somebody makes them up.
    """
    count, sums = 0, np.zeros(2, dtype=np.uint64)
    for rows in scan_batches(dataset, ["row_hash"], fragments=fragments) if fragments != [] else ():
        count += len(rows)
        sums += halves(rows["row_hash"]).sum(axis=0, dtype=np.uint64)
    return count, int(sums[0]), int(sums[1])


def remainder(rows: Checksum, others: Checksum) -> Checksum:
    """The checksum of those of `rows` that are not among `others`, if all of these are among them."""
    count, first, second = (one - other for one, other in zip(rows, others, strict=True))
    return count, first % 2**64, second % 2**64


def commit_of(dataset: LanceDataset) -> str:
    """Names the rows that a version has, and the files that they are in: of two versions of one number it tells which is which.

    A number is used again where a table was restored from a copy that is older. To index rows changes nothing here.
    """
    return fingerprint({"files": sorted(key.decode() for key in _by_files(dataset))})


def same_rows(one: LanceDataset, other: LanceDataset) -> bool:
    """Whether two versions of a table hold the same rows, in whichever order. What both have in the same files is not read."""
    ours, theirs = _by_files(one), _by_files(other)
    return checksum(one, [ours[key] for key in ours.keys() - theirs.keys()]) == checksum(
        other, [theirs[key] for key in theirs.keys() - ours.keys()]
    )


def _by_files(dataset: LanceDataset) -> dict[bytes, Any]:
    """The fragments by what their live rows are read from: files of data, and one of deletions. Each file is written once."""
    kept = {}
    for fragment in dataset.get_fragments():
        deletions = fragment.metadata.deletion_file
        kept[orjson.dumps([[file.path for file in fragment.metadata.files], deletions and deletions.json()])] = fragment
    return kept


def own_latest(dataset: LanceDataset, before: int) -> LanceDataset:
    """The latest version of a table, after a commit that leaves the rows as they are, to one that holds those of version `before`.

    Raises Conflict if it holds others: Lance lets such a commit pass together with one of a run that was overtaken.
    """
    latest = dataset.checkout_version(dataset.latest_version)
    if not same_rows(dataset.checkout_version(before), latest):
        raise Conflict(f"expected the rows of {dataset.uri} as at version {before}, found others at {latest.version}: run again")
    return latest
