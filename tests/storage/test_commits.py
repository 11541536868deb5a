"""Every commit is all or nothing, on exactly the version that it was planned against, whatever fails and whoever else commits."""

import json
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import patch

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from lance import LanceDataset
from lance.commit import CommitConflictError

from pipelines.errors import CommitUnknown, Conflict, RevectorError, StorageError
from storage.store.commit import Change, commit
from storage.store.lance import ROW_ADDRESS, Store, scan_table, table_meta, take

NESTED = pa.struct([("name", pa.string()), ("inner", pa.struct([("n", pa.int64())]))])
SCHEMA = pa.schema([pa.field("key", pa.int64(), nullable=False), pa.field("value", pa.int64()), pa.field("nested", NESTED)])
NOTHING = np.zeros(0, dtype=np.uint64)
LOST_REPLIES = [OSError, CommitConflictError]
Model = dict[int, dict[str, Any]]


def row(key: int, value: int) -> dict[str, Any]:
    nested = None if value % 5 == 0 else {"name": f"{key} ü", "inner": None if value % 3 == 0 else {"n": value}}
    return {"key": key, "value": value, "nested": nested}


def stage(store: Store, rows: Iterable[dict[str, Any]]) -> list[str]:
    """One fragment."""
    return store.stage("t", SCHEMA, [pa.RecordBatch.from_pylist(list(rows), schema=SCHEMA)])


def addresses(dataset: LanceDataset) -> dict[int, int]:
    found = scan_table(dataset, ["key"])
    return dict(zip(found["key"].to_pylist(), found[ROW_ADDRESS].to_pylist(), strict=True))


def address_array(found: Iterable[int]) -> np.ndarray:
    return np.array(list(found), dtype=np.uint64)


def content(dataset: LanceDataset) -> Model:
    rows = dataset.to_table().to_pylist()
    assert len({row["key"] for row in rows}) == len(rows) == dataset.count_rows()
    return {row["key"]: row for row in rows}


def table_of(root: str, *fragments: Iterable[int]) -> tuple[Store, LanceDataset]:
    """A table with a fragment of each of the given lists of keys."""
    store = Store(root)
    empty = store.create("t", SCHEMA, {"made": "here"})
    staged = [fragment for keys in fragments for fragment in stage(store, (row(key, key) for key in keys))]
    return store, commit(store, empty, Change(NOTHING, staged), {})


def failing(error: type[OSError], *, applied: bool) -> Any:
    """`LanceDataset.commit` raises, before or after it wrote."""
    real: Callable[..., Any] = LanceDataset.commit

    def fail(*args: Any, **options: Any) -> None:
        if applied:
            real(*args, **options)
        raise error("the reply was lost")

    return patch.object(LanceDataset, "commit", staticmethod(fail))


class Commits(RuleBasedStateMachine):
    """A table beside a dict; after every step they are the same, and so is every version that ever was."""

    keys = st.lists(st.integers(0, 11), max_size=6, unique=True)

    def __init__(self, root: str) -> None:
        super().__init__()
        self.store = Store(root)

    @initialize()
    def begin(self) -> None:
        self.dataset = self.store.create("t", SCHEMA, {})
        self.model: Model = {}
        self.addresses: dict[int, int] = {}
        self.values = iter(range(1_000_000))
        self.versions: dict[int, Model] = {self.dataset.version: {}}
        self.commits: dict[int, str] = {}

    def plan(self, upserted: list[int], deleted: list[int], cut: int) -> tuple[Change, Model]:
        """Take out and put in by what is known of addresses, without a look at the table: as a run does."""
        new = [row(key, next(self.values)) for key in upserted]
        fragments = [fragment for part in (new[:cut], new[cut:]) for fragment in stage(self.store, part)]
        out = [self.addresses[key] for key in {*upserted, *deleted} if key in self.addresses]
        after = {key: value for key, value in self.model.items() if key not in deleted} | {value["key"]: value for value in new}
        return Change(address_array(out), fragments), after

    def accept(self, dataset: LanceDataset, after: Model, name: str = "") -> None:
        found = addresses(dataset)
        untouched = [key for key, value in after.items() if self.model.get(key) is value]
        assert {key: found[key] for key in untouched} == {key: self.addresses[key] for key in untouched}
        assert dataset.version == self.dataset.version + 1
        self.dataset, self.model, self.addresses = dataset, after, found
        self.versions[dataset.version] = after
        self.commits[dataset.version] = name

    @rule(upserted=keys, deleted=keys, cut=st.integers(0, 6), name=st.text("abc", max_size=3))
    def change(self, upserted: list[int], deleted: list[int], cut: int, name: str) -> None:
        change, after = self.plan(upserted, [key for key in deleted if key not in upserted], cut)
        self.accept(commit(self.store, self.dataset, change, {"name": name}), after, name)

    @precondition(lambda self: len(self.versions) > 1)
    @rule(upserted=keys, deleted=keys, data=st.data())
    def change_stale(self, upserted: list[int], deleted: list[int], data: st.DataObject) -> None:
        """Planned against an older version, whichever rows it touches: it never lands."""
        old = self.store.open("t", data.draw(st.sampled_from(sorted(self.versions)[:-1])))
        there = addresses(old)
        fragments = stage(self.store, (row(key, next(self.values)) for key in upserted))
        with pytest.raises(Conflict):
            commit(self.store, old, Change(address_array(there[key] for key in {*upserted, *deleted} if key in there), fragments), {})

    @rule(upserted=keys, deleted=keys, error=st.sampled_from(LOST_REPLIES))
    def lose_the_reply(self, upserted: list[int], deleted: list[int], error: type[OSError]) -> None:
        change, after = self.plan(upserted, [key for key in deleted if key not in upserted], 3)
        with failing(error, applied=True):
            dataset = commit(self.store, self.dataset, change, {"name": "lost"})
        self.accept(dataset, after, "lost")

    @rule(upserted=keys, deleted=keys)
    def fail_before_anything_is_written(self, upserted: list[int], deleted: list[int]) -> None:
        change, after = self.plan(upserted, [key for key in deleted if key not in upserted], 3)
        with failing(OSError, applied=False), pytest.raises(StorageError):
            commit(self.store, self.dataset, change, {})
        assert self.store.open("t").version == self.dataset.version
        self.accept(commit(self.store, self.dataset, change, {"name": "again"}), after, "again")

    @invariant()
    def table_is_the_model(self) -> None:
        latest = self.store.open("t")
        assert latest.version == self.dataset.version
        assert content(latest) == self.model
        if self.model:
            keys = list(self.addresses)[::-1]
            found = take(latest, address_array(self.addresses[key] for key in keys), ["key", "value"]).to_pylist()
            assert found == [{"key": key, "value": self.model[key]["value"]} for key in keys]

    @precondition(lambda self: len(self.versions) > 4)
    @rule()
    def history_holds(self) -> None:
        for version, model in self.versions.items():
            assert content(self.store.open("t", version)) == model
        for version, name in self.commits.items():
            assert self.dataset.read_transaction(version).transaction_properties["name"] == name


def test_any_sequence_of_commits_leaves_what_a_dict_would_hold(root: str) -> None:
    examples = 3 if Store(root).objects.remote else 20
    checked = settings(max_examples=examples, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(lambda: Commits(f"{root}/{uuid.uuid4().hex}"), settings=checked)


KINDS: dict[str, tuple[slice, int]] = {
    "nothing": (slice(0), 0),
    "insert": (slice(0), 1),
    "delete in the first fragment": (slice(0, 1), 0),
    "delete another there": (slice(1, 2), 0),
    "delete in the last fragment": (slice(8, 9), 0),
    "remove the first fragment": (slice(0, 3), 0),
    "remove the last fragment": (slice(6, 9), 0),
    "remove all": (slice(9), 0),
    "upsert in the middle": (slice(4, 5), 1),
    "replace all": (slice(9), 1),
}


@pytest.mark.parametrize("first", KINDS)
def test_of_two_commits_planned_against_one_version_one_lands(root: str, first: str) -> None:
    store = Store(root)
    base = store.create("t", SCHEMA, {})
    kinds = list(KINDS)
    for second in [kinds[kinds.index(first) - 3]] if store.objects.remote else kinds:
        left = address_array(addresses(base).values())
        base = commit(store, base, Change(left, [f for n in (0, 3, 6) for f in stage(store, (row(n + i, 1) for i in range(3)))]), {})
        live = np.sort(address_array(addresses(base).values()))
        changes = [Change(live[KINDS[kind][0]], stage(store, [row(100, 1)]) if KINDS[kind][1] else []) for kind in (first, second)]
        landed = commit(store, base, changes[0], {})
        with pytest.raises(Conflict):
            commit(store, base, changes[1], {})
        base = store.open("t")
        assert base.version == landed.version
        assert len(content(base)) == 9 - len(changes[0].deleted) + len(changes[0].fragments)


def test_of_many_committers_at_once_one_lands(root: str) -> None:
    store, base = table_of(root, range(3), range(3, 6))
    live = np.sort(address_array(addresses(base).values()))
    changes = [Change(live[n : n + 1] if n % 2 else NOTHING, stage(store, [row(100 + n, 1)])) for n in range(6)]
    outcomes = at_once(
        [
            lambda change=change: commit(Store(store.root), Store(store.root).open("t", base.version), change, {}).version
            for change in changes
        ]
    )
    assert sorted(map(str, outcomes)) == sorted(["Conflict"] * 5 + [str(base.version + 1)])
    assert store.open("t").version == base.version + 1
    assert sum(key >= 100 for key in content(store.open("t"))) == 1


def at_once(tasks: list[Callable[[], Any]]) -> list[Any]:
    """What each gave, or the name of what it raised."""
    outcomes: list[Any] = [None] * len(tasks)
    barrier = threading.Barrier(len(tasks))

    def run(index: int) -> None:
        barrier.wait()
        try:
            outcomes[index] = tasks[index]()
        except RevectorError as error:
            outcomes[index] = type(error).__name__

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_of_many_makers_one_lands_so_none_overwrites_what_another_has_put_in(root: str) -> None:
    for attempt in range(4 if Store(root).objects.remote else 20):
        place = f"{root}/{attempt}"
        made = at_once([lambda n=n, place=place: Store(place).create("t", SCHEMA, {"maker": n}) for n in range(8)])
        assert len({table_meta(dataset)["maker"] for dataset in made}) == 1
        assert {dataset.version for dataset in [*made, Store(place).open("t")]} == {1}


@pytest.mark.parametrize("error", LOST_REPLIES)
def test_commit_whose_reply_was_lost_is_found_under_later_ones(root: str, error: type[OSError]) -> None:
    store, base = table_of(root, range(3))
    real: Callable[..., Any] = LanceDataset.commit

    def commit_then_let_another_one_in(*args: Any, **options: Any) -> None:
        landed = real(*args, **options)
        with patch.object(LanceDataset, "commit", staticmethod(real)):
            commit(store, landed, Change(NOTHING, stage(store, [row(51, 1)])), {})
        raise error("the reply was lost")

    staged = stage(store, [row(50, 1)])
    with patch.object(LanceDataset, "commit", staticmethod(commit_then_let_another_one_in)):
        landed = commit(store, base, Change(NOTHING, staged), {"run_id": "r"})
    assert landed.version == base.version + 1
    assert set(content(landed)) == {0, 1, 2, 50}
    assert set(content(store.open("t"))) == {0, 1, 2, 50, 51}


def test_failed_commit_is_a_conflict_only_if_another_one_came_first(root: str) -> None:
    store, base = table_of(root, range(3))
    with failing(OSError, applied=False), pytest.raises(StorageError, match="nothing was written") as failure:
        commit(store, base, Change(NOTHING, []), {})
    assert not isinstance(failure.value, Conflict | CommitUnknown)
    commit(store, base, Change(NOTHING, []), {})
    with failing(OSError, applied=False), pytest.raises(Conflict):
        commit(store, base, Change(NOTHING, []), {})


def test_outcome_that_cannot_be_looked_up_is_unknown(root: str) -> None:
    store, base = table_of(root, range(3))
    with failing(OSError, applied=True), patch.object(lance, "dataset", side_effect=OSError("away")), pytest.raises(CommitUnknown):
        commit(store, base, Change(NOTHING, []), {})


@pytest.mark.parametrize("damage", ["gone", "cut short"])
@pytest.mark.parametrize("deleted", [0, 2])
def test_staged_file_that_is_damaged_does_not_get_into_the_table(root: str, damage: str, deleted: int) -> None:
    store, base = table_of(root, range(3))
    staged = [*stage(store, [row(50, 1)]), *stage(store, [row(51, 1)])]
    file = f"t.lance/data/{json.loads(staged[1])['files'][0]['path']}"
    if damage == "gone":
        store.objects.delete(file)
    else:
        store.objects.put(file, (store.objects.get(file) or b"")[:-1])
    with pytest.raises(StorageError, match="staged file"):
        commit(store, base, Change(address_array(addresses(base).values())[:deleted], staged), {})
    assert set(content(store.open("t"))) == {0, 1, 2}


def test_nothing_to_write_stages_nothing(root: str) -> None:
    store, _ = table_of(root, range(3))
    assert store.stage("t", SCHEMA, []) == stage(store, []) == []


def test_address_of_a_deleted_row_is_refused_and_never_means_another_row(root: str) -> None:
    store, base = table_of(root, range(3), range(3, 6))
    live = np.sort(address_array(addresses(base).values()))
    emptied = commit(store, base, Change(live[2:], []), {})
    refilled = commit(store, emptied, Change(NOTHING, stage(store, [row(key, 9) for key in range(2, 6)])), {})
    assert not {*live[2:].tolist()} & {*addresses(refilled).values()}
    with pytest.raises(StorageError, match="found 2"):
        take(refilled, live[:3], ["key"])
    with pytest.raises(StorageError, match="compacted"):
        commit(store, refilled, Change(live[3:4], []), {})
    assert take(refilled, live[[1, 0, 1]], ["key"])["key"].to_pylist() == [1, 0, 1]


def test_compaction_never_lets_an_old_address_delete_another_row(root: str) -> None:
    store, base = table_of(root, range(3), range(3, 6))
    store.open("t").optimize.compact_files()
    compacted = store.open("t")
    assert compacted.version > base.version
    for dataset, expected in ((base, Conflict), (compacted, StorageError)):
        with pytest.raises(expected):
            commit(store, dataset, Change(address_array(addresses(base).values())[:1], []), {})
    assert set(content(store.open("t"))) == set(range(6))


def test_search_stays_exact_through_commits_on_an_indexed_table(root: str) -> None:
    """With all partitions probed an IVF_FLAT index is exact, so every miss is a row that a commit hid, doubled or brought back."""
    dimension, rng = 16, np.random.default_rng(0)
    schema = pa.schema([("key", pa.int64()), pa.field("nested", NESTED), pa.field("vector", pa.list_(pa.float32(), dimension))])

    def staged(keys: range) -> list[str]:
        flat = pa.array(rng.normal(size=len(keys) * dimension).astype(np.float32))
        nested = pa.nulls(len(keys), NESTED)
        vectors = pa.FixedSizeListArray.from_arrays(flat, dimension)
        return store.stage("t", schema, pa.table([pa.array(keys), nested, vectors], schema=schema).to_batches())

    def check() -> None:
        rows = table.to_table(columns=["key", "vector"])
        vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(-1, dimension)
        for query in rng.normal(size=(8, dimension)).astype(np.float32):
            nearest = {"column": "vector", "q": query, "k": 20, "metric": "l2", "nprobes": 8}
            found = table.scanner(columns=["key"], nearest=nearest).to_table()["key"].to_pylist()
            exact = np.argsort(((vectors - query) ** 2).sum(axis=1), kind="stable")[:20]
            assert found == rows["key"].take(pa.array(exact)).to_pylist()

    store = Store(root)
    table = commit(store, store.create("t", schema, {}), Change(NOTHING, [*staged(range(1000)), *staged(range(1000, 2000))]), {})
    table.create_index("vector", "IVF_FLAT", name="index", metric="l2", num_partitions=8)
    table = store.open("t")
    for change in range(3):
        live = address_array(addresses(table).values())
        table = commit(store, table, Change(live[change::9], staged(range(5000 + 50 * change, 5050 + 50 * change))), {})
        table = commit(store, table, Change(NOTHING, staged(range(6000 + 50 * change, 6050 + 50 * change))), {})
        check()
    remaining = table.count_rows(filter="key < 2000")
    assert table.stats.index_stats("index")["num_indexed_rows"] == remaining < 2000
    table.optimize.optimize_indices(num_indices_to_merge=0)
    table = store.open("t")
    assert table.stats.index_stats("index")["num_unindexed_rows"] == 0
    check()
