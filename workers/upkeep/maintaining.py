"""Upkeep of a collection: `maintain`, its `--erase`, and `drop`. Each is a run of its own: it takes the fence, and leaves a record.

What is rewritten holds the same rows as before, so what an earlier run finished, and what readers have, moves to the new versions. After
a crash at any line the same command goes on: whether rows are the same is read off the rows, not off a memory of what was done.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from pipelines.errors import RevectorError, SpecError
from pipelines.spec.declared import RetentionSpec
from pipelines.spec.running import MartsSpec
from storage.collection import Collection
from storage.history.catalog import Publication, current, publications, published
from storage.marts.handing import leave
from storage.marts.leaving import leave_marts
from storage.marts.postgres import address_of, fill, scrub
from storage.reports.kept_reports import reported_generations
from storage.tables.generations import generations, named
from storage.upkeep.maintenance import unchanged
from workers.observing.telemetry import observe
from workers.observing.telling import Report, silent
from workers.planning.live import live_generations
from workers.planning.state import State, read_state
from workers.planning.target import Target
from workers.runs.session import Session, open_session
from workers.upkeep.steps import Steps, Upkeep

YOUNG = timedelta(hours=1)
"""Versions that nothing refers to stay so long: a plan, a status or an evaluation may be reading them, and none of them takes the fence."""


def maintain(
    collection: Collection,
    retention: RetentionSpec,
    chunk_table: str | None,
    report: Report = silent,
    run_id: str | None = None,
    marts: MartsSpec | None = None,
) -> Upkeep:
    """Compact, index, publish the same rows in their better layout, and remove what nothing needs.

    `chunk_table`: the one that the spec declares, which stays whatever refers to it; None if that cannot be told: then all stay.
    Raises Conflict while another run has the collection.
    """
    with observe("maintain", collection, marts=marts) as observer:
        work = Steps(collection, retention, YOUNG, chunk_table)
        if not work.due():
            return observer.ended(Upkeep(collection.name, "nothing"), "nothing")
        with _held(collection, "maintain", report, run_id) as session, observer.follow(session.account):
            work.begin(session)
            work.tend()
            work.move()
            work.clean()
            return observer.ended(work.end("maintained"), "maintained")


def erase(target: Target, report: Report = silent, run_id: str | None = None) -> Upkeep:
    """Leave no byte of a document that is no longer in the corpus, and check that.

    Only the newest state of each live generation stays: no earlier publication can be rolled back to, and generations that nothing keeps
    current are dropped, as are all reports: atlases have vectors of what was there once. Files that no version refers to go, too, which is
    safe under the fence: no run is writing any, and one that was overtaken and does not know it yet looks for its files before it commits.

    Raises RevectorError if the corpus has changed since it was applied or readers do not have the newest state, StorageError if anything
    else is found in the store in the end, or if Postgres, where the spec has marts there, cannot be reached: the same command goes on.
    """
    collection = target.collection
    with _held(collection, "erase", report, run_id) as session:
        state = read_state(target)
        _check_newest(state, published(collection))
        work = Steps(collection, RetentionSpec(publications=1, days=0), timedelta(0), target.chunk_table.name, worn=0.0)
        work.begin(session)
        live = {kept.generation.name for kept in state.live.targets}
        for generation in generations(collection):
            if generation.name not in live:
                work.drop(generation.name)
        for reported in reported_generations(collection):
            work.forget_reports(reported)  # atlases hold vectors of what was there once, and records name it
        work.give_up()  # before anything is written anew: what an earlier publication pins is not
        work.tend()
        work.move()
        work.clean(all_else=True)
        work.check()
        done = work.end("erased")
    _erase_marts(target)
    return done


def _erase_marts(target: Target) -> None:
    """What is in Postgres of what was erased goes, too. Raises what `fill` does: nothing else would make up for it."""
    leave_marts(target.collection)
    if target.spec.marts.postgres:
        address = address_of(target.spec.marts.postgres)
        fill(address, target.collection)
        scrub(address, target.collection)


def drop(target: Target, name: str, force: bool = False, report: Report = silent) -> Upkeep:
    """Remove a generation, and its chunk table if nothing else needs that.

    Raises SpecError if readers have it, or if the spec declares it and `force` is not set: the next run would build it again.
    """
    collection = target.collection
    table = named(collection, [generation.name for generation in generations(collection)], name)
    _check_unread(collection, table)
    if not force and table in {kept.generation.name for kept in live_generations(target, publications(collection)).targets}:
        raise SpecError(
            f"expected a generation that the spec no longer declares, found {table}, which the next apply would build again: --force"
        )
    with _held(collection, "drop", report) as session:
        _check_unread(collection, table)  # again, now that no run can publish it
        work = Steps(collection, RetentionSpec(), YOUNG, target.chunk_table.name)
        work.begin(session)
        work.drop(table)
        work.remove_tables()
        done = work.end("dropped")
    leave(target.collection, marts=target.spec.marts)
    return done


def _check_unread(collection: Collection, table: str) -> None:
    here = current(collection)
    if here is not None and here.generation == table:
        raise SpecError(f"expected a generation that readers do not have, found {table}, which is published: promote another one first")


def _check_newest(state: State, here: Publication) -> None:
    """An erasure keeps what is newest, and nothing else: that must be what the corpus says, and what readers have."""
    collection = here.collection
    remedy = f"run `revector apply {collection}`, then erase"
    if state.pin:  # what it keeps from readers would stay, too
        raise RevectorError(
            f"expected readers that no rollback holds, found them {state.pin.summary}: `revector resume {collection}` first"
        )
    for table in state.tables.values():
        changed = [file for file in table.files.read if file.path not in table.known or table.known[file.path].file != file]
        if changed or table.files.gone:
            count = len(changed) + len(table.files.gone)
            raise RevectorError(f"expected the corpus of {collection} as it was last applied, found {count} files changed: {remedy}")
    for target in state.live.targets:
        if not state.finished(target):
            raise RevectorError(f"expected {target.generation.name} as a run finished it, found it unfinished: {remedy}")
    newest = state.vectors.get(here.generation)
    if newest is None or not unchanged(state.live.subject.store, here.generation, here.version, newest):
        raise RevectorError(
            f"expected readers on the newest version of a live generation, found version {here.version} of {here.generation} "
            f"(newest {newest}): promote or apply what they shall have, then erase"
        )


@contextmanager
def _held(collection: Collection, kind: str, report: Report, run_id: str | None = None) -> Iterator[Session]:
    """A run of upkeep. Raises Conflict while another run has the collection."""
    with open_session(collection, report, run_id) as session:
        session.begin(upkeep=kind)
        yield session
