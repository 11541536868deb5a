"""Versions that upkeep may take away while they are read: a report holds no fence."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.errors import NotFound
from storage.tables.version import Version


@contextmanager
def while_there(*versions: Version) -> Iterator[None]:
    """Raises NotFound for whatever fails within because upkeep has taken a version away: its files are missing amid a scan."""
    try:
        yield
    except (OSError, ValueError, NotFound) as error:
        for version in versions:
            if not is_in_store(version):
                raise taken_away(version) from error
        raise


def is_in_store(version: Version) -> bool:
    try:
        version.collection.store.open(version.generation, version.number)
    except NotFound:
        return False
    return True


def taken_away(version: Version) -> NotFound:
    return NotFound(f"expected {version} to stay while it was reported on, found that upkeep took it away: run again")
