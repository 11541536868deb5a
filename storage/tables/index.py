"""The vector index of a generation: built when it pays, kept current by the delta.

Without one a search compares the query to every vector, which is exact and takes no upkeep. The index is made of parts with centres of
their own: the first ones cover the table, each later one the fragments that came since. All are made by the same function.

Lance compares float16 vectors to centres one by one at about 1 GFLOP/s a core on processors without AVX512-FP16 (its kernel gathers the
numbers singly), which was most of a build. So the centres are trained in float32 and the vectors assigned to them here, by one matrix
product a batch, and handed to Lance. A million vectors of 384 dimensions: 31 s of processor time instead of 275.

Compaction moves rows to other addresses, and Lance writes the parts anew with those: centres and codes stay, and so do the answers.
"""

import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from lance import LanceDataset
from lance.commit import CommitConflictError
from lance.fragment import LanceFragment
from lance.util import KMeans
from numpy.typing import NDArray

from pipelines.errors import Conflict
from pipelines.measures.quality import unit
from storage.store.spill import on_scratch_disk
from storage.tables.checksums import own_latest

# Otherwise the statistics list every centre as text: 70 ms a search at a million rows instead of 1.
os.environ.setdefault("LANCE_INCLUDE_VECTOR_CENTROIDS", "false")

INDEX_ROWS = 200_000
"""Measured on two cores: exact search takes 1 ms a thousand rows, an indexed one under 10 ms. Below this an exact answer comes within
about 0.2 s."""
INDEX_NAME = "vector_idx"
PARTITION_ROWS = 4096
PART_ROWS = 2_000_000
"""A part is closed when it has as many rows: what a vector costs (it is compared to every centre of its part) and the memory of a build
(.97 GB at one million rows, 1.05 at three) then stay as they are however large the table is."""
SMALL_PARTS = 4
"""Parts of less than half of `PART_ROWS` that a table may have: each update adds one, and a search looks into all of them."""
SHRUNK = 0.5
"""Share of the rows that a part was made for, below which it is built anew: its partitions have become needlessly small."""
SAMPLE_RATE = 64
"""Vectors a partition that its centre is trained on: a quarter of Lance's default."""
TRAINING_STEPS = 20
"""Of k-means. 50 bring the mean squared distance no further (300,000 rows, 73 centres)."""
FEW_DIMENSIONS = 128
"""With many, one bit a dimension finds as much as Lance's default of five once `REFINE` compares by full vectors, in a quarter of the room
and half the time. Recall@10 of 100,000 rows with one bit: 1.000 in 384 dimensions, .983 in 64, .81 in 32; with three 1.000 in all."""
ASSIGN_ROWS = 8192
READ_BYTES = 64 << 20
"""Read ahead of the assignment: .8 GB at most at a million rows, and 1.1 with Lance's default of 2 GiB."""
LEAST_PROBES = 24
"""A tenth of a million rows' partitions: recall@10 .987 to .994 from one build to the next. 20 of 73, at 300,000 rows: .982 to .993."""
REFINE = 10
"""Candidates per result that are compared again by their full vectors."""


def update_index(dataset: LanceDataset) -> LanceDataset:
    """Index the fragments that are not yet, if the table has an index or has grown into one."""
    return _index(dataset, _unindexed(dataset, _parts(dataset)))


def renew_index(dataset: LanceDataset) -> LanceDataset:
    """`update_index`, and build parts anew that have piled up, or were made for many more rows than they have by now."""
    return _index(dataset, _to_index(dataset))


def index_is_due(dataset: LanceDataset) -> bool:
    """Whether `renew_index` would do anything."""
    return bool(_to_index(dataset))


def _index(dataset: LanceDataset, fragments: list[LanceFragment]) -> LanceDataset:
    """Commit parts over `fragments`. Those that covered some of them before go with the same commit.

    Raises Conflict if another run has changed the table.
    """
    if not fragments:
        return dataset
    made = [_index_part(dataset, group) for group in _groups(fragments)]
    before = dataset.version  # now: a commit moves the handle along
    try:
        dataset.commit_existing_index_segments(INDEX_NAME, "vector", made)
    except CommitConflictError as error:
        raise Conflict(f"expected {dataset.uri} at version {dataset.version}, found that another run has changed it: run again") from error
    return own_latest(dataset, before)


def _parts(dataset: LanceDataset) -> list[Any]:
    return [segment for index in dataset.describe_indices() if index.name == INDEX_NAME for segment in index.segments]


def _unindexed(dataset: LanceDataset, parts: list[Any]) -> list[LanceFragment]:
    """The fragments that no part covers; none while the table is too small for an index."""
    if not parts and dataset.count_rows() < INDEX_ROWS:
        return []
    covered = {fragment for part in parts for fragment in part.fragment_ids}
    return [fragment for fragment in dataset.get_fragments() if fragment.fragment_id not in covered and fragment.count_rows()]


def _to_index(dataset: LanceDataset) -> list[LanceFragment]:
    """What no part covers and, in the order of the table, what parts cover that are to be built anew."""
    parts = _parts(dataset)
    rows = {fragment.fragment_id: fragment.count_rows() for fragment in dataset.get_fragments()}
    held = [sum(rows.get(fragment, 0) for fragment in part.fragment_ids) for part in parts]
    small = [part for part, count in zip(parts, held, strict=True) if count < PART_ROWS // 2]
    again = small if len(small) > SMALL_PARTS else []
    if parts:
        partitions = {part["uuid"]: part["num_partitions"] for part in dataset.stats.index_stats(INDEX_NAME)["indices"]}
        least = {uuid: count * PARTITION_ROWS * SHRUNK if count > 1 else 0 for uuid, count in partitions.items()}
        again = [*again, *(part for part, count in zip(parts, held, strict=True) if count < least[part.uuid])]
    chosen = {fragment for part in again for fragment in part.fragment_ids}
    chosen |= {fragment.fragment_id for fragment in _unindexed(dataset, parts)}
    return [fragment for fragment in dataset.get_fragments() if fragment.fragment_id in chosen]


def _groups(fragments: list[LanceFragment]) -> Iterator[list[LanceFragment]]:
    """`fragments` in order, in groups of about `PART_ROWS` rows."""
    ends = np.cumsum([fragment.count_rows() for fragment in fragments])
    for _, group in groupby(zip(fragments, (ends - 1) // PART_ROWS, strict=True), key=lambda pair: int(pair[1])):
        yield [fragment for fragment, _ in group]


def _index_part(dataset: LanceDataset, fragments: list[LanceFragment]) -> Any:
    """An index over `fragments`, written but not committed."""
    rows = sum(fragment.count_rows() for fragment in fragments)
    field = dataset.schema.field("vector").type
    centres = _train(fragments, max(rows // PARTITION_ROWS, 1), rows)
    with TemporaryDirectory() as folder:
        assigned = str(Path(folder) / "assigned.lance")
        with on_scratch_disk():
            lance.write_dataset(_assign(dataset, fragments, centres), assigned, max_rows_per_file=rows)
        return dataset.create_index_uncommitted(
            "vector",
            name=INDEX_NAME,
            replace=True,  # it has parts already: nothing is replaced before a commit, and a commit adds this one
            metric="cosine",
            num_partitions=len(centres),
            ivf_centroids=centres.astype(field.value_type.to_pandas_dtype()),
            precomputed_partition_dataset=assigned,
            fragment_ids=[fragment.fragment_id for fragment in fragments],
            **_quantizer(field.list_size),
        )


def _quantizer(dimension: int) -> dict[str, Any]:
    if dimension % 8:
        return {"index_type": "IVF_FLAT"}
    return {"index_type": "IVF_RQ", "num_bits": 3 if dimension < FEW_DIMENSIONS else 1}


def _train(fragments: list[LanceFragment], partitions: int, rows: int) -> NDArray[np.float32]:
    """The centres, shape (partitions, d), by k-means over a sample of the unit vectors."""
    share = min(1.0, partitions * SAMPLE_RATE / rows)
    random = np.random.default_rng(0)
    sample = [_unit(part["vector"].combine_chunks()) for part in (_draw(fragment, share, random) for fragment in fragments) if len(part)]
    model = KMeans(partitions, "l2", max_iters=TRAINING_STEPS)
    model.fit(np.concatenate(sample))
    centres: NDArray[np.float32] = model.centroids.to_numpy_ndarray()
    return centres


def _draw(fragment: LanceFragment, share: float, random: np.random.Generator) -> pa.Table:
    count = fragment.count_rows()
    return fragment.take(np.sort(random.choice(count, int(np.ceil(count * share)), replace=False)), columns=["vector"])


def _assign(dataset: LanceDataset, fragments: list[LanceFragment], centres: NDArray[np.float32]) -> pa.RecordBatchReader:
    """The nearest centre of every vector, in the form that Lance reads: `row_id`, `partition`."""
    schema = pa.schema([("row_id", pa.uint64()), ("partition", pa.uint32())])
    half_norms = (centres * centres).sum(axis=1) / 2

    def batches() -> Iterator[pa.RecordBatch]:
        scan = dataset.scanner(columns=["vector"], fragments=fragments, with_row_id=True, batch_size=ASSIGN_ROWS, io_buffer_size=READ_BYTES)
        for batch in scan.to_batches():
            nearest = (_unit(batch["vector"]) @ centres.T - half_norms).argmax(axis=1)
            ids = batch["_rowid"].to_numpy().copy()  # the column itself would keep the vectors beside it in memory until the page is full
            yield pa.record_batch([pa.array(ids), pa.array(nearest.astype(np.uint32))], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _unit(vectors: pa.FixedSizeListArray) -> NDArray[np.float32]:
    """The directions of `vectors`, shape (n, d)."""
    return unit(vectors.flatten().to_numpy().reshape(len(vectors), -1))


def probes(dataset: LanceDataset) -> int | None:
    """How many partitions a search should look into; None without an index."""
    if INDEX_NAME not in {index.name for index in dataset.describe_indices()}:
        return None
    partitions = max(int(part["num_partitions"]) for part in dataset.stats.index_stats(INDEX_NAME)["indices"])
    return max(LEAST_PROBES, partitions // 10)
