"""Reports, as declared: what is read off the vectors of each version, and what that looks at. None of it decides a vector."""

from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from pipelines.spec.keys import SpecTable, nearest

ReportKind = Literal["map", "clusters", "outliers", "duplicates", "neighbours", "balance", "bias", "tasks", "drift", "labels"]
KINDS: tuple[ReportKind, ...] = get_args(ReportKind)


class ReportOptions(SpecTable):
    """Of one kind."""

    files: ClassVar[tuple[str, ...]] = ()
    """Those of its keys that name a file: a report is of what is in it."""


class MapOptions(ReportOptions):
    """A place in the plane for every chunk: what is near is alike."""


class ClustersOptions(ReportOptions):
    """What is there, by topics with names that stay."""


class OutliersOptions(ReportOptions):
    """Chunks that are like nothing else."""


class DuplicatesOptions(ReportOptions):
    """Chunks that say the same, or nearly."""

    min_cosine: float = Field(default=0.95, gt=0, le=1)
    """From which on two contents are near-duplicates."""


class NeighboursOptions(ReportOptions):
    """The 15 nearest of every chunk."""


class BalanceOptions(ReportOptions):
    """How groups of documents differ: their share, spread and error."""

    fields: tuple[str, ...] = ()
    """Fields of the metadata that make the groups; left out: all with at most 50 values."""
    label: str | None = None
    """A field of the metadata with labels, which neighbours may tell for some groups better than for others; left out: not tried."""


class BiasOptions(ReportOptions):
    """Whether words of two groups are nearer to one sort of words than to another (WEAT)."""

    files: ClassVar[tuple[str, ...]] = ("words",)
    words: str | None = None
    """A TOML file of word lists; left out: tests 1, 6, 7 and 8 of Caliskan et al. (2017)."""
    sentence: str = Field(default="This is {}.", pattern=r"\{\}")
    """What each word is put into, in place of `{}`; `"{}"`: it stands alone."""


class TasksOptions(ReportOptions):
    """How well the vectors serve tasks whose answers are known."""

    files: ClassVar[tuple[str, ...]] = ("label_file", "pairs", "analogies")
    label: str | None = None
    """A field of the metadata that has the label of each document."""
    label_file: str | None = None
    """A CSV or JSON lines file with `id` and `label` of documents."""
    pairs: str | None = None
    """A CSV or JSON lines file with `a`, `b` and `score`: two texts, and how alike people found them."""
    analogies: str | None = None
    """A CSV or JSON lines file with `a`, `b`, `c` and `d`: a is to b as c is to d."""


class DriftOptions(ReportOptions):
    """How a version differs from the one before it: what grew, what shrank, what is new."""

    limit: float = Field(default=0.002, ge=0, le=1)
    """The share of rows that may move between clusters, beyond what chance explains, before it is an alarm."""


class LabelsOptions(ReportOptions):
    """Labels for all chunks, from those of a few."""

    files: ClassVar[tuple[str, ...]] = ("seeds",)
    seeds: str | None = None
    """A CSV or JSON lines file with `id` and `label` of some documents or chunks."""
    min_confidence: float = Field(default=0.5, ge=0, le=1)
    """The least confidence of a label that is suggested: of rows with one of .8, about four in five are right."""


class ReportsSpec(SpecTable):
    """Which reports a run keeps current: a list of their names, or a table with what each looks at."""

    map: MapOptions | None = None
    """A place in the plane for every chunk: what is near is alike."""
    clusters: ClustersOptions | None = None
    """What is there, by topics with names that stay."""
    outliers: OutliersOptions | None = None
    """Chunks that are like nothing else."""
    duplicates: DuplicatesOptions | None = None
    """Chunks that say the same, or nearly."""
    neighbours: NeighboursOptions | None = None
    """The 15 nearest of every chunk."""
    balance: BalanceOptions | None = None
    """How groups of documents differ: their share, spread and error."""
    bias: BiasOptions | None = None
    """Whether words of two groups are nearer to one sort of words than to another."""
    tasks: TasksOptions | None = None
    """How well the vectors serve tasks whose answers are known."""
    drift: DriftOptions | None = None
    """How a version differs from the one before it."""
    labels: LabelsOptions | None = None
    """Labels for all chunks, from those of a few."""

    @property
    def kinds(self) -> tuple[ReportKind, ...]:
        """Those that are declared, in the order of this table."""
        return tuple(kind for kind in KINDS if getattr(self, kind) is not None)

    def options(self, kind: ReportKind) -> ReportOptions:
        """What is declared of a kind, or its defaults."""
        found: ReportOptions = getattr(self, kind) or OPTIONS[kind]()
        return found


OPTIONS: dict[ReportKind, type[ReportOptions]] = {
    "map": MapOptions,
    "clusters": ClustersOptions,
    "outliers": OutliersOptions,
    "duplicates": DuplicatesOptions,
    "neighbours": NeighboursOptions,
    "balance": BalanceOptions,
    "bias": BiasOptions,
    "tasks": TasksOptions,
    "drift": DriftOptions,
    "labels": LabelsOptions,
}


def as_reports(value: Any) -> Any:
    """A table of kinds, also of a list of their names."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        return value
    for name in value:
        if name not in KINDS:
            raise ValueError(f"expected some of {', '.join(KINDS)}, found {name!r}{nearest(str(name), KINDS)}")
    return {name: {} for name in value}
