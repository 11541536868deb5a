"""The extension point of reports: what is read off the vectors of a version, for people."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipelines.measures.gate import Gate
from pipelines.spec.declared import CollectionSpec
from pipelines.spec.reports import ReportOptions
from storage.reports.atlas import Atlas
from storage.reports.report_table import ReportTable
from storage.tables.version import Version
from workers.observing.telling import Report


class Measure(Protocol):
    """A function of one version. Nothing depends on what it says: each of its measures is a Gate of the kind "information"."""

    def __call__(self, version: Version, /) -> Iterable[Gate]: ...


@dataclass(frozen=True)
class Rows:
    """A version whose rows are described by the landmarks beside them."""

    version: Version
    table: Any
    """BESIDE, of each of its rows: a LanceDataset at the version that is of them."""


@dataclass(frozen=True)
class Study:
    """What an analysis is given."""

    version: Version
    spec: CollectionSpec
    options: ReportOptions
    """Of its kind, as declared."""
    files: Mapping[str, bytes]
    """What is in the files that the options name, by key."""
    report: Report
    run_id: str
    """For what it commits."""
    placed: Rows | None = None
    """The same version; None where the analysis needs no atlas."""
    before: Rows | None = None
    """An earlier version by the same atlas: the one to compare with, or else the newest that was described. None: there is none."""
    found_atlas: Atlas | None = None

    @property
    def atlas(self) -> Atlas:
        assert self.found_atlas is not None, "an analysis that needs an atlas says so"
        return self.found_atlas

    @property
    def rows(self) -> Any:
        """BESIDE, of each row of the version: a LanceDataset."""
        assert self.placed is not None, "an analysis that needs an atlas says so"
        return self.placed.table

    def table(self, part: str) -> ReportTable:
        """A table of its own, that follows the generation; of the atlas where it needs one."""
        suffix = f"{part}-a{self.found_atlas.number}" if self.found_atlas is not None else part
        return ReportTable(self.version.collection, self.version.generation, suffix)


@dataclass(frozen=True)
class Findings:
    """What an analysis says."""

    summary: dict[str, Any]
    """Small, as JSON has it: figures, ids and names of clusters, no texts."""
    gates: tuple[Gate, ...] = ()
    """What is held against a limit: one that failed is an alarm."""
    tables: dict[str, int] = field(default_factory=dict)
    """Tables of its own, by name, each at the version that belongs to it."""


@dataclass(frozen=True)
class Analysis:
    """A kind of report."""

    study: Callable[[Study], Findings]
    on_atlas: bool = True
    """Whether it needs an atlas, and the rows beside its landmarks."""
    compares: bool = False
    """Whether it is also of the version before."""
    limits: tuple[str, ...] = ()
    """Keys of the spec's gates that it looks at: with another limit it is another report."""
