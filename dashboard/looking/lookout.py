"""The state of all collections, seen from the records that runs leave, and kept for a moment: many viewers ask for the same."""

import threading
import time
from collections.abc import Callable
from typing import Any

from storage.history.catalog import Publication, all_publications
from storage.store.lance import Store

FRESH_SECONDS = 2.0
"""As long a look is good for: what is new is seen within seconds."""


class Lookout:
    """Looks on behalf of all viewers: of those who ask at once one does, and the others wait for it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[str, tuple[float, Any]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def publications(self, collection: str | None = None) -> list[Publication]:
        """Of one collection, or of all, oldest first."""
        rows: list[Publication] = self._look("publications", lambda: all_publications(self._store))
        return rows if collection is None else [row for row in rows if row.collection == collection]

    def names(self) -> list[str]:
        """Of the collections that the store has."""
        return sorted({row.collection for row in self.publications()})

    def _look(self, what: str, look: Callable[[], Any]) -> Any:
        with self._lock:
            lock = self._locks.setdefault(what, threading.Lock())
        with lock:
            at, seen = self._kept.get(what, (0.0, None))
            if not at or time.monotonic() - at > FRESH_SECONDS:
                seen = look()
                self._kept[what] = time.monotonic(), seen
            return seen
