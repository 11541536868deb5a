"""Faults that meet real processes, and what is left of a store after each: for the tests, and for the table of all of them."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from storage.collection import Collection
from storage.history.catalog import publications
from storage.store.lance import Store
from tests.support.mortal import Act, Ended, Point, Setting, Trap, die, started, stop
from tests.support.scenes import COLLECTION, Place, Reader, Scene, Seen, lost_and_doubled


@dataclass
class Tally:
    """What became of a fault that was injected again and again: a row of the table."""

    fault: str
    times: int = 0
    again: int = 0
    """Runs after which another command was needed."""
    lost: int = 0
    """Rows."""
    doubled: int = 0
    """Rows that should not be there, the same twice or outdated."""
    reader_errors: int = 0
    answers: int = 0
    """That readers got meanwhile."""
    complaints: list[str] = field(default_factory=list)
    """What else was not as it should be, each with the point."""

    @property
    def flawless(self) -> bool:
        return not (self.lost or self.doubled or self.reader_errors or self.complaints)

    def __add__(self, other: "Tally") -> "Tally":
        numbers = ("times", "again", "lost", "doubled", "reader_errors", "answers")
        sums = {name: getattr(self, name) + getattr(other, name) for name in numbers}
        return Tally(self.fault, **sums, complaints=[*self.complaints, *other.complaints])


@dataclass(frozen=True)
class Rehearsed:
    """A scene whose undisturbed course is known."""

    scene: Scene
    place: Place
    before: Mapping[str, bytes]
    """The store, before the command."""
    writes: tuple[Point, ...]
    """Of the command, but for the later beats of its heart: those depend on the clock."""
    expected: pa.Table
    """What readers get in the end."""

    @property
    def points(self) -> list[Point]:
        """Before and after each write."""
        return [replace(write, after=after) for write in self.writes for after in (False, True)]


def rehearse(scene: Scene, place: Place) -> Rehearsed:
    """Prepare the scene, and run it undisturbed."""
    scene.prepare(place)
    before = place.keep()
    ended = place.must(*scene.command)
    writes = tuple(write for write in ended.writes if write.name != "heartbeat" or write.number == 1)
    return Rehearsed(scene, place, before, writes, place.published())


def kill(rehearsed: Rehearsed, point: Point, act: Act = die, setting: Setting = Setting()) -> Tally:  # noqa: B008 - frozen
    """The command, struck at `point`; if that ended it, the same command again."""
    place, command = rehearsed.place, rehearsed.scene.command
    place.restore(rehearsed.before)
    with Reader(place) as reader:
        struck = place.run(*command, setting=replace(setting, trap=Trap(point, act)))
        if struck.code:
            place.must(*command)
    return judge(rehearsed, str(point), reader.seen, again=bool(struck.code), sprung=point in _sprung(struck, point))


def pause(rehearsed: Rehearsed, point: Point, meanwhile: Callable[[Place], object] = lambda _: None) -> Tally:
    """The command is stopped at `point` for longer than others wait; another process takes over, from elsewhere, and ends; it goes on.

    What is published by then must stay. `meanwhile`: what happens before the other one begins.
    """
    place, command = rehearsed.place, rehearsed.scene.command
    place.restore(rehearsed.before)
    setting = Setting(Trap(point, stop), environment=place.environment)
    with Reader(place) as reader:
        with started(place.root, *command, setting=setting) as paused:
            paused.wait_stopped()
            meanwhile(place)
            place.must(*command, setting=Setting(elsewhere=True))
            paused.go_on()
            ended = paused.wait()
        place.must(*command)
    tally = judge(rehearsed, str(point), reader.seen, again=True)
    if not _stopped_well(rehearsed, point, ended):
        tally.complaints.append(f"{point}: expected exit code 5 of who was overtaken, found {ended.code}: {ended.line}")
    return tally


def _stopped_well(rehearsed: Rehearsed, point: Point, ended: Ended) -> bool:
    """A conflict; or it had not looked yet, and found nothing to do any more; or nothing is left at `point` that needs the right to it."""
    last = [write for write in rehearsed.writes if write.name in {"catalog swap", "clean-up"}][-1]
    done = replace(last, after=last.name == "catalog swap")  # a swap is refused itself; before a clean-up the fence is looked at
    over = rehearsed.points.index(point) >= rehearsed.points.index(done)
    return ended.code == 5 or (ended.code == 0 and (over or ended.result["status"] == "nothing"))


def _sprung(ended: Ended, point: Point) -> tuple[Point, ...]:
    return tuple(replace(write, after=point.after) for write in ended.writes)


def judge(rehearsed: Rehearsed, point: str, seen: Seen, again: bool, sprung: bool = True) -> Tally:
    """Hold the store and what readers saw against the undisturbed course; the same command must find nothing left to do."""
    place, scene = rehearsed.place, rehearsed.scene
    lost, doubled = lost_and_doubled(place.published(), rehearsed.expected)
    complaints = [] if sprung else ["the run never came there"]
    last = place.must(*scene.command).result["status"]
    if last != "nothing":
        complaints.append(f"expected nothing left to do, found {last}")
    ever = {(row.epoch, row.version) for row in publications(Collection(Store(place.store), COLLECTION))}
    wrong = [f"a reader saw {saw}" for saw in seen.states if saw[:2] not in ever or saw[2] not in scene.states]
    errors = [*seen.errors, *wrong]
    told = [f"{point}: {complaint}" for complaint in (*complaints, *errors)]
    if lost or doubled:
        told.append(f"{point}: {lost} rows lost, {doubled} doubled")
    return Tally("", 1, int(again), lost, doubled, len(errors), seen.answers, told)


def run_out_of_space(rehearsed: Rehearsed, disk: Path, rest: int, setting: Setting = Setting()) -> Tally:  # noqa: B008 - frozen
    """The command while `disk`, where the store or temporary files are, has `rest` bytes left; then there is space, and the same again."""
    place, command = rehearsed.place, rehearsed.scene.command
    place.restore(rehearsed.before)
    with Reader(place) as reader:
        ballast = fill_up(disk, rest)
        struck = place.run(*command, setting=setting)
        ballast.unlink()
        if struck.code:
            place.must(*command, setting=setting)
    tally = judge(rehearsed, f"{rest} bytes left", reader.seen, again=bool(struck.code))
    if struck.code not in {0, 1} or (struck.code and "No space left on device" not in struck.line):
        tally.complaints.append(f"{rest} bytes left: expected to be told of it, found exit code {struck.code}: {struck.line}")
    return tally


class CannotMount(Exception):
    """No right to mount a file system: that takes root, or CAP_SYS_ADMIN."""


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """`folder` as a file system of `size` bytes. Raises CannotMount."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        raise CannotMount(mounted.stderr.decode().strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_up(folder: Path, rest: int) -> Path:
    """A file that leaves `rest` bytes of the file system of `folder`; its space is given back when it is removed."""
    ballast = folder / ".ballast"
    status = subprocess.run(["df", "--output=avail", "-B1", str(folder)], capture_output=True, text=True, check=True)
    ballast.write_bytes(bytes(max(0, int(status.stdout.split()[-1]) - rest)))
    return ballast
