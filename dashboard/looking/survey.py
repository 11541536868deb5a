"""Maps of versions, kept in memory: many viewers look at the same one, and a version never changes."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import HTTPException

from dashboard.looking.lookout import FRESH_SECONDS
from storage.collection import Collection
from storage.reports.described import Described, describe_version, described_numbers
from storage.reports.kept_reports import reported_generations
from storage.reports.points import Points, read_points
from storage.reports.terrain import Terrain, terrain_of

MOST_BYTES = 256 << 20
"""Of what is kept. The map of a million points is 24 MB, and 5 MB as it is sent."""
PATIENCE_SECONDS = 20.0
"""For a map of ten million rows."""
MOST_SEEN = 1_000
"""Looks that are remembered."""
MOST_VERSIONS = 20
"""Of a generation that are offered."""
POINT_BYTES = 14
"""Of one in memory, but for the address of what it shows."""

T = TypeVar("T")


class Survey:
    """One for a server. Of all makings one is done at a time: so memory is bounded by one, and who asks for the same waits for it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._seen: dict[Any, _Seen] = {}
        self._making = threading.RLock()  # what is made may stand on something else that is kept
        self._lock = threading.Lock()

    def versions(self, collection: Collection) -> list[tuple[str, int]]:
        """Generations and versions that have a map, by generation, ascending."""
        return self._look(
            ("versions", collection.name),
            lambda: [
                (generation, version)
                for generation in reported_generations(collection)
                for version in described_numbers(collection, generation, MOST_VERSIONS)
            ],
        )

    def described(self, collection: Collection, generation: str, version: int, atlas: int = 0) -> Described:
        """As `describe_version`."""
        return self._look((generation, version, atlas), lambda: describe_version(collection, generation, version, atlas))

    def points(self, described: Described) -> Points:
        """Raises NotFound, SpecError for a version of too many rows."""
        terrain: Terrain = self.keep(
            ("terrain", described.generation, described.atlas), lambda: terrain_of(described), lambda made: 200 * len(made.islands)
        )
        return self.keep(("points", described), lambda: read_points(described, terrain), lambda made: POINT_BYTES * len(made))

    def keep(self, key: Any, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """What was made before, or is made now. `size`: its bytes in memory. Raises HTTPException 429 where others take too long."""
        found = self._find(key)
        if found is not None:
            kept: T = found[0]
            return kept
        with self._turn():
            found = self._find(key)
            made = found[0] if found is not None else make()
            if found is None:
                self._put(key, made, size(made))
        return made

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Who waits holds a thread, which other pages need."""
        if not self._making.acquire(timeout=PATIENCE_SECONDS):
            raise HTTPException(429, f"expected the map within {PATIENCE_SECONDS:.0f} s, found the server busy with others: try again")
        try:
            yield
        finally:
            self._making.release()

    def _find(self, key: Any) -> tuple[Any, int] | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _put(self, key: Any, made: Any, size: int) -> None:
        with self._lock:
            self._bytes += size - self._kept.pop(key, (None, 0))[1]
            self._kept[key] = made, size
            while self._bytes > MOST_BYTES and len(self._kept) > 1:
                _, (_, freed) = self._kept.popitem(last=False)
                self._bytes -= freed

    def _look(self, key: Any, look: Callable[[], T]) -> T:
        """As it was seconds ago at most. Of those who ask at once one looks."""
        with self._lock:
            if len(self._seen) > MOST_SEEN:
                self._seen.clear()
            seen = self._seen.setdefault(key, _Seen())
        with seen.lock:
            if seen.at is None or time.monotonic() - seen.at > FRESH_SECONDS:
                seen.found, seen.at = look(), time.monotonic()
            found: T = seen.found
            return found


class _Seen:
    """What a look at the store has found."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.at: float | None = None
        self.found: Any = None
