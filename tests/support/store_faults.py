"""Faults of the object store that meet a load and an update, by kind and by request; and random mixtures of them."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.disturbances import Rehearsed, Tally, judge, rehearse
from tests.support.mortal import Setting
from tests.support.objectstore import BUCKET, ObjectStore
from tests.support.proxy import Fault, FaultProxy, Kind
from tests.support.scenes import SCENES, Place, Reader

SILENT_SECONDS = 10.0
"""Longer than `tests.support.mortal` lets a client wait."""


@dataclass(frozen=True, slots=True)
class Target:
    """Requests that a fault may meet."""

    method: str
    path: str
    """Regex."""


TARGETS: Mapping[str, Target] = {
    "data file": Target("PUT", r"\.(chunks|vectors)\.\w+\.lance/data/"),
    "manifest": Target("PUT", r"\.(chunks|vectors)\.\w+\.lance/_versions/"),
    "tag": Target("PUT", r"/tags/"),
    "catalog": Target("PUT", r"catalog\.lance/"),
    "ledger": Target("PUT", r"_revector/docs/(fence|runs|built|evaluations|live)"),
    "file list": Target("PUT", r"_revector/docs/files/"),
    "reading a table": Target("GET|HEAD", r"\.lance/"),
    "reading the ledger": Target("GET|HEAD", r"_revector/docs/"),
    "listing": Target("LIST", ""),
}
WRITING: Sequence[Kind] = ("500", "503", "drop", "drop after", "hang", "late")
READING: Sequence[Kind] = ("500", "503", "drop", "cut", "hang")


@contextmanager
def behind_a_proxy(folder: Path, store: ObjectStore, name: str) -> Iterator[tuple[Rehearsed, FaultProxy]]:
    """A scene, rehearsed on the store, and the proxy that its command will go through."""
    place = Place(folder / name.replace(" ", "-"), f"s3://{BUCKET}/{folder.name}/{name.replace(' ', '-')}", store.environment())
    place.root.mkdir(parents=True)
    with FaultProxy(store) as proxy:
        yield rehearse(SCENES[name], place), proxy


def disturb(rehearsed: Rehearsed, proxy: FaultProxy, what: str, faults: Sequence[Fault]) -> Tally:
    """The command with its requests struck; if it gave up, the same again on a store that is well. A reader looks on, past the proxy."""
    place, command = rehearsed.place, rehearsed.scene.command
    place.restore(rehearsed.before)
    proxy.clear()
    proxy.inject(*faults)
    with Reader(place) as reader:
        struck = place.run(*command, setting=Setting(environment=proxy.environment()))
        injected = len(proxy.hits)
        if struck.code:
            place.must(*command)
    told = judge(rehearsed, what, reader.seen, again=bool(struck.code), sprung=injected > 0)
    if struck.code not in {0, 1} or (struck.code and not _clear(struck.line)):
        told.complaints.append(f"{what}: expected success or one clear line, found exit code {struck.code}: {struck.line}")
    return replace(told, times=injected)


def _clear(line: str) -> bool:
    return "expected" in line and "found" in line and not re.search("LanceError|<|Traceback|--debug", line)


def by_request(rehearsed: Rehearsed, proxy: FaultProxy, kind: Kind, targets: Sequence[str], every: int = 1) -> Iterator[Tally]:
    """One fault of this kind at each of the requests of `targets` that the undisturbed command makes, or at one of so many."""
    for name in targets:
        target = TARGETS[name]
        for skip in range(0, count(rehearsed, proxy, target), every):
            fault = Fault(kind, target.method, target.path, skip=skip, seconds=SILENT_SECONDS)
            yield disturb(rehearsed, proxy, f"{kind} at {name} {skip + 1}", [fault])


def count(rehearsed: Rehearsed, proxy: FaultProxy, target: Target) -> int:
    """How many such requests the command makes."""
    rehearsed.place.restore(rehearsed.before)
    proxy.clear()
    rehearsed.place.must(*rehearsed.scene.command, setting=Setting(environment=proxy.environment()))
    fits = [hit for hit in proxy.requests if re.fullmatch(target.method, hit.method) and re.search(target.path, hit.path)]
    return len(fits)


def at_random(rehearsed: Rehearsed, proxy: FaultProxy, seed: int, faults: int = 12) -> Tally:
    """Some faults of any kind at any requests."""
    rng = random.Random(seed)
    chosen = []
    for _ in range(faults):
        target = rng.choice(list(TARGETS.values()))
        kind = rng.choice(WRITING if target.method == "PUT" else READING)
        chosen.append(Fault(kind, target.method, target.path, rng.choice([1, 1, 2, 4]), rng.randrange(12), SILENT_SECONDS))
    return disturb(rehearsed, proxy, f"at random, seed {seed}", chosen)


def away(rehearsed: Rehearsed, proxy: FaultProxy, seconds: float, after: int) -> Tally:
    """The store refuses all connections for so long, from its `after`th request on."""
    return disturb(rehearsed, proxy, f"away for {seconds:.0f} s", [Fault("away", skip=after, seconds=seconds)])


def table(folder: Path, store: ObjectStore, every: int = 1) -> Iterator[Tally]:
    """A row for each kind of fault: a load and an update, at each request or at one of so many."""
    scenes = ("first load", "update")
    for kind in dict.fromkeys([*WRITING, *READING]):
        targets = [name for name, target in TARGETS.items() if kind in (WRITING if target.method == "PUT" else READING)]
        yield _sum(f"object store: {kind}", _on(folder / kind.replace(" ", "-"), store, scenes, kind, targets, every))
    with behind_a_proxy(folder / "random", store, "update") as (rehearsed, proxy):
        yield _sum("object store: at random", (at_random(rehearsed, proxy, seed) for seed in range(max(1, 40 // every))))
    with behind_a_proxy(folder / "away", store, "update") as (rehearsed, proxy):
        yield _sum("object store: away for 30 s", (away(rehearsed, proxy, 30.0, after) for after in (5, 40, 80)))


def _on(folder: Path, store: ObjectStore, scenes: Sequence[str], kind: Kind, targets: Sequence[str], every: int) -> Iterator[Tally]:
    for name in scenes:
        with behind_a_proxy(folder, store, name) as (rehearsed, proxy):
            yield from by_request(rehearsed, proxy, kind, targets, every)


def _sum(fault: str, tallies: Iterator[Tally]) -> Tally:
    return sum(tallies, Tally(fault))
