"""What of the reports stays: those of versions that stay, the tables that these stand on, and the newest atlas of each generation.

A report goes with the version that it is of, and what only it stood on goes with it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from storage.collection import Collection
from storage.reports.atlas import atlas_numbers, forget_atlas
from storage.reports.kept_reports import KeptReport, anything_of, forget_reports, kept_reports, reported_generations, reported_versions
from storage.reports.report_table import generation_of

Versions = Mapping[str, set[int]]
"""By table."""


def idle_reports(collection: Collection, kept: Versions) -> Iterator[tuple[str, int | None]]:
    """Generations and versions whose records may go, for no version of that number stays. None: all of a generation that is no more."""
    for generation in reported_generations(collection):
        there = collection.store.has(generation)
        going = [number for number in reported_versions(collection, generation) if number not in kept[generation]] if there else [None]
        yield from ((generation, version) for version in going if anything_of(collection, generation, version))


def all_reports(collection: Collection) -> list[KeptReport]:
    """The records of all generations, each of which is read."""
    return [report for generation in reported_generations(collection) for report in kept_reports(collection, generation)]


def report_versions(reports: Sequence[KeptReport]) -> dict[str, set[int]]:
    """Versions of tables that `reports` stand on, by table."""
    needed = defaultdict[str, set[int]](set)
    for report in reports:
        for table, version in report.tables.items():
            needed[table].add(version)
    return needed


def idle_report_tables(collection: Collection, needed: Versions, young: timedelta) -> list[str]:
    """Tables that no record stands on: of an atlas that another one has followed, or of a report that broke off long ago."""
    until = datetime.now(UTC) - young
    idle = [table for table in collection.tables("reports") if table not in needed]
    return [table for table in idle if not _in_use(collection, table, until)]


def _in_use(collection: Collection, table: str, until: datetime) -> bool:
    """Whether a report may be writing it."""
    written = max(version["timestamp"].astimezone(UTC) for version in collection.store.open(table).versions())
    return collection.store.has(generation_of(collection, table)) and written > until


def idle_atlases(collection: Collection, reports: Sequence[KeptReport]) -> list[tuple[str, int]]:
    """Generations and numbers of atlases that a later one has followed, and none of `reports`, which are all, stands on."""
    used = {(report.generation, report.atlas) for report in reports}
    known = [
        (generation, number) for generation in reported_generations(collection) for number in atlas_numbers(collection, generation)[:-1]
    ]
    return [atlas for atlas in known if atlas not in used]


def remove_idle(collection: Collection, kept: Versions) -> list[KeptReport]:
    """Remove records, and then the atlases that only they stood on. Gives the records that stay."""
    for generation, version in idle_reports(collection, kept):
        forget_reports(collection, generation, version)
    stay = all_reports(collection)
    for generation, number in idle_atlases(collection, stay):
        forget_atlas(collection, generation, number)
    return stay
