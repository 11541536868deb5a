"""What a generation lacks is found whole, needs the model once a content, and is the same whether memory holds it or not."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lance import LanceDataset

from pipelines.content.chunks import vector_schema
from pipelines.fingerprint import digests
from pipelines.spaces.space import Space
from storage.collection import Collection
from storage.history.catalog import Publication, publish
from storage.reading.donors import Donors
from storage.store import spill
from storage.store.commit import Change, commit
from storage.store.lance import ROW_ADDRESS, Store, scan_table
from storage.tables.chunk_table import DESIRED_SCHEMA
from storage.tables.generations import Generation
from workers.embedding import work as work_module
from workers.embedding.work import TOKENS_A_TEXT, Cutter, Work, find_work

OWN, ALIKE, FOREIGN = "c.vectors.own", "c.vectors.alike", "c.vectors.foreign"
SPACE = Space("weights", "tokenizer", "modules", "mean", "", 256, True, 2, "float32")
SPACES = {OWN: SPACE, ALIKE: SPACE, FOREIGN: replace(SPACE, prompt="another")}
SCHEMA = vector_schema(None, 2, "float32")
FRAGMENTS = np.array([2, 3, 9], dtype=np.uint64)
Row = tuple[int, int]
"""Its place in the corpus, and its content."""


def digest(rows: Sequence[object]) -> pa.Array:
    return digests(pa.array([repr(row) for row in rows], pa.string()))


def add(store: Store, table: str, rows: Sequence[Row]) -> LanceDataset:
    """Rows with vectors that tell their content and their table, in one commit."""
    dataset = store.create(table, SCHEMA, {"space": {"id": SPACES[table].id, **SPACES[table].to_dict()}})
    made = {
        "content_hash": digest([content for _, content in rows]).to_pylist(),
        "row_hash": digest(rows).to_pylist(),
        "vector": [[content, list(SPACES).index(table)] for _, content in rows],
    }
    filler = {"chunk_id": "-", "doc_id": "-", "text": "-", "ordinal": 0, "start": 0, "end": 0}
    table_rows = [filler | dict(zip(made, values, strict=True)) for values in zip(*made.values(), strict=True)]
    staged = store.stage(table, SCHEMA, pa.Table.from_pylist(table_rows, schema=SCHEMA).to_batches()) if rows else []
    return commit(store, dataset, Change(np.zeros(0, dtype=np.uint64), staged), {}) if rows else dataset


def addresses_of(dataset: LanceDataset) -> dict[bytes, int]:
    """By row hash."""
    stored = scan_table(dataset, ["row_hash"])
    return dict(zip(stored["row_hash"].to_pylist(), stored[ROW_ADDRESS].to_pylist(), strict=True))


def remove(store: Store, table: str, rows: Sequence[Row]) -> LanceDataset:
    dataset = store.open(table)
    places = addresses_of(dataset)
    gone = np.array([places[hash] for hash in digest(rows).to_pylist()], dtype=np.uint64)
    return commit(store, dataset, Change(gone, []), {}) if rows else dataset


def publish_version(store: Store, version: int) -> None:
    tables = {"generation": OWN, "version": version, "chunk_table": FOREIGN, "chunk_version": 1}
    rest = {"model": "{}", "chunks": 0, "dead_letters": 0, "restores": 0, "run_id": "r", "at": "", "who": "", "why": ""}
    publish(store, Publication(collection="c", epoch=1, action="publish", space=SPACE.id, **tables, **rest))  # type: ignore[arg-type]


def desired_rows(rows: Sequence[Row]) -> pa.Table:
    """Row n is at `address_of(n)`; the longer the larger the content's number."""
    columns = [
        digest(rows),
        digest([content for _, content in rows]),
        pa.array([length_of(content) for _, content in rows], pa.int64()),
        pa.array([address_of(number) for number in range(len(rows))], pa.uint64()),
    ]
    return pa.table(columns, schema=DESIRED_SCHEMA)


def length_of(content: int) -> int:
    return 10 + content


def address_of(number: int) -> int:
    return (int(FRAGMENTS[number % 3]) << 32) + number


@dataclass(frozen=True)
class Found:
    """All that `find_work` tells, in memory and by address."""

    embed: list[tuple[int, ...]]
    copies: list[tuple[int, ...]]
    reuse: list[tuple[int, ...]]
    vectors: list[list[float]]
    """Those that the donors have for `reuse`."""
    stale: list[int]
    code_points: int


def worked_out(generation: Generation, desired: Sequence[Row], memory: int) -> Found:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spill, "MEMORY_BYTES", memory)
        rows = desired_rows(desired)
        work = find_work(generation, generation.version, SPACE, [rows.slice(0, 3), rows.slice(3)], FRAGMENTS)
        parts = [pa.concat_tables(part.parts()).sort_by(ROW_ADDRESS) for part in (work.embed, work.copies, work.reuse)]
    embed, copies, reuse = ([(row[ROW_ADDRESS], row["length"]) for row in part.to_pylist()] for part in parts)
    donors = [parts[2][name].to_numpy() for name in ("source", "donor")]
    vectors = work.donors.vectors(*donors).tolist() if reuse else []
    assert work.rows == len(embed) + len(copies) + len(reuse)
    assert work.empty == (not work.rows and not len(work.stale))
    return Found(embed, copies, reuse, vectors, sorted(work.stale.tolist()), work.code_points)


rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), unique=True, max_size=8)


@settings(max_examples=25, deadline=None)
@given(rows, rows, rows, rows, rows, rows)
def test_work_is_all_that_is_lacking_and_needs_the_model_once_a_content(
    published: list[Row], gone: list[Row], later: list[Row], alike: list[Row], foreign: list[Row], desired: list[Row]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        add(store, ALIKE, alike)
        add(store, FOREIGN, foreign)
        if published:
            publish_version(store, add(store, OWN, published).version)
            remove(store, OWN, [row for row in published if row in gone])
        own = [row for row in published if row not in gone]
        new = [row for row in later if row not in own]
        if new:
            add(store, OWN, new)
        own += new
        generation = Generation(Collection.of(store, OWN), OWN)
        places = addresses_of(store.open(OWN)) if generation.version else {}

        work = worked_out(generation, desired, spill.MEMORY_BYTES)
        assert worked_out(generation, desired, 0) == work

    lacking = {address_of(number): content for number, (place, content) in enumerate(desired) if (place, content) not in own}
    at_hand = {content for _, content in (*published, *own, *alike)}
    first = {content: min(address for address in lacking if lacking[address] == content) for content in set(lacking.values()) - at_hand}
    assert work.embed == sorted((address, length_of(content)) for content, address in first.items())
    assert work.copies == [
        (address, length_of(lacking[address]))
        for address in sorted(lacking)
        if lacking[address] in first and address != first[lacking[address]]
    ]
    assert work.reuse == [(address, length_of(lacking[address])) for address in sorted(lacking) if lacking[address] in at_hand]
    assert work.code_points == sum(map(length_of, first))
    assert work.stale == sorted(places[hash] for hash in digest([row for row in own if row not in desired]).to_pylist())
    assert [content for content, _ in work.vectors] == [lacking[address] for address, _ in work.reuse]
    assert all(SPACES[list(SPACES)[int(table)]] == SPACE for _, table in work.vectors)


# Shards

lengths = st.lists(st.integers(1, 200), max_size=40)


@settings(deadline=None)
@given(lengths, st.sampled_from([0, 300, spill.MEMORY_BYTES]), st.integers(1, 12), st.randoms(use_true_random=False), st.data())
def test_shards_hold_each_content_once_in_stored_order_and_keep_to_their_limits(
    lengths: list[int], memory: int, most_rows: int, random: Random, data: st.DataObject
) -> None:
    of_address = {address_of(number): length for number, length in enumerate(lengths)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spill, "MEMORY_BYTES", memory)
        patched.setattr(work_module, "SHARD_ROWS", most_rows)
        work = work_of(random.sample(list(of_address.items()), len(of_address)))
        cutter = Cutter(work, 4.0, count())
        estimate = {address: length / 4 + TOKENS_A_TEXT for address, length in of_address.items()}
        assert abs(cutter.tokens - sum(estimate.values())) <= 1
        shards = []
        while shard := cutter.cut(tokens := data.draw(st.integers(1, 200))):
            held = shard.addresses.tolist()
            total = sum(estimate[address] for address in held)
            assert shard.contents == len(held) == 1 or (1 <= len(held) <= most_rows and total <= tokens + 1e-6)
            shards.append(shard)
        assert cutter.cut(1) is None
    assert [address for shard in shards for address in shard.addresses.tolist()] == sorted(of_address)
    assert [shard.number for shard in shards] == list(range(len(shards)))


def work_of(rows: Sequence[tuple[int, int]]) -> Work:
    """Contents that need the model, by address and length."""
    work = Work(Donors(Generation(Collection.of(Store("unused"), OWN), OWN), None, SPACE), FRAGMENTS)
    schema = work.embed.schema
    for row in rows:
        work.embed.add(pa.Table.from_pylist([dict(zip(schema.names, row, strict=True))], schema=schema))
        work.code_points += row[1]
    return work
