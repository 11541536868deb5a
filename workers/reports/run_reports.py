"""Reports of a version: made where there are none of it yet, and found again where there are. Takes no fence: it writes its own records
and tables only, each by a compare-and-swap, so it may run beside an `apply`, and be killed at any line."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pipelines.errors import NotFound, RevectorError, SpecError
from pipelines.fingerprint import fingerprint
from pipelines.logs import log, warn
from pipelines.spaces.known import known_models
from pipelines.spec.declared import CollectionSpec, Spec
from pipelines.spec.keys import nearest
from pipelines.spec.reports import KINDS, ReportKind, ReportOptions
from storage.collection import Collection
from storage.history.catalog import current
from storage.reading.versions import PUBLISHED, find_version, finished_versions, version_of
from storage.reports.atlas import Atlas, atlas_numbers, newest_atlas
from storage.reports.kept_reports import (
    KeptReport,
    find_report,
    forget_report,
    forget_reports,
    is_whole,
    keep_report,
    reported_versions,
)
from storage.reports.report_table import ReportTable
from storage.sources.labelled import declared_file, option_files
from storage.store.lance import Store
from storage.tables.checksums import Checksum, checksum, commit_of
from storage.tables.version import Version
from storage.who import new_run_id, now, whoami
from workers.observing.telemetry import observe
from workers.observing.telling import Progress, Report, silent
from workers.reports.analysis import Analysis, Findings, Rows, Study
from workers.reports.atlas.fitting import fit_atlas
from workers.reports.beside import rows_beside
from workers.reports.kinds import ANALYSES
from workers.reports.still_there import is_in_store, taken_away, while_there

ROWS = "rows"
"""The kind of the record that the others stand on: which version of the table of rows is of which version."""


@dataclass(frozen=True, slots=True)
class Reported:
    """What reports say of a version."""

    collection: str
    generation: str
    version: int
    reports: tuple[KeptReport, ...]
    made: tuple[str, ...]
    """The kinds that were not there before."""
    seconds: float
    failed: dict[str, str] = field(default_factory=dict)
    """What was in the way of others, by kind."""

    @property
    def gates(self) -> list[Any]:
        """What is held against a limit, of all of them."""
        return [gate for kept in self.reports for gate in kept.gates]

    @property
    def outcomes(self) -> dict[str, str]:
        """What became of each, by kind."""
        return {kept.kind: _outcome(kept, kept.kind in self.made) for kept in self.reports} | self.failed

    @property
    def exit_code(self) -> int:
        """Of the command line: 3 if something is beyond its limit, 1 if a report could not be made."""
        return 3 if not all(kept.passed for kept in self.reports) else 1 if self.failed else 0


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for, beside the kinds."""

    generation: str = PUBLISHED
    version: int | None = None
    """Of the vectors table; None: what readers have, or the newest of the generation."""
    since: int | None = None
    """The version to compare with; None: the newest before that was reported on."""
    refit: bool = False
    """Whether to make a new atlas."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A version as an atlas shows it."""

    map: KeptReport
    """What its map says."""
    atlas: Atlas
    rows: Rows
    before: Rows | None
    """An earlier version by the same atlas; None where there is none."""


def report(
    spec: Spec, name: str | None, kinds: Sequence[str] = (), wish: Wish | None = None, tell: Report = silent, run_id: str | None = None
) -> Reported:
    """Reports of `kinds`, or of those that the spec declares, or of a map. What there is already is not made again.

    Raises NotFound without such a version, SpecError for what is no kind or a file that is not right, ModelError where texts must be
    encoded and the model is not at hand, Conflict if another report changes the same tables.
    """
    name, declared = spec.collection(name)
    chosen = _chosen(declared, kinds)
    collection = Collection(Store(spec.store), name)
    with observe("report", collection, declared.schedule, declared.marts) as observer:
        made = _Desk(collection, declared, wish or Wish(), tell, run_id or new_run_id()).work(chosen)
        return observer.ended(made, {0: "reported", 1: "partly reported", 3: "beyond its limit"}[made.exit_code])


def keep_current(collection: Collection, declared: CollectionSpec, tell: Report, run_id: str | None) -> dict[str, str]:
    """Make the declared reports of what readers have that are not there yet. Gives what became of each kind, by name.

    What is in the way of one is in the way of that one only: it is told, and tried again by the next run.
    """
    if not declared.reports.kinds or current(collection) is None:
        return {}
    desk = _Desk(collection, declared, Wish(), tell, run_id or new_run_id())
    return {kind: desk.attempt(kind) for kind in declared.reports.kinds}


def lacking(collection: Collection, declared: CollectionSpec) -> tuple[ReportKind, ...]:
    """Declared reports that `keep_current` would make. Makes nothing."""
    if not declared.reports.kinds or current(collection) is None:
        return declared.reports.kinds
    desk = _Desk(collection, declared, Wish(), silent, "")
    return tuple(kind for kind in declared.reports.kinds if desk.lacks(kind))


def sight(spec: Spec, name: str | None, wish: Wish | None = None, tell: Report = silent, run_id: str | None = None) -> Mapped:
    """A version to look at; its atlas, its rows beside it and its map are made where they are not there. Raises as `report`."""
    name, declared = spec.collection(name)
    return _Desk(Collection(Store(spec.store), name), declared, wish or Wish(), tell, run_id or new_run_id()).sight()


def described_rows(spec: Spec, name: str | None, wish: Wish | None = None) -> tuple[Version, Rows | None]:
    """A version, and its rows beside the newest atlas if they were described. Makes nothing. Raises NotFound without such a version."""
    name, declared = spec.collection(name)
    return _Desk(Collection(Store(spec.store), name), declared, wish or Wish(), silent, new_run_id()).described_rows()


def _chosen(declared: CollectionSpec, kinds: Sequence[str]) -> tuple[ReportKind, ...]:
    """Raises SpecError for a word that is none."""
    for kind in kinds:
        if kind not in ANALYSES:
            raise SpecError(f"expected some of {', '.join(ANALYSES)}, found {kind!r}{nearest(kind, ANALYSES)}")
    return tuple(kind for kind in KINDS if kind in kinds) or declared.reports.kinds or ("map",)


def _outcome(kept: KeptReport, new: bool) -> str:
    return "beyond its limit" if not kept.passed else "made" if new else "kept"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A report, before it is known whether it is there."""

    kind: ReportKind
    options: ReportOptions
    files: dict[str, bytes]
    """What is in the files that the options name, by key."""
    before: Version | None
    """What it compares with."""
    identity: str


class _Desk:
    """Reports of one version."""

    def __init__(self, collection: Collection, declared: CollectionSpec, wish: Wish, tell: Report, run_id: str) -> None:
        self._collection = collection
        self._declared = declared
        self._wish = wish
        self._tell = tell
        self._run_id = run_id
        self._known = tuple(known_models((declared.model, *declared.candidates)))
        self._placed: dict[int, Rows] = {}
        self._sums: dict[int, Checksum] = {}

    def work(self, kinds: Sequence[ReportKind]) -> Reported:
        began = time.monotonic()
        reports, made, failed = [], [], dict[str, str]()
        version = self._version
        for kind in kinds:
            tried = self._one(kind) if len(kinds) == 1 else self._tried(kind)
            if isinstance(tried, str):
                failed[kind] = tried
                continue
            kept, new = tried
            reports.append(kept)
            if new:
                made.append(kind)
        seconds = time.monotonic() - began
        return Reported(self._collection.name, version.generation, version.number, tuple(reports), tuple(made), seconds, failed)

    def attempt(self, kind: ReportKind) -> str:
        """What became of a report: `made`, `kept`, `beyond its limit`, or the error that was in its way."""
        tried = self._tried(kind)
        return tried if isinstance(tried, str) else _outcome(*tried)

    def _tried(self, kind: ReportKind) -> tuple[KeptReport, bool] | str:
        """As `_one`, or the error that was in the way."""
        try:
            return self._one(kind)
        except RevectorError as error:
            warn("not reported", kind=kind, error=type(error).__name__)
            return str(error)

    def sight(self) -> Mapped:
        kept, _ = self._one("map")
        before = self._rows(self._before) if self._before else None
        return Mapped(kept, self._atlas, self._rows(self._version), before)

    def described_rows(self) -> tuple[Version, Rows | None]:
        version = self._version
        if not atlas_numbers(self._collection, version.generation):
            return version, None
        found = self._recorded(version)
        return version, Rows(version, found[0].open(found[1])) if found else None

    def lacks(self, kind: ReportKind) -> bool:
        """Whether a report would have to be made. Makes nothing."""
        if ANALYSES[kind].on_atlas and not atlas_numbers(self._collection, self._version.generation):
            return True
        try:
            return self._found(self._wanted(kind)) is None
        except SpecError:  # a file that is not there: making it says so
            return True

    @cached_property
    def _version(self) -> Version:
        return self._find(self._wish.version)

    @cached_property
    def _atlas(self) -> Atlas:
        version = self._version
        found = None if self._wish.refit else newest_atlas(self._collection, version.generation)
        return found if found is not None else fit_atlas(version, self._tell)

    @cached_property
    def _number(self) -> int:
        """Of the atlas, which is not read for it."""
        numbers = [] if self._wish.refit else atlas_numbers(self._collection, self._version.generation)
        return numbers[-1] if numbers else self._atlas.number

    @cached_property
    def _before(self) -> Version | None:
        """What to compare with: what is asked for, or the newest of the same generation that has other rows (upkeep gives the same ones
        another number), was reported on, and is there."""
        if self._wish.since is not None:
            return self._find(self._wish.since)
        version = self._version
        described = {number for number in reported_versions(self._collection, version.generation) if number < version.number}
        for row in reversed(finished_versions(self._collection, version.generation)) if described else ():
            earlier = version_of(self._collection.store, row, self._known)
            if row.version in described and self._sum(earlier) != self._sum(version):
                return earlier
        return None

    def _find(self, number: int | None) -> Version:
        """A version of the generation that is asked for. Raises NotFound."""
        newest = find_version(self._collection, self._wish.generation, self._known)
        if number is None or number == newest.number:
            return newest
        rows = finished_versions(self._collection, newest.generation)
        found = [row for row in rows if row.version == number]
        if not found:
            there = ", ".join(map(str, sorted({row.version for row in rows}))) or "none"
            raise NotFound(f"expected version {number} of {newest.generation}, found {there}: `revector history {self._collection}`")
        return version_of(self._collection.store, found[-1], self._known)

    def _one(self, kind: ReportKind) -> tuple[KeptReport, bool]:
        """A report, and whether it is new."""
        began = time.monotonic()
        version, analysis = self._version, ANALYSES[kind]
        with while_there(version):  # it may take an atlas
            wanted = self._wanted(kind)
        if kept := self._found(wanted):
            return kept, False
        with while_there(version, *filter(None, [wanted.before])):
            before = self._rows(wanted.before) if wanted.before else None
            placed, atlas = (self._rows(version), self._atlas) if analysis.on_atlas else (None, None)
            self._tell(Progress("report"))
            study = Study(version, self._declared, wanted.options, wanted.files, self._tell, self._run_id, placed, before, atlas)
            findings = analysis.study(study)
        made = self._record(version, kind, wanted.identity, analysis, findings, time.monotonic() - began)
        log("reported", kind=kind, version=version.number, passed=made.passed, seconds=made.seconds)
        return self._keep(version, replace(made, options=wanted.options.model_dump(mode="json"))), True

    def _wanted(self, kind: ReportKind) -> _Wanted:
        """What a report of the kind would be of."""
        analysis, gates = ANALYSES[kind], self._declared.gates
        options = self._declared.reports.options(kind)
        files = option_files(kind, options)
        if "queries" in analysis.limits and gates.queries:
            files["queries"] = declared_file("gates.queries", gates.queries)
        before = self._before if analysis.compares else None
        decides = {
            "rows": self._sum(self._version),
            "limits": {key: getattr(gates, key) for key in analysis.limits},
            "options": {**options.model_dump(mode="json"), **{key: content.hex() for key, content in files.items()}},
            "atlas": self._number if analysis.on_atlas else None,
            "before": self._sum(before) if before else None,
        }
        return _Wanted(kind, options, files, before, fingerprint(decides)[:12])

    def _found(self, wanted: _Wanted) -> KeptReport | None:
        version = self._version
        kept = find_report(self._collection, version.generation, version.number, wanted.kind, wanted.identity)
        return kept if kept and is_whole(self._collection, kept) else None

    def _keep(self, version: Version, made: KeptReport) -> KeptReport:
        """Raises NotFound if the version was taken away meanwhile: nothing that is said of it must outlive an erasure."""
        kept = keep_report(self._collection, made)
        if not is_whole(self._collection, kept):  # of tables that are gone, and were made again
            forget_report(self._collection, kept)
            kept = keep_report(self._collection, made)
        if not is_in_store(version):
            forget_reports(self._collection, version.generation, version.number)
            raise taken_away(version)
        return kept

    def _record(self, version: Version, kind: str, identity: str, analysis: Analysis, findings: Findings, seconds: float) -> KeptReport:
        return KeptReport(
            collection=self._collection.name,
            generation=version.generation,
            version=version.number,
            kind=kind,
            identity=identity,
            atlas=self._number if analysis.on_atlas else None,
            summary=findings.summary,
            gates=findings.gates,
            tables=findings.tables,
            commits={table: commit_of(self._collection.store.open(table, number)) for table, number in findings.tables.items()},
            seconds=round(seconds, 3),
            at=now(),
            who=whoami(),
            run_id=self._run_id,
        )

    def _rows(self, version: Version) -> Rows:
        """The version with its rows beside the landmarks: from the record of that, or made now."""
        if version.number not in self._placed:
            table, number = self._recorded(version) or self._place(version)
            self._placed[version.number] = Rows(version, table.open(number))
        return self._placed[version.number]

    def _recorded(self, version: Version) -> tuple[ReportTable, int] | None:
        kept = find_report(self._collection, version.generation, version.number, ROWS, self._rows_identity(version))
        if kept is None or not is_whole(self._collection, kept):
            return None
        table = ReportTable(self._collection, version.generation, f"a{self._number}")
        return table, kept.tables[table.name]

    def _place(self, version: Version) -> tuple[ReportTable, int]:
        began = time.monotonic()
        table, number = rows_beside(version, self._atlas, self._declared.workers, self._run_id, self._tell)
        findings = Findings({"rows": version.vectors.count_rows()}, tables={table.name: number})
        record = self._record(version, ROWS, self._rows_identity(version), Analysis(lambda _: findings), findings, time.monotonic() - began)
        self._keep(version, record)
        return table, number

    def _sum(self, version: Version) -> Checksum:
        """Of its rows, wherever they lie: upkeep writes them anew under another number."""
        if version.number not in self._sums:
            self._sums[version.number] = checksum(version.vectors)
        return self._sums[version.number]

    def _rows_identity(self, version: Version) -> str:
        return fingerprint({"rows": self._sum(version), "atlas": self._number})[:12]
