"""Versions that can be seen on a map: whose rows were described by the landmarks beside them, and how they were."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipelines.errors import NotFound
from storage.collection import Collection, own_part
from storage.reports.kept_reports import is_whole, reported_versions, reports_of

ROWS_RECORD = "rows"
"""The kind of the record of a table of BESIDE."""
LOOKED_AT = 60
"""Versions, of which not all need to have one."""
READERS = 16
"""At once: each look takes tens of milliseconds on S3."""


@dataclass(frozen=True)
class Described:
    """A version of a generation, and the table that says where each of its rows lies."""

    collection: Collection
    generation: str
    version: int
    """Of the vectors table."""
    atlas: int
    table: str
    table_version: int
    commit: str
    """Which commit that is: what is kept in memory of a table is of this one, and not of another that reached the same number."""

    def __str__(self) -> str:
        return f"version {self.version} of {self.generation}"

    @property
    def address(self) -> str:
        """As people type it: `4988a594c857@105`."""
        return f"{own_part(self.generation)}@{self.version}"

    def rows(self) -> Any:
        """BESIDE, of each row: a LanceDataset. Raises NotFound."""
        return self.collection.store.open(self.table, self.table_version)

    def vectors(self) -> Any:
        """The rows themselves: a LanceDataset. Raises NotFound."""
        return self.collection.store.open(self.generation, self.version)


def described_numbers(collection: Collection, generation: str, most: int) -> list[int]:
    """The newest versions that there is a record of rows of, `most` at most, ascending. Reads names only."""
    folder = collection.key(f"reports/{own_part(generation)}")
    versions = reported_versions(collection, generation)[-LOOKED_AT:]
    with ThreadPoolExecutor(READERS) as pool:
        kinds = pool.map(lambda version: collection.objects.names(f"{folder}/{version:012d}"), versions)
        found = [
            version for version, names in zip(versions, kinds, strict=True) if any(name.startswith(f"{ROWS_RECORD}-") for name in names)
        ]
    return found[-most:]


def describe_version(collection: Collection, generation: str, version: int, atlas: int = 0) -> Described:
    """By the atlas of that number if its rows were described by it, or else by the newest one.

    Raises NotFound if they were not, or if the version is gone.
    """
    collection.store.open(generation, version)
    kept = [report for report in reports_of(collection, generation, version, ROWS_RECORD) if report.atlas is not None]
    kept.sort(key=lambda report: (report.atlas == atlas, report.atlas), reverse=True)
    whole = next((report for report in kept if is_whole(collection, report)), None)
    if whole is None:
        raise NotFound(f"expected a map of version {version} of {generation}, found none: `revector report {collection} map` makes one")
    [(table, number)] = whole.tables.items()
    return Described(collection, generation, version, whole.atlas or 0, table, number, whole.commits.get(table, ""))
