"""The state of all collections, seen from the records that runs leave, and kept for a moment: many viewers ask for the same."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from dashboard.looking.situation import Going, Situation
from pipelines.errors import RevectorError
from storage.collection import RECORDS, Collection
from storage.history.catalog import Publication, all_publications
from storage.history.fence import run_of, tokens
from storage.history.watch import Watch
from storage.marts.columns import COLLECTIONS, Mart
from storage.marts.mart_files import mart_stamps, read_mart, readable_mart
from storage.store.lance import Store

FRESH_SECONDS = 2.0
"""As long a look is good for: what is new is seen within seconds."""
LATE_SECONDS = 10.0
"""As old may be what a page shows of how collections stand, while a new look is on its way: on a bucket one takes half a second."""
KEPT_SECONDS = 30.0
LOOKERS = 16


class Lookout:
    """Looks on behalf of all viewers: of those who ask at once one does, and the others wait for it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[str, tuple[float, Any]] = {}
        self._tables: dict[str, dict[str, tuple[str, pa.Table]]] = {}
        """Of marts that were read of all collections, by collection: the stamp of its file, and the rows."""
        self._decided = 0
        """How often something was decided here: what was seen before that is not kept after it."""
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._watches: dict[tuple[str, str], Watch] = {}
        """By collection and run: one who submits runs of several may give all of them one id."""

    def publications(self, collection: str | None = None) -> list[Publication]:
        """Of one collection, or of all, oldest first."""
        rows: list[Publication] = self._look("publications", lambda: all_publications(self._store))
        return rows if collection is None else [row for row in rows if row.collection == collection]

    def names(self) -> list[str]:
        """Of the collections that the store has something of."""
        return [standing.name for standing in self.standings()]

    def mart(self, mart: Mart, collection: str | None = None) -> pa.Table:
        """The rows of one collection, or of all."""
        if collection is None:
            return self._look(mart.name, lambda: self._of_all(mart))
        return self._look(f"{mart.name} of {collection}", lambda: read_mart(Collection(self._store, collection), mart))

    def standings(self) -> list[Situation]:
        """How each collection stands, by name."""
        standings: list[Situation] = self._look("standings", self._standings, LATE_SECONDS)
        return standings

    def standing(self, name: str) -> Situation | None:
        """How one stands; None if the store has nothing of it."""
        return next((standing for standing in self.standings() if standing.name == name), None)

    def forget(self) -> None:
        """Look anew: something was decided here."""
        with self._lock:
            self._decided += 1
            self._kept = {}

    def _of_all(self, mart: Mart) -> pa.Table:
        """The rows of all collections, of whom those are read anew whose file was written since."""
        left, kept = mart_stamps(self._store, mart), self._tables.get(mart.name, {})
        stale = [name for name, stamp in left.items() if name not in kept or kept[name][0] != stamp]
        with ThreadPoolExecutor(LOOKERS) as pool:
            read = dict(zip(stale, pool.map(lambda name: readable_mart(Collection(self._store, name), mart), stale), strict=True))
        # The stamp is of before the rows were read: if they were written meanwhile, they are read once more.
        self._tables[mart.name] = {name: (stamp, read[name]) if name in read else kept[name] for name, stamp in left.items()}
        return pa.concat_tables([mart.schema.empty_table(), *(table for _, table in self._tables[mart.name].values())])

    def _standings(self) -> list[Situation]:
        rows = {row["collection"]: row for row in self.mart(COLLECTIONS).to_pylist()}
        here = {row.collection: row for row in self.publications()}
        names = sorted({*rows, *here, *(name for name in self._store.objects.names(RECORDS) if self._has_runs(name, {*rows, *here}))})
        with ThreadPoolExecutor(LOOKERS) as pool:
            going = list(pool.map(lambda name: self._going(Collection(self._store, name), rows.get(name)), names))
        return [Situation(name, rows.get(name), here.get(name), live) for name, live in zip(names, going, strict=True)]

    def _has_runs(self, name: str, known: set[str]) -> bool:
        """Whether a folder of records that no mart tells of is a collection's: its first run has not ended yet."""
        return "." not in name and name not in known and bool(self._store.objects.names(f"{RECORDS}/{name}/fence"))

    def _going(self, collection: Collection, row: dict[str, Any] | None) -> Going | None:
        """The newest run, if it has not ended as far as the mart knows, and has not left a result since."""
        newest = max(tokens(collection), default=0)
        known = row is not None and row["token"] == newest and row["last_status"] != "unfinished"
        run = None if known or not newest else run_of(collection, newest)
        if run is None:
            return None
        key = collection.name, run.run_id
        watch = self._watches.get(key) or self._watches.setdefault(key, Watch(run))
        sight = watch.look()
        if sight.state == "ended":
            self._watches.pop(key, None)
            return None
        return Going(run.run_id, sight.state, sight.progress or {})

    def _look(self, what: str, look: Callable[[], Any], late: float = FRESH_SECONDS) -> Any:
        """What was seen a moment ago, or is seen now. Up to `late` seconds old it is shown while somebody looks anew, behind."""
        with self._lock:
            lock = self._locks.setdefault(what, threading.Lock())
            at, seen = self._kept.get(what, (-math.inf, None))
        age = time.monotonic() - at
        if age > late:
            with lock:
                return self._seen(what, look)
        if age > FRESH_SECONDS and lock.acquire(blocking=False):
            threading.Thread(target=self._look_behind, args=(what, look, lock), name=f"look at {what}", daemon=True).start()
        return seen

    def _look_behind(self, what: str, look: Callable[[], Any], lock: threading.Lock) -> None:
        try:
            self._seen(what, look)
        except (OSError, RevectorError):
            return  # who comes after `late` meets it, and is told
        finally:
            lock.release()

    def _seen(self, what: str, look: Callable[[], Any]) -> Any:
        """Look, unless another one just did. What nobody has asked for lately is let go: that of many collections would fill the memory."""
        with self._lock:
            (at, seen), decided = self._kept.get(what, (-math.inf, None)), self._decided
        if time.monotonic() - at <= FRESH_SECONDS:
            return seen
        seen = look()
        now = time.monotonic()
        with self._lock:
            if decided == self._decided:
                self._kept = {key: (at, old) for key, (at, old) in self._kept.items() if now - at < KEPT_SECONDS} | {what: (now, seen)}
        return seen
