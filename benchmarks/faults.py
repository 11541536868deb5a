"""The table of faults: what was injected into real processes, how often, and what was left of rows and readers. The last three must be 0.

Every write of a first load, an update, a change of the model and upkeep is a point: right before it, and once it has landed. After each
fault the store is compared with that of a run that nobody disturbed, to the last bit of every vector, while a reader in another process
looks again and again. Faults that tests of their own inject are run and counted below the table.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.soak import place_on, soak
from tests.support import store_faults
from tests.support.disturbances import CannotMount, Rehearsed, Tally, kill, pause, rehearse, run_out_of_space, small_disk
from tests.support.mortal import Point, Setting, die_with_all, kill_ray, kill_worker
from tests.support.objectstore import serve
from tests.support.scenes import SCENES, Place

TESTS = ("tests/workers/cluster/test_nodes.py", "tests/workers/test_pool.py", "tests/promises/test_nothing_is_lost.py")
"""With faults of their own: nodes and actors that are lost, hang or leak; death, errors and another run at each write, in one process."""
DISK_BYTES = 4 << 20
RESTS = range(0, 256 << 10, 16 << 10)
"""Bytes that a full disk has left: an update needs some 200 kB."""
RECEIPTS = range(1, 6)
Injection = Callable[[Rehearsed, Point], Tally]


@dataclass(frozen=True)
class Course:
    """What of it is run."""

    every: dict[str, int]
    """Of so many points, one, on each kind of store."""
    soak_seconds: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--every", type=int, default=1, help="Of so many points on disk, take one.")
    arguments.add_argument("--every-s3", type=int, default=5, help="The same on S3, where each takes several times as long.")
    arguments.add_argument("--soak", type=float, default=60.0, help="Seconds, on each kind of store.")
    arguments.add_argument("--no-tests", action="store_true", help="Leave out the faults that tests of their own inject.")
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    rows = list(injected(Course({"disk": options.every, "s3": options.every_s3}, options.soak)))
    lines = list(table(rows))
    tested = [] if options.no_tests else list(run_tests())
    lines += [f"- `{name}`: {passed} passed, {failed} failed" for name, passed, failed in tested]
    print("\n".join(["", *lines]))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join([*lines, ""]))
    sys.exit(not all(row.flawless for row in rows) or any(failed for _, _, failed in tested))


def injected(course: Course) -> Iterator[Tally]:
    """A row for each fault."""
    for kind, every in course.every.items():
        with tempfile.TemporaryDirectory() as folder, place_on(kind, Path(folder)) as place:
            scenes = [rehearse(scene, beside(place, name)) for name, scene in SCENES.items()]
            yield told(f"driver killed, {kind}", everywhere(scenes, kill, every))
            yield told(f"driver stopped, overtaken, continued, {kind}", everywhere(scenes, pause, every))
        soaks = (soaked(kind, seconds) for seconds in (course.soak_seconds,))
        yield told(f"two coordinators, upkeep, readers, kills at any time, {kind}", soaks)
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder) / "server") as store:
        os.environ.update(store.environment())
        yield from (told(row.fault, [row]) for row in store_faults.table(Path(folder) / "places", store, course.every["s3"]))
    with tempfile.TemporaryDirectory() as folder:
        load, update = (rehearse(SCENES[name], beside(Place(Path(folder), f"{folder}/stores"), name)) for name in ("first load", "update"))
        on_ray = Setting(ray=True)
        for fault, act in (
            ("actor killed", kill_worker),
            ("Ray killed", kill_ray),
            ("driver, Ray and actors killed at once", die_with_all),
        ):
            points = (Point("receipt", number) for number in RECEIPTS[:: course.every["disk"]])
            yield told(fault, (kill(load, point, act, on_ray) for point in points))
        try:
            yield from full_disks(Path(folder), update, RESTS[:: max(1, course.every["disk"] // 4)])
        except CannotMount as error:
            print(f"full disks: left out, {error}", flush=True)


def beside(place: Place, name: str) -> Place:
    """A folder and a store of its own."""
    folder = name.replace(" ", "-")
    made = Place(place.root / folder, f"{place.store}/{folder}", place.environment)
    made.root.mkdir()
    return made


def everywhere(scenes: list[Rehearsed], inject: Injection, every: int) -> Iterator[Tally]:
    return (inject(scene, point) for scene in scenes for point in scene.points[::every])


def full_disks(folder: Path, update: Rehearsed, rests: range) -> Iterator[Tally]:
    """Of the store, and of temporary files."""
    with small_disk(folder / "small", DISK_BYTES) as disk:
        scene = rehearse(SCENES["update"], beside(Place(folder, str(disk)), "full"))
        yield told("full disk", (run_out_of_space(scene, disk, rest) for rest in rests))
    with small_disk(folder / "temporary", DISK_BYTES) as disk:
        spilling = Setting(spill=True, environment={"TMPDIR": str(disk)})
        yield told("full disk of temporary files", (run_out_of_space(update, disk, rest, spilling) for rest in rests))


def soaked(kind: str, seconds: float) -> Tally:
    """A soak as a row: each kill is a fault, and was followed by another command."""
    with tempfile.TemporaryDirectory() as folder, place_on(kind, Path(folder)) as place:
        found = soak(place, seconds)
    errors = [error for seen in found.seen for error in seen.errors]
    complaints = [*found.complaints, *errors]
    return Tally("", found.kills, found.kills, found.lost, found.doubled, found.reader_errors, found.answers, complaints)


def told(fault: str, tallies: Iterable[Tally]) -> Tally:
    """Their sum; printed, with all that was not as it should be."""
    began, total = time.monotonic(), Tally(fault)
    for tally in tallies:
        total += tally
    print(
        f"{fault}: {total.times} times in {time.monotonic() - began:.0f} s, {'flawless' if total.flawless else 'NOT flawless'}", flush=True
    )
    for complaint in total.complaints:
        print(f"  ! {complaint}", flush=True)
    return total


def table(rows: list[Tally]) -> Iterator[str]:
    """Markdown."""
    yield "| fault | times injected | runs that needed a second command | rows lost | rows doubled | reader errors | answers to readers |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        cells = (row.fault, row.times, row.again, row.lost, row.doubled, row.reader_errors, f"{row.answers:,}")
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""


def run_tests() -> Iterator[tuple[str, int, int]]:
    """Each file of tests: how many passed, and how many did not."""
    for name in filter(os.path.exists, TESTS):
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            command = [sys.executable, "-m", "pytest", name, "-m", "nightly or not nightly", f"--junit-xml={report}"]
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
            suite = next(ElementTree.parse(report).iter("testsuite"))  # noqa: S314 - our own
        count = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
        failed = count["failures"] + count["errors"]
        yield name, count["tests"] - failed - count["skipped"], failed


if __name__ == "__main__":
    main()
