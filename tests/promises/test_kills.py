"""Real processes that are killed, stopped, or out of space at any write: the same command ends as if nothing had happened."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from storage.collection import Collection
from storage.history.ledger import newest_run
from storage.store.lance import Store
from storage.store.objects import Objects
from tests.flows.test_flow import until
from tests.support.disturbances import CannotMount, Rehearsed, Tally, kill, pause, rehearse, run_out_of_space, small_disk
from tests.support.mortal import Act, Point, Setting, Trap, die, die_with_all, kill_ray, kill_worker, started, stop
from tests.support.scenes import COLLECTION, SCENES, Place, look

Staged = Callable[..., Rehearsed]


@pytest.fixture
def staged(tmp_path: Path) -> Staged:
    """A scene, rehearsed in this test's folder, with its store there or elsewhere."""

    def at(scene: str, store: str = "") -> Rehearsed:
        return rehearse(SCENES[scene], Place(tmp_path, store or str(tmp_path / "store")))

    return at


def check(told: Tally) -> None:
    assert told.flawless, told.complaints
    assert told.answers


SOME = {
    "first load": [Point("chunk table", after=True), Point("catalog table", after=True)],
    "update": [
        Point("fence", after=True),
        Point("chunk commit", 2),
        Point("file list", 3),
        Point("receipt", 2, after=True),
        Point("vector commit", 2, after=True),
        Point("index"),
        Point("catalog swap"),
        Point("catalog swap", after=True),
    ],
    "maintain": [Point("chunk compaction", after=True), Point("vector compaction")],
}
"""Each table, and each kind of record."""


@pytest.mark.parametrize("scene", SOME)
def test_a_run_that_is_killed_is_finished_by_the_same_command(staged: Staged, scene: str) -> None:
    """At some points; `benchmarks.faults` takes all, also on S3."""
    rehearsed = staged(scene)
    for number, point in enumerate(SOME[scene]):
        told = kill(rehearsed, point, die_with_all if number % 2 else die)
        check(told)
        assert told.again == 1


def test_a_run_that_stands_still_and_is_overtaken_stops_when_it_goes_on(staged: Staged) -> None:
    rehearsed = staged("update")
    for point in (Point("chunk commit"), Point("index")):
        check(pause(rehearsed, point))


def test_of_two_runs_at_once_one_is_refused(staged: Staged) -> None:
    rehearsed = staged("update")
    place, command = rehearsed.place, rehearsed.scene.command
    place.restore(rehearsed.before)
    with started(place.root, *command, setting=Setting(Trap(Point("chunk commit"), stop))) as first:
        first.wait_stopped()
        refused = place.run(*command)
        first.go_on()
        assert first.wait().code == 0
    assert refused.code == 5
    assert "is in progress" in refused.line
    assert place.published().equals(rehearsed.expected)


@pytest.mark.parametrize("table", ["chunk", "vector"])
def test_a_compaction_that_comes_late_takes_no_row_from_who_has_planned_by_the_old_addresses(staged: Staged, table: str) -> None:
    """Upkeep stands still right before it compacts, is overtaken by an update that stands still right before it commits, and goes on."""
    rehearsed = staged("maintain")
    place = rehearsed.place
    place.restore(rehearsed.before)
    place.write(3)
    late = Setting(Trap(Point(f"{table} compaction"), stop))
    planned = Setting(Trap(Point(f"{table} commit"), stop), elsewhere=True)
    with started(place.root, "maintain", setting=late) as upkeep:
        upkeep.wait_stopped()
        with started(place.root, "apply", setting=planned) as update:
            update.wait_stopped()
            upkeep.go_on()
            assert upkeep.wait().code == 5
            update.go_on()
            assert update.wait().code == 5
    place.must("apply")
    assert look(place.store)[2] == 3


def test_a_full_disk_is_an_error_and_with_space_the_same_command_goes_on(staged: Staged, small: Path) -> None:
    rehearsed = staged("update", str(small / "store"))
    ended = [run_out_of_space(rehearsed, small, rest) for rest in range(0, 256 << 10, 128 << 10)]
    for told in ended:
        check(told)
    assert ended[0].again == 1


def test_a_full_disk_of_temporary_files_is_an_error_and_with_space_the_same_command_goes_on(staged: Staged, small: Path) -> None:
    spilling = Setting(spill=True, environment={"TMPDIR": str(small)})
    told = run_out_of_space(staged("update"), small, 0, spilling)
    check(told)
    assert told.again == 1


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    try:
        with small_disk(tmp_path / "small", 4 << 20) as folder:
            yield folder
    except CannotMount as error:
        pytest.skip(f"needs the right to mount a small file system (root, or CAP_SYS_ADMIN): {error}")


@pytest.mark.nightly
@pytest.mark.parametrize(("act", "number"), [(kill_worker, 1), (kill_worker, 3), (kill_ray, 1), (kill_ray, 3)])
def test_actors_and_all_of_ray_that_are_killed_while_they_work_cost_no_row(staged: Staged, act: Act, number: int) -> None:
    told = kill(staged("first load"), Point("receipt", number), act, Setting(ray=True))
    check(told)
    assert told.again == (act is kill_ray)


@pytest.mark.nightly
def test_a_driver_that_is_killed_under_a_living_flow_fails_it_and_the_next_flow_completes(prefect: SimpleNamespace, tmp_path: Path) -> None:
    place = Place(tmp_path, str(tmp_path / "store"), documents=20_000)
    place.spec()
    place.write(0)
    config = str(tmp_path / "revector.toml")
    objects = Objects(place.store)

    def kill_driver() -> None:
        run = until(lambda: newest_run(Collection(Store(objects.root), COLLECTION)), 120)
        until(lambda: run.read("intent.json"), 60)
        fence = objects.get_json(f"_revector/{COLLECTION}/fence/000000000001.json")
        os.kill(fence["pid"], signal.SIGKILL)

    killer = threading.Thread(target=kill_driver)
    killer.start()
    killed = prefect.sync(COLLECTION, config, return_state=True)
    killer.join()
    again = prefect.sync(COLLECTION, config, return_state=True)

    assert (killed.type.value, killed.name) == ("FAILED", "Failed")
    assert "found exit code -9: run again" in str(killed.result(raise_on_failure=False))
    assert again.name == "Published"
    assert look(place.store, place.documents)[2] == 0
