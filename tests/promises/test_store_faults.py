"""The object store fails in every way that it can: the same command ends as if it had not, and readers see published versions only."""

from collections.abc import Iterator

import pytest

from tests.support.disturbances import Rehearsed, Tally
from tests.support.objectstore import ObjectStore
from tests.support.proxy import Fault, FaultProxy, Kind
from tests.support.store_faults import READING, SILENT_SECONDS, TARGETS, WRITING, at_random, away, behind_a_proxy, disturb

Staged = tuple[Rehearsed, FaultProxy]


@pytest.fixture(scope="module")
def load(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staged]:
    with behind_a_proxy(tmp_path_factory.mktemp("faults"), object_store, "first load") as made:
        yield made


@pytest.fixture(scope="module")
def update(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staged]:
    with behind_a_proxy(tmp_path_factory.mktemp("faults"), object_store, "update") as made:
        yield made


def check(told: Tally) -> None:
    assert told.flawless, told.complaints
    assert told.answers


def second_of_each_sort(kind: Kind) -> list[Fault]:
    sorts = [target for target in TARGETS.values() if kind in (WRITING if target.method == "PUT" else READING)]
    return [Fault(kind, sort.method, sort.path, skip=1, seconds=SILENT_SECONDS) for sort in sorts]


@pytest.mark.parametrize("kind", ["503", "drop after"])
def test_one_request_of_each_sort_fails(update: Staged, kind: Kind) -> None:
    """All in one run; `tests.support.store_faults.table` takes requests alone."""
    check(disturb(*update, kind, second_of_each_sort(kind)))


@pytest.mark.nightly
@pytest.mark.parametrize("kind", dict.fromkeys([*WRITING, *READING]))
def test_one_request_of_each_sort_fails_in_any_way(load: Staged, update: Staged, kind: Kind) -> None:
    for staged in (load, update):
        check(disturb(*staged, kind, second_of_each_sort(kind)))


def test_requests_fail_at_random(update: Staged) -> None:
    check(at_random(*update, seed=0))


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(1, 11))
def test_requests_fail_at_random_again_and_again(load: Staged, update: Staged, seed: int) -> None:
    for staged in (load, update):
        check(at_random(*staged, seed))


@pytest.mark.nightly
@pytest.mark.parametrize("after", [5, 40, 80])
def test_run_waits_for_a_store_that_is_away_for_half_a_minute(update: Staged, after: int) -> None:
    told = away(*update, 30.0, after)
    check(told)
    assert not told.again
