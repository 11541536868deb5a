"""Rows that do not fit in memory come back as they were: each once, equal keys together, and nothing of them stays on disk."""

import gc
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.content.chunks import HASH
from pipelines.fingerprint import digests
from storage.store import spill
from storage.store.lance import ROW_ADDRESS
from storage.store.spill import PartOf, Spill, by_fragment, by_hash, matched

SCHEMA = pa.schema([("key", HASH), ("name", pa.string()), (ROW_ADDRESS, pa.uint64())])
FRAGMENTS = np.array([0, 3, 4, 700, 10_000], dtype=np.uint64)
NOTHING = 0
SOME = 500
"""Bytes: of a few batches."""
PLENTY = 1 << 20
Row = tuple[int, int, int]
"""Its key, and its address: the fragment's place in FRAGMENTS, and the offset in it."""

batches = st.lists(st.lists(st.tuples(st.integers(0, 20), st.integers(0, len(FRAGMENTS) - 1), st.integers(0, 99)), max_size=6), max_size=8)
part_makers = st.sampled_from([by_hash("key"), by_fragment(ROW_ADDRESS, FRAGMENTS)])


def table(rows: Sequence[Row], first: int) -> pa.Table:
    """Rows as a scan gives them: columns in another order, one more, and a slice of something larger."""
    addresses = [(int(FRAGMENTS[place]) << 32) + offset for _, place, offset in rows]
    columns = {
        "name": [f"row {first + number}" for number in range(len(rows))],
        ROW_ADDRESS: pa.array(addresses, pa.uint64()),
        "further": list(range(len(rows))),
        "key": digests(pa.array([str(key) for key, _, _ in rows], pa.string())),
    }
    made = pa.table(columns)
    return pa.concat_tables([made.slice(0, 1), made]).combine_chunks().slice(len(made.slice(0, 1)))


def filled(added: Sequence[Sequence[Row]], part_of: PartOf) -> Spill:
    made = Spill(SCHEMA, part_of)
    count = 0
    for rows in added:
        made.add(table(rows, count))
        count += len(rows)
    assert made.rows == count
    return made


def rows_of(*parts: pa.Table) -> list[dict[str, Any]]:
    assert all(part.schema == SCHEMA for part in parts)
    return [row for part in parts for row in part.to_pylist()]


def by_key(parts: Sequence[pa.Table]) -> dict[bytes, list[dict[str, Any]]]:
    """The rows of each key, in order."""
    found: dict[bytes, list[dict[str, Any]]] = {}
    for row in rows_of(*parts):
        found.setdefault(row["key"], []).append(row)
    return found


@contextmanager
def memory(size: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spill, "MEMORY_BYTES", size)
        yield


@settings(max_examples=40, deadline=None)
@given(batches, part_makers, st.sampled_from([NOTHING, SOME]))
def test_rows_on_disk_are_those_that_memory_would_have_held(added: list[list[Row]], part_of: PartOf, size: int) -> None:
    in_memory = filled(added, part_of)
    with memory(size):
        spilled = filled(added, part_of)
        parts = list(spilled.parts())
        assert Counter(map(str, rows_of(*parts))) == Counter(map(str, rows_of(in_memory.whole())))
        assert rows_of(*spilled.parts()) == rows_of(*parts)  # as often as one likes
    assert in_memory.in_memory
    assert [part.num_rows for part in in_memory.parts()] == [sum(map(len, added))]
    assert size == SOME or spilled.in_memory == (not any(added))


@settings(max_examples=40, deadline=None)
@given(batches, st.sampled_from([NOTHING, SOME]))
def test_equal_keys_are_in_one_part_in_the_order_in_which_they_were_added(added: list[list[Row]], size: int) -> None:
    with memory(size):
        parts = [by_key([part]) for part in filled(added, by_hash("key")).parts()]
    assert max(Counter(key for part in parts for key in part).values(), default=1) == 1
    joined = {key: rows for part in parts for key, rows in part.items()}
    assert joined == by_key([filled(added, by_hash("key")).whole()])


@settings(max_examples=40, deadline=None)
@given(batches, st.sampled_from([NOTHING, SOME]))
def test_parts_by_fragment_follow_one_another_in_address_order(added: list[list[Row]], size: int) -> None:
    with memory(size):
        parts = list(filled(added, by_fragment(ROW_ADDRESS, FRAGMENTS)).parts())
    fragments = [sorted({row[ROW_ADDRESS] >> 32 for row in rows_of(part)}) for part in parts]
    joined = [fragment for part in fragments for fragment in part]
    assert joined == sorted(set(joined))
    if size == NOTHING:
        assert all(len(part) <= 1 for part in fragments)


@settings(max_examples=40, deadline=None)
@given(batches, batches, st.booleans(), st.booleans())
def test_equal_keys_of_two_meet_wherever_each_is_kept(left: list[list[Row]], right: list[list[Row]], one: bool, other: bool) -> None:
    expected = [by_key([filled(added, by_hash("key")).whole()]) for added in (left, right)]
    spills = []
    for added, on_disk in ((left, one), (right, other)):
        with memory(NOTHING if on_disk else PLENTY):
            spills.append(filled(added, by_hash("key")))
    with memory(NOTHING):
        pairs = [(by_key([mine]), by_key([theirs])) for mine, theirs in matched(*spills)]
    for side, wanted in enumerate(expected):
        assert {key: rows for pair in pairs for key, rows in pair[side].items()} == wanted
    keys = [pair[0].keys() | pair[1].keys() for pair in pairs]
    assert sum(map(len, keys)) == len(expected[0].keys() | expected[1].keys())


def test_memory_is_bounded_by_what_is_allowed() -> None:
    added = [[(key, 0, key) for key in range(start, start + 500)] for start in range(0, 20_000, 500)]
    with memory(100_000):
        spilled = filled(added, by_hash("key"))
        sizes = [part.nbytes for part in spilled.parts()]
    assert sum(sizes) > 700_000
    assert max(sizes) < 150_000


def test_no_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made: list[weakref.ref[Any]] = []
    make = tempfile.TemporaryFile

    def noted() -> Any:
        file = make()
        made.append(weakref.ref(file))
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", noted)
    with memory(NOTHING):
        spilled = filled([[(1, 0, 1)], [(2, 0, 1)]], by_hash("key"))
        assert len(list(spilled.parts())) == spill.PARTS
    del spilled
    gc.collect()
    assert [file() for file in made] == [None]
    assert not list(tmp_path.iterdir())
