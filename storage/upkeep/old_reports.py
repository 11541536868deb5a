"""What of the reports stays: those of versions that stay, the tables that these stand on, and the newest atlas of each generation.

A report goes with the version that it is of, and what only it stood on goes with it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from storage.collection import Collection
from storage.reports.atlas import atlas_numbers, forget_atlas
from storage.reports.kept_reports import anything_of, forget_reports, kept_reports, reported_generations, reported_versions
from storage.reports.report_table import generation_of

Versions = Mapping[str, set[int]]
"""By table."""


def idle_reports(collection: Collection, kept: Versions) -> Iterator[tuple[str, int | None]]:
    """Generations and versions whose records may go, for no version of that number stays. None: all of a generation that is no more."""
    for generation in reported_generations(collection):
        there = collection.store.has(generation)
        going = [number for number in reported_versions(collection, generation) if number not in kept[generation]] if there else [None]
        yield from ((generation, version) for version in going if anything_of(collection, generation, version))


def report_versions(collection: Collection) -> dict[str, set[int]]:
    """Versions of tables of reports that records stand on, by table."""
    needed = defaultdict[str, set[int]](set)
    for generation in reported_generations(collection):
        for report in kept_reports(collection, generation):
            for table, version in report.tables.items():
                needed[table].add(version)
    return needed


def idle_report_tables(collection: Collection, young: timedelta) -> list[str]:
    """Tables that no record stands on: of an atlas that another one has followed, or of a report that broke off long ago."""
    needed, until = report_versions(collection), datetime.now(UTC) - young
    idle = [table for table in collection.tables("reports") if table not in needed]
    return [table for table in idle if not _in_use(collection, table, until)]


def _in_use(collection: Collection, table: str, until: datetime) -> bool:
    """Whether a report may be writing it."""
    written = max(version["timestamp"].astimezone(UTC) for version in collection.store.open(table).versions())
    return collection.store.has(generation_of(collection, table)) and written > until


def idle_atlases(collection: Collection) -> list[tuple[str, int]]:
    """Generations and numbers of atlases that a later one has followed, and no record stands on."""
    idle = []
    for generation in reported_generations(collection):
        used = {report.atlas for report in kept_reports(collection, generation)}
        idle += [(generation, number) for number in atlas_numbers(collection, generation)[:-1] if number not in used]
    return idle


def remove_idle(collection: Collection, kept: Versions) -> None:
    """Remove records, and then the atlases that only they stood on."""
    for generation, version in idle_reports(collection, kept):
        forget_reports(collection, generation, version)
    for generation, number in idle_atlases(collection):
        forget_atlas(collection, generation, number)
