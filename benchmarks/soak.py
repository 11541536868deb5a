"""Two coordinators, upkeep, readers and kill -9 on one collection at once, in processes, for minutes, on S3 and on disk.

Each coordinator has a corpus of its own that changes again and again, and applies it to the same collection: one at a time gets through,
the other one is refused. Upkeep compacts, cleans up and, now and then, rolls back. Readers take the whole published version, again and
again, and hold it against what the corpus said in the state that it claims to be; one holds each version for a while and reads it again.
In the end one more corpus is applied, and compared with a store that never saw any of this.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.collection import Collection
from storage.history.catalog import publications
from storage.history.decisions import find_pin
from storage.store.lance import Store
from tests.support.mortal import FORKS, Setting, end_with_the_rest, started
from tests.support.objectstore import BUCKET, serve
from tests.support.scenes import COLLECTION, OLD, Place, Reader, Seen, lost_and_doubled, meant

DOCUMENTS = 200
SHARD_TOKENS = 512
KILLED = 0.2
"""Share of commands that are killed, within KILL_SECONDS of their start."""
KILL_SECONDS = 2.0
RETENTION = "retention = { publications = 5, days = 0.001 }"
"""86 seconds: longer than any reader here holds a version."""
HELD_SECONDS = 8.0
SILENCE = 30.0
"""Seconds that the store may take for an answer: all of this may run on two cores."""
WAIT_SECONDS = 0.2
"""Of a coordinator, before it tries again."""


@dataclass
class Counts:
    """What a coordinator, or upkeep, has come by."""

    ended: Counter[str] = field(default_factory=Counter)
    """Commands by their end: `apply 0`, `apply 5`, `maintain killed` ..."""
    unexpected: list[str] = field(default_factory=list)
    """Ends that are neither success, nor a conflict, nor a kill."""


@dataclass(frozen=True)
class Soaked:
    """How it ended."""

    counts: Counts
    seen: tuple[Seen, ...]
    publications: int
    checked: int
    """Publications that were kept, and read again in the end."""
    lost: int
    doubled: int
    complaints: tuple[str, ...]

    @property
    def reader_errors(self) -> int:
        return sum(len(seen.errors) for seen in self.seen)

    @property
    def answers(self) -> int:
        return sum(seen.answers for seen in self.seen)

    @property
    def kills(self) -> int:
        return sum(count for end, count in self.counts.ended.items() if end.endswith("killed"))

    @property
    def flawless(self) -> bool:
        return not (self.lost or self.doubled or self.reader_errors or self.complaints)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=180.0, help="On each kind of store.")
    arguments.add_argument("--on", nargs="+", choices=["disk", "s3"], default=["disk", "s3"])
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    flawless = True
    for kind in options.on:
        with tempfile.TemporaryDirectory() as folder, place_on(kind, Path(folder)) as place:
            soaked = soak(place, options.seconds, options.seed)
        show(kind, options.seconds, soaked)
        flawless &= soaked.flawless
    sys.exit(not flawless)


@contextmanager
def place_on(kind: str, folder: Path) -> Iterator[Place]:
    """A place whose store is on disk or on a fresh S3 server."""
    with ExitStack() as closing:
        root, store, environment = folder / "place", str(folder / "place/store"), dict[str, str]()
        root.mkdir()
        if kind == "s3":
            store = f"s3://{BUCKET}/soak"
            environment = closing.enter_context(serve(folder / "server")).environment()
            os.environ.update(environment)
        yield Place(root, store, environment, DOCUMENTS)


def soak(place: Place, seconds: float, seed: int = 0) -> Soaked:
    """Do it, and look at what is left."""
    coordinators = [beside(place, name) for name in ("one", "two")]
    jobs: list[tuple[Callable[..., Counts], Place]] = [*((coordinate, each) for each in coordinators), (tend, coordinators[0])]
    stop = FORKS.Event()
    with ExitStack() as closing:
        readers = [closing.enter_context(Reader(place)), closing.enter_context(Reader(place, HELD_SECONDS))]
        at_work = [closing.enter_context(_Worker(job, where, seed + number, stop)) for number, (job, where) in enumerate(jobs)]
        stop.wait(seconds)
        stop.set()
        counts = [worker.counts() for worker in at_work]
    total = Counts(sum((each.ended for each in counts), Counter()), [told for each in counts for told in each.unexpected])
    return _settle(coordinators[0], total, tuple(reader.seen for reader in readers))


def beside(place: Place, name: str) -> Place:
    """The same store, with a spec and a corpus of its own."""
    made = Place(place.root / name, place.store, place.environment, place.documents)
    made.root.mkdir()
    made.spec(OLD, rest=RETENTION)
    return made


class _Worker:
    """A process that does a job until it is told to stop."""

    def __init__(self, job: Callable[..., Counts], place: Place, seed: int, stop: Any) -> None:
        self._here, there = FORKS.Pipe(duplex=False)
        self._process = FORKS.Process(target=_work, args=(job, place, seed, stop, there))

    def __enter__(self) -> "_Worker":
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.join()

    def counts(self) -> Counts:
        counts: Counts = self._here.recv()
        return counts


def _work(job: Callable[..., Counts], place: Place, seed: int, stop: Any, out: Any) -> None:
    end_with_the_rest()
    os.environ.update(place.environment)
    out.send(job(place, random.Random(seed), stop))  # noqa: S311


def coordinate(place: Place, rng: random.Random, stop: Any) -> Counts:
    """Change the corpus, and apply it until that is done."""
    counts = Counts()
    while not stop.is_set():
        place.write(rng.randrange(1_000_000))
        while not stop.wait(WAIT_SECONDS * rng.random()) and _command(place, counts, rng, "apply") != "0":
            pass
    return counts


def tend(place: Place, rng: random.Random, stop: Any) -> Counts:
    """Compact and clean up; now and then roll back, and release that."""
    counts = Counts()
    while not stop.wait(rng.random()):
        if rng.random() < 0.2:
            _command(place, counts, rng, "rollback", COLLECTION)
            _command(place, counts, rng, "resume", COLLECTION)
        else:
            _command(place, counts, rng, "maintain")
    return counts


def _command(place: Place, counts: Counts, rng: random.Random, *arguments: str) -> str:
    """Run it, and maybe kill it. Gives its exit code, or `killed`."""
    with started(
        place.root, *arguments, setting=Setting(shard_tokens=SHARD_TOKENS, silence=SILENCE, environment=place.environment)
    ) as command:
        if rng.random() < KILLED:
            time.sleep(KILL_SECONDS * rng.random())
            command.kill()
        ended = command.wait(300)
    end = "killed" if ended.code == -9 else str(ended.code)
    counts.ended[f"{arguments[0]} {end}"] += 1
    nothing_before = arguments[0] in {"rollback", "resume"} and ended.line.startswith("revector: expected")
    if end not in {"0", "5", "killed"} and not nothing_before:
        counts.unexpected.append(f"{' '.join(arguments)}: exit code {end}: {ended.line}")
    return end


def _settle(place: Place, counts: Counts, seen: tuple[Seen, ...]) -> Soaked:
    """Apply one more corpus, and hold all that is left against what it has to be."""
    place.write(-1)
    place.must("apply")
    if find_pin(Collection(Store(place.store), COLLECTION)):  # its release was killed
        place.must("resume", COLLECTION)
    complaints = list(counts.unexpected)
    if (status := place.must("apply", "--json").result["status"]) != "nothing":
        complaints.append(f"expected nothing left to do, found {status}")
    calm = Place(place.root / "calm", str(place.root / "calm/store"), documents=place.documents)
    calm.root.mkdir()
    calm.spec()
    calm.write(-1)
    calm.must("apply")
    lost, doubled = lost_and_doubled(place.published(), calm.published())
    history = publications(Collection(Store(place.store), COLLECTION))
    ever = {(row.epoch, row.version) for row in history}
    complaints += [f"a reader saw {saw}, which was never published" for each in seen for saw in each.states if saw[:2] not in ever]
    states = {saw[:2]: saw[2] for each in seen for saw in each.states}
    kept = [row for row in history if not row.removed]
    for row in kept:
        complaints += _differing(place, row, states)
    return Soaked(counts, seen, len(history), len(kept), lost, doubled, tuple(complaints))


def _differing(place: Place, row: Any, states: Mapping[tuple[int, int], int]) -> list[str]:
    """Whether a kept publication can still be read, and says what it said."""
    rows = Store(place.store).open(row.generation, row.version).to_table(columns=["chunk_id", "text"])
    texts = dict(zip(rows["chunk_id"].to_pylist(), rows["text"].to_pylist(), strict=True))
    state = int(texts["state#0"])
    good = len(texts) == len(rows) and texts == meant(state, place.documents) and states.get((row.epoch, row.version), state) == state
    return [] if good else [f"epoch {row.epoch} is not what was published"]


def show(kind: str, seconds: float, soaked: Soaked) -> None:
    """Print the counts."""
    ends = ", ".join(f"{end}: {count}" for end, count in sorted(soaked.counts.ended.items()))
    print(f"{kind}, {seconds:.0f} s: commands by exit code: {ends}")
    print(f"  {soaked.publications} publications, {soaked.checked} of them kept and read again; {soaked.kills} kills")
    print(f"  readers: {soaked.answers} answers in {len({s for seen in soaked.seen for s in seen.states})} versions")
    print(f"  reader errors {soaked.reader_errors}, rows lost {soaked.lost}, rows doubled {soaked.doubled}")
    for complaint in (*soaked.complaints, *(error for seen in soaked.seen for error in seen.errors)):
        print(f"  ! {complaint}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
