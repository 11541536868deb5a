"""The versions that a page can be of: which there are to choose from, and the chosen one, open."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from dashboard.looking.lookout import Lookout
from storage.collection import Collection, own_part
from storage.history.catalog import Publication
from storage.marts.columns import GENERATIONS
from storage.reading.versions import PUBLISHED, choose_version, version_name
from storage.store.lance import Store
from storage.tables.version import Version

MOST_OPEN = 20
"""Versions that stay open."""
CACHE_BYTES = 128 << 20
"""Of indexes, and as many of other files, that stay in memory: a search takes half as long with them."""
MOST_OFFERED = 30
"""Published versions in a list; any other can be asked for by its name."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A version to choose."""

    name: str
    """In addresses."""
    shown: str


class Choices:
    """One for a server."""

    def __init__(self, lookout: Lookout, root: str) -> None:
        self._lookout = lookout
        self._store = Store(root, CACHE_BYTES)
        self._open: OrderedDict[tuple[Any, ...], Version] = OrderedDict()
        self._lock = threading.Lock()

    def offered(self, collection: Collection) -> list[Choice]:
        """What readers have, the newest of each generation, and what was published before."""
        history = [row for row in self._lookout.publications(collection.name) if not row.removed]
        found: dict[str, str] = {}
        if history:
            found[PUBLISHED] = f"what readers have: version {history[-1].version} of {own_part(history[-1].generation)}"
        rows = self._lookout.mart(GENERATIONS, collection.name).to_pylist()
        for row in rows:
            if not history or row["generation"] != history[-1].generation:
                model = " ".join(filter(None, (_last(row["model"]), row["model_settings"])))
                found[own_part(row["generation"])] = f"{own_part(row['generation'])}: {model}, {row['dimension']} numbers, {row['state']}"
        for one in reversed(history):
            if one.versions == history[-1].versions:
                continue
            if len(found) < MOST_OFFERED + len(rows):
                found.setdefault(version_name(one.generation, one.version), _published(one))
        return [Choice(name, shown) for name, shown in found.items()]

    def version(self, collection: Collection, name: str) -> Version:
        """The one of that name. Raises NotFound."""
        history = self._lookout.publications(collection.name)
        decided = len(history), max((row.removed for row in history), default="")  # since then upkeep may have taken one away
        key = collection.name, name, decided, self._states(collection)
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
        chosen = choose_version(Collection(self._store, collection.name), history, name)
        with self._lock:
            self._open[key] = chosen
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        return chosen

    def _states(self, collection: Collection) -> tuple[Any, ...]:
        """What tells whether a generation has come further."""
        return tuple((row["generation"], row["version"]) for row in self._lookout.mart(GENERATIONS, collection.name).to_pylist())


def _published(row: Publication) -> str:
    return f"version {row.version} of {own_part(row.generation)}, {row.at[:16].replace('T', ' ')}"


def _last(model: str | None) -> str:
    """A folder's name without the way to it."""
    return (model or "").rstrip("/").rpartition("/")[2]
