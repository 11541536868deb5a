"""A run: from what the corpus says to a published version. The only committer of its collection."""

import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from pipelines.content.chunks import metadata_type, vector_schema
from pipelines.content.documents import DeadLetter, count_inputs
from pipelines.logs import log
from storage.history.built import Built, keep_built
from storage.history.catalog import Publication, identified, is_there, publish
from storage.history.decisions import find_pin, pinned_from
from storage.history.declaration import Declaration, declaration, declare
from storage.history.evaluations import keep_evaluation
from storage.marts.standing_rows import Looked
from storage.reading.versions import version_of
from storage.tables.index import update_index
from storage.who import now, whoami
from workers.embedding.encoding import Encoding
from workers.judging.case import Case
from workers.judging.gates import judge
from workers.judging.hard_gates import ROWS
from workers.observing.account import Tally
from workers.observing.telemetry import Observer, observe
from workers.observing.telling import ALL_READ, BuiltGeneration, Plan, Report, Result, Status, silent
from workers.planning.calibration import calibrate
from workers.planning.changes import classify_change
from workers.planning.objections import removed
from workers.planning.plan import counts, notes
from workers.planning.state import State, check_saved, pinned, read_state, thresholds
from workers.planning.target import Target
from workers.reports.run_reports import keep_current
from workers.runs.filling import Filling
from workers.runs.ingesting import CurrentChunks, ingest_corpus
from workers.runs.results import DEAD_LETTERS_KEPT, NOTHING, built_generation, failures, nothing_to_do
from workers.runs.session import Session, open_session


def apply(target: Target, saved: Plan | None = None, report: Report = silent, run_id: str | None = None) -> Result:
    """Bring all live generations of the collection up to date, and publish the main one. Resumes what was interrupted: the tables are the
    checkpoint.

    Then the reports that the spec declares are made of what readers have, without the fence.

    Raises Conflict while another run has the collection, PlanStale if `saved` no longer holds.
    """
    with observe("apply", target.collection, target.spec.schedule, target.spec.marts) as observer:
        result = _apply(target, saved, report, run_id, observer)
        reports = keep_current(target.collection, target.spec, report, result.run_id)
        return observer.ended(replace(result, reports=reports), result.status)


def _apply(target: Target, saved: Plan | None, report: Report, run_id: str | None, observer: Observer) -> Result:
    began, state = datetime.now(UTC), read_state(target)
    observer.published(state.current)
    if saved is not None:
        check_saved(saved, state)
    target.counting.keep()
    if state.settled:
        _declare(state)
        result = nothing_to_do(state)
        observer.saw(_looked(began, state, result))
        return result
    with open_session(target.collection, report, run_id, target.spec.prices) as session, observer.follow(session.account):
        began, state = datetime.now(UTC), read_state(target, state)
        if saved is not None:
            check_saved(saved, state)  # again, now that nobody else can change it
        result = _Application(session, state, observer).perform()
        observer.saw(_looked(began, state, result))
        return result


def _looked(began: datetime, state: State, result: Result) -> Looked:
    """What the run saw of the source. `began`: before it was listed, for a file may be changed while that goes on."""
    subject = state.live.subject
    return Looked(
        at=began,
        newest_source=state.table(subject).listed.newest,
        documents=sum(result.documents[kind] for kind in ("added", "changed", "unchanged")),
        chunks=sum(result.chunks[kind] for kind in ("added", "unchanged")),
        spec=subject.spec,
    )


def _declare(state: State) -> None:
    """Keep what the spec says now: a person who promotes or rolls back decides against that."""
    collection = state.live.subject.collection
    newest = Declaration(state.declared, tuple(target.generation.name for target in state.live.targets))
    if declaration(collection) != newest:
        declare(collection, newest)


class _Application:
    """What one run does, in order: the corpus into the chunk tables; then each generation, the one that readers have first."""

    def __init__(self, session: Session, state: State, observer: Observer) -> None:
        self._session = session
        self._observer = observer
        self._state = state
        self._change = classify_change(state, True)
        self._current = state.current
        """What readers have by now."""
        self._tables: dict[str, CurrentChunks] = {}
        self._filled: dict[str, tuple[int, Tally]] = {}
        self._main = Tally()
        """Of the main generation."""

    def perform(self) -> Result:
        self._write_intent()
        for name, table in self._state.tables.items():
            self._tables[name] = ingest_corpus(self._session, table)
        for target in self._state.live.wider:
            with Encoding(target, target.spec.workers, self._session.account.workforce) as encoding:
                self._fill(target, encoding)
        return self._finish([self._bring_up(target) for target in self._state.live.targets])

    def _write_intent(self) -> None:
        subject = self._state.live.subject
        _declare(self._state)
        self._session.begin(
            generation=subject.generation.name,
            space=subject.model.space.id,
            change=self._change.kind,
            reason=self._change.reason,
            identity=self._change.identity,
            pinned=pinned(self._state),
            spec=subject.spec.model_dump(mode="json"),
        )

    def _bring_up(self, target: Target) -> BuiltGeneration:
        """Fill, index, judge, and publish if that is its part. What is as it was is left alone."""
        state = self._state
        with Encoding(target, target.spec.workers, self._session.account.workforce) as encoding:
            version, tally = self._filled.get(target.generation.name) or self._fill(target, encoding)
            built = self._built(target, version, tally, encoding)
        if state.live.role(target) == "main":
            self._main = tally
        return built_generation(target, state.live.role(target), self._publish(target, built), built, tally)

    def _fill(self, target: Target, encoding: Encoding) -> tuple[int, Tally]:
        """Fill and index, unless no row of the chunk table is without a vector. Gives the version of the vectors, and what it took."""
        state, name = self._state, target.generation.name
        table, tally = self._tables[target.chunk_table.name], self._session.account.begin_generation()
        version = state.vectors[name]
        if version is None or table.version != state.table(target).version or not state.complete(target):
            began = time.monotonic()
            version = _index(self._session, target, _fill(self._session, target, tally, encoding, table.version))
            tally.seconds = time.monotonic() - began
        self._filled[name] = version, tally
        return version, tally

    def _built(self, target: Target, version: int, tally: Tally, encoding: Encoding) -> Built:
        """What becomes of the version: judged, unless it was, and nothing is new."""
        state, name = self._state, target.generation.name
        table = self._tables[target.chunk_table.name]
        dead = count_inputs(table.corpus.dead) + len(tally.failed)
        publication = _publication(self._session, target, version, table.version, dead)
        built = state.built[name]
        again = built is not None and _same(built.publication, publication)
        if built is not None and built.passed and state.at_rest(target) and again:
            return self._keep(replace(built, tries=built.tries + 1)) if tally.failed else built
        case = self._case(target, publication, built, encoding)
        judged = self._judge(target, publication, replace(case, failed=frozenset(tally.failed), lost=self._lost(target, tally)))
        return self._keep(replace(judged, tries=built.tries + 1)) if built is not None and again else judged

    def _case(self, target: Target, publication: Publication, before: Built | None, encoding: Encoding) -> Case:
        known = (target.model, *target.candidates)
        table, unmoved = self._state.table(target), self._current == self._state.current
        return Case(
            version=version_of(target.store, publication, known),
            spec=target.spec,
            encoding=encoding,
            served=version_of(target.store, self._current, known) if self._current and is_there(target.store, self._current) else None,
            since=before.publication.version if before and before.passed and not self._never_compared(target, before) else None,
            counted=removed(self._state, table, self._tables[table.target.chunk_table.name].corpus.summary()) if unmoved else None,
        )

    def _lost(self, target: Target, tally: Tally) -> tuple[int, int]:
        """Documents that could not be read or embedded, and of how many."""
        summary = self._tables[target.chunk_table.name].corpus.summary()
        return summary.failed + len(tally.failed_documents), summary.total

    def _judge(self, target: Target, publication: Publication, case: Case) -> Built:
        """Hold the version against its gates, and keep what came of it."""
        session = self._session
        session.account.tell("gates")
        with session.account.profile.stage("gates"):
            gates = judge(case)
        for gate in gates:
            log("gate", gate=gate.name, of=gate.kind, passed=gate.passed, value=gate.value, threshold=gate.threshold)
        built = Built(
            publication=publication,
            gates=[asdict(gate) for gate in gates],
            passed=all(gate.passed for gate in gates),
            failed=sorted(case.failed)[:DEAD_LETTERS_KEPT],
            thresholds=thresholds(target),
            lost=case.lost if publication.dead_letters else None,
            lacking=case.lacking if case.failed and all(gate.passed for gate in gates if gate.name == ROWS) else None,
        )
        built = self._keep(self._pinned(built))
        keep_evaluation(case.version, gates, session.run.run_id)
        return built

    def _pinned(self, built: Built) -> Built:
        """With what a rollback keeps from readers so far."""
        if self._state.pin is None:
            return built
        row, before = built.publication, self._state.built[built.publication.generation]
        base = pinned_from(self._state.history).epoch
        same = before is not None and before.withheld is not None and before.withheld[0] == base
        count = before.withheld[1] if before and before.withheld and same else 0
        known = any(row.tables == other.tables for other in [*self._state.history, *([before.publication] if before else [])])
        earlier = before.publication if before and before.passed else before.best if before and same else None
        best = None if built.passed else earlier
        return replace(built, withheld=(base, count + (built.passed and not known)), best=best)

    def _keep(self, built: Built) -> Built:
        self._session.fence.check()
        keep_built(self._session.collection.store, built)
        return built

    def _never_compared(self, target: Target, before: Built) -> bool:
        """Whether it passed when there was no other generation to compare it with, and now there is one."""
        compared = any(gate["name"] == "overlap" and gate["value"] is not None for gate in before.gates)
        return not compared and self._current is not None and self._current.generation != target.generation.name

    def _publish(self, target: Target, built: Built) -> Status:
        """Move the pointer, unless the gates or a person object, or readers had this already."""
        role = self._state.live.role(target)
        publication = built.publication
        if role == "candidate" or not built.passed:
            log("not published", generation=publication.generation, version=publication.version, gates_passed=built.passed)
            return "built"
        if self._state.pin:
            log("not published", generation=publication.generation, version=publication.version, pinned=self._state.pin.version)
            return "pinned"
        announced = self._state.announced(target)
        if announced is not None and _same(announced, publication):
            return "partial" if publication.dead_letters else "nothing"
        action = "publish" if target.generation.name == self._state.declared else "update"
        session = self._session
        session.account.tell("publish")
        session.fence.check()
        with session.account.profile.stage("publish"):
            epoch = self._current.epoch + 1 if self._current else 1
            self._current = publish(target.store, replace(publication, epoch=epoch, action=action, at=now()))
        self._observer.published(self._current)
        log("published", generation=publication.generation, version=publication.version, epoch=epoch, chunks=publication.chunks)
        return "partial" if publication.dead_letters else "published"

    def _finish(self, generations: list[BuiltGeneration]) -> Result:
        """Sum up all generations, and keep that as the record of the run: the list of its dead letters is cut, their count is not."""
        session = self._session
        subject = self._state.live.subject
        state = replace(self._state, pin=find_pin(subject.collection) if self._state.pin else None)  # which is further behind by now
        table = self._tables[subject.chunk_table.name]
        main = next(generation for generation in generations if generation.role == "main")
        documents, chunks, _ = counts(table.corpus.summary())
        spent = session.account.spent()
        tokens = sum(generation.embed["tokens"] for generation in generations)
        dead = [*table.corpus.dead, *(DeadLetter("chunk", "", chunk_id, reason) for chunk_id, reason in self._main.failed.items())]
        quiet = main.status != "built" and all(state.at_rest(one) and self._as_it_was(one, generations) for one in state.live.targets)
        result = Result(
            collection=subject.collection.name,
            generation=subject.generation.name,
            space=subject.model.space.id,
            change="none" if quiet else self._change.kind,
            documents=documents,
            chunks=chunks,
            embed={name: sum(generation.embed[name] for generation in generations) for name in NOTHING},
            reuse={"chunks": sum(generation.reuse["chunks"] for generation in generations)},
            run_id=session.run.run_id,
            status=main.status,
            version=main.version,
            dead_letters=count_inputs(dead),
            failed=failures(table.corpus.summary(), self._lost(subject, self._main)),
            tokens_per_second=tokens / spent["seconds"]["total"],
            reason=main.objection,
            gates=main.gates,
            identity=self._change.identity,
            generations=generations,
            notes=notes(state),
            pin=state.pin,
            unread={unit: sum(generation.unread[unit] for generation in generations) for unit in ALL_READ},
            ignored=dict(state.table(subject).listed.ignored),
            **spent,
        )
        session.run.write("result.json", {**asdict(result), "at": now(), "dead": [asdict(letter) for letter in dead[:DEAD_LETTERS_KEPT]]})
        return result

    def _as_it_was(self, target: Target, generations: list[BuiltGeneration]) -> bool:
        version = next(built.version for built in generations if built.generation == target.generation.name)
        unchanged = self._tables[target.chunk_table.name].version == self._state.table(target).version
        return unchanged and version == self._state.vectors[target.generation.name]


def _same(row: Publication, other: Publication) -> bool:
    """Whether readers would get the same rows, encode queries alike, and miss as many."""
    return _said(row) == _said(other)


def _said(row: Publication) -> tuple[int, int, Any, int]:
    return row.version, row.chunk_version, row.model_spec().get("query_prompt"), row.dead_letters


def _fill(session: Session, target: Target, tally: Tally, encoding: Encoding, chunk_version: int) -> int:
    """Fill the generation, which is made if it is not there, up to `chunk_version`. Gives the version of the vectors."""
    space = target.model.space
    metadata = metadata_type(target.store.open(target.chunk_table.name, chunk_version).schema)
    schema = vector_schema(metadata, space.dimension, space.dtype)
    version = target.store.create(target.generation.name, schema, target.generation_meta()).version
    return Filling(session, target, tally, encoding, chunk_version, version).perform(calibrate(target))


def _index(session: Session, target: Target, version: int) -> int:
    session.account.tell("index")
    session.fence.check()
    with session.account.profile.stage("index"):
        made = int(update_index(target.store.open(target.generation.name, version)).version)
    log("indexed", table=target.generation.name, version=made, renewed=made != version)
    return made


def _publication(session: Session, target: Target, version: int, chunk_version: int, dead: int) -> Publication:
    made = Publication(
        collection=target.collection.name,
        epoch=0,
        action="publish",
        generation=target.generation.name,
        version=version,
        chunk_table=target.chunk_table.name,
        chunk_version=chunk_version,
        space=target.model.space.id,
        model=target.model.spec.model_dump_json(),
        chunks=target.generation.count(version),
        dead_letters=dead,
        restores=0,
        run_id=session.run.run_id,
        at=now(),
        who=whoami(),
        why="",
    )
    return identified(target.store, made)
