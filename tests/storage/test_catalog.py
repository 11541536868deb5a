"""The catalog: readers get one complete state, publishers of one collection take turns, and going back goes back."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lance import LanceDataset
from lance.commit import CommitConflictError

from pipelines.errors import CommitUnknown, Conflict, NotFound, RevectorError
from storage.collection import Collection
from storage.history import catalog
from storage.history.catalog import Publication, all_publications, current, publications, publish, published
from storage.history.decisions import promote, rollback
from storage.store.commit import Change, commit
from storage.store.lance import Store

SCHEMA = pa.schema([("n", pa.int64())])
VERSIONS = 12


def fill(store: Store) -> None:
    """Two generations, A and B, and a chunk table, of some versions each. Version v has v - 1 rows."""
    for table in ("A", "B", "chunks"):
        dataset = store.create(table, SCHEMA, {})
        for n in range(VERSIONS - 1):
            staged = store.stage(table, SCHEMA, pa.table({"n": [n]}).to_batches())
            dataset = commit(store, dataset, Change(np.zeros(0, dtype=np.uint64), staged), {})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(str(tmp_path_factory.mktemp("built")))
    fill(store)
    return store


@pytest.fixture
def store(built: Store, root: str) -> Store:
    return copy_of(built, root)


def copy_of(built: Store, root: str) -> Store:
    store = Store(root)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.objects.put(key, built.objects.get(key) or b""), built.objects.walk("")))
    return store


def publication(epoch: int, generation: str = "A", version: int = 1, collection: str = "c", run_id: str = "r") -> Publication:
    return Publication(
        collection=collection,
        epoch=epoch,
        action="publish",
        generation=generation,
        version=version,
        chunk_table="chunks",
        chunk_version=version,
        space=f"space of {generation}",
        model="{}",
        chunks=version - 1,
        dead_letters=0,
        restores=0,
        run_id=run_id,
        at="2026-01-01T00:00:00+00:00",
        who="me",
        why="",
    )


def state(found: Publication | None) -> tuple[str, int] | None:
    return (found.generation, found.version) if found else None


def outcomes(tasks: list[Callable[[], Any]]) -> list[str]:
    """Run all at once; "done", or the name of the error of ours that it raised."""
    barrier = threading.Barrier(len(tasks))

    def run(task: Callable[[], Any]) -> str:
        barrier.wait()
        try:
            task()
        except RevectorError as error:
            return type(error).__name__
        return "done"

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


def test_nothing_is_published_at_first(root: str) -> None:
    store = Store(root)
    collection = Collection(store, "c")
    assert current(collection) is None
    assert all_publications(store) == []
    for ask in (published, rollback):
        with pytest.raises(NotFound, match="revector apply c"):
            ask(collection)


def test_epoch_must_follow_the_current_one(store: Store) -> None:
    first = publish(store, publication(1))
    for epoch in (1, 3):
        with pytest.raises(Conflict):
            publish(store, publication(epoch, run_id="another"))
    assert all_publications(store) == [first]
    assert publish(store, first) == first  # the same again: its reply was lost
    assert all_publications(store) == [first]


def test_rollback_goes_to_what_readers_had_before_the_current_state_was_published(store: Store) -> None:
    for epoch in (1, 2, 3):
        publish(store, publication(epoch, version=epoch))
    assert state(rollback(Collection(store, "c"))) == ("A", 2)
    assert state(rollback(Collection(store, "c"))) == ("A", 1)
    with pytest.raises(NotFound):
        rollback(Collection(store, "c"))
    publish(store, publication(6, version=4))
    assert state(rollback(Collection(store, "c"))) == ("A", 1)  # not 3, which was taken back
    assert [row.restores for row in publications(Collection(store, "c"))] == [0, 0, 0, 2, 1, 0, 1]


def test_promotion_can_be_taken_back(store: Store) -> None:
    publish(store, publication(1, "A", 1))
    publish(store, publication(2, "B", 1))
    assert state(promote(Collection(store, "c"), "A", why="B is worse")) == ("A", 1)
    assert state(rollback(Collection(store, "c"))) == ("B", 1)
    with pytest.raises(NotFound, match="A, B"):
        promote(Collection(store, "c"), "C")


STEPS = st.lists(st.sampled_from(["publish A", "publish B", "promote A", "promote B", "rollback", "rollback"]), min_size=4, max_size=12)


def test_rollback_is_the_way_back_through_a_tree(built: Store, root: str) -> None:
    """Each publication and promotion grows a branch from the state that it replaced; a rollback goes to the parent."""

    @settings(max_examples=2 if Store(root).objects.remote else 6, deadline=None, suppress_health_check=list(HealthCheck))
    @given(STEPS)
    def check(steps: list[str]) -> None:
        store = copy_of(built, f"{root}/{uuid.uuid4().hex}")
        way: list[tuple[str, int]] = []
        last_of: dict[str, tuple[str, int]] = {}
        for epoch, step in enumerate(steps, 1):
            action, _, generation = step.partition(" ")
            before = current(Collection(store, "c"))
            next_epoch = before.epoch + 1 if before else 1
            if action == "publish":
                way.append((generation, epoch))
                publish(store, publication(next_epoch, generation, epoch))
            elif action == "promote" and generation in last_of:
                way.append(last_of[generation])
                promote(Collection(store, "c"), generation)
            elif action == "rollback" and len(way) > 1:
                way.pop()
                rollback(Collection(store, "c"))
            else:
                with pytest.raises(NotFound):
                    promote(Collection(store, "c"), generation) if action == "promote" else rollback(Collection(store, "c"))
            here = current(Collection(store, "c"))
            assert state(here) == (way[-1] if way else None)
            if here:
                assert here.space == f"space of {here.generation}"
                assert here.epoch == len(all_publications(store))
                last_of[here.generation] = way[-1]

    check()


def test_published_versions_survive_clean_up(store: Store) -> None:
    publish(store, publication(1, version=3))
    publish(store, publication(2, version=7))
    for table in ("A", "chunks"):
        store.open(table).cleanup_old_versions(older_than=timedelta(0), error_if_tagged_old_versions=False)
        for version in (3, 7):
            assert store.open(table, version).to_table().num_rows == version - 1
        with pytest.raises(NotFound):
            store.open(table, 5)
    assert state(rollback(Collection(store, "c"))) == ("A", 3)


def test_of_publishers_of_one_collection_one_wins(store: Store) -> None:
    for epoch in range(1, 3 if store.objects.remote else 9):
        rivals = [publication(epoch, version=epoch, run_id=str(n)) for n in range(6)]
        found = outcomes([lambda rival=rival: publish(Store(store.root), rival) for rival in rivals])
        assert sorted(found) == ["Conflict"] * 5 + ["done"]
        assert [row.epoch for row in all_publications(store)] == [*range(1, epoch + 1)]


def test_rollbacks_at_once_skip_no_state(store: Store) -> None:
    for epoch in (1, 2, 3, 4, 5):
        publish(store, publication(epoch, version=epoch))
    found = outcomes([lambda: rollback(Collection(Store(store.root), "c")) for _ in range(3)])
    assert set(found) <= {"done", "Conflict"}
    assert "done" in found
    assert [row.version for row in all_publications(store)] == [1, 2, 3, 4, 5, 4, 3, 2][: published(Collection(store, "c")).epoch]


def test_publishers_of_different_collections_all_succeed_and_readers_see_whole_states(store: Store) -> None:
    """From the first publication of a store on, when they also race to make the catalog."""
    root, done, seen = store.root, threading.Event(), []

    def read() -> None:
        while not done.is_set():
            seen.append(all_publications(Store(root)))

    def publish_some(collection: str) -> None:
        for epoch in (1, 2, 3):
            publish(Store(root), publication(epoch, version=epoch, collection=collection))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        found = outcomes([lambda n=n: publish_some(f"c{n}") for n in range(5)])
    finally:
        done.set()
        reader.join()
    assert found == ["done"] * 5
    final = all_publications(store)
    assert [(row.collection, row.epoch) for row in final] == [(f"c{n}", epoch) for n in range(5) for epoch in (1, 2, 3)]
    assert len(seen) > 3
    for earlier, later in zip(seen, [*seen[1:], final], strict=True):
        assert set(earlier) <= set(later) <= set(final)
    for rows in seen:
        epochs = {(row.collection, row.epoch) for row in rows}
        assert all(epoch == 1 or (collection, epoch - 1) in epochs for collection, epoch in epochs)


@pytest.mark.parametrize("error", [OSError, CommitConflictError])
def test_publication_whose_reply_was_lost_counts_once(store: Store, error: type[OSError]) -> None:
    publish(store, publication(1))
    real: Callable[..., Any] = LanceDataset.commit

    def land_and_fail(*args: Any, **options: Any) -> None:
        real(*args, **options)
        raise error("the reply was lost")

    with patch.object(LanceDataset, "commit", staticmethod(land_and_fail)):
        publish(store, publication(2))
    assert [row.epoch for row in all_publications(store)] == [1, 2]


def test_publication_that_failed_leaves_readers_where_they_were(store: Store) -> None:
    publish(store, publication(1))
    with patch.object(LanceDataset, "commit", side_effect=OSError("away")), pytest.raises(CommitUnknown):
        publish(store, publication(2, version=2))
    assert [row.epoch for row in all_publications(store)] == [1]
    assert publish(store, publication(2, version=2)) == current(Collection(store, "c"))


def test_thirty_publishers_at_once_all_publish(built: Store, tmp_path: Path) -> None:
    store = copy_of(built, str(tmp_path))
    publish(store, publication(1))
    found = outcomes([lambda n=n: publish(Store(store.root), publication(1, collection=f"c{n}")) for n in range(30)])
    assert found == ["done"] * 30


def test_a_publisher_that_never_gets_its_turn_says_that_nothing_was_published(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store, publication(1))
    monkeypatch.setattr(catalog, "PATIENCE_SECONDS", 0.1)
    with (
        patch.object(LanceDataset, "commit", side_effect=CommitConflictError("busy")),
        pytest.raises(Conflict, match="nothing was published"),
    ):
        publish(store, publication(2))
    assert len(all_publications(store)) == 1
