"""Marts on demand: brought up to date in the store, and handed on as files or to Postgres."""

import time
from dataclasses import dataclass
from pathlib import Path

from storage.collection import Collection
from storage.marts.columns import MARTS
from storage.marts.leaving import leave_marts
from storage.marts.mart_files import mart_bytes, parse_mart
from storage.marts.postgres import fill


@dataclass(frozen=True, slots=True)
class Handed:
    """The marts of one collection, as they were handed on."""

    collection: str
    rows: dict[str, int]
    """Table -> rows that it has."""
    postgres: dict[str, int] | None
    """Table -> rows that were added, changed or taken away there; None: they were not sent."""
    seconds: float


def hand_on(collection: Collection, address: str | None = None, out: Path | None = None) -> Handed:
    """Bring the marts of a collection up to date, fill the Postgres at `address`, and write them as `out`/TABLE/COLLECTION.parquet.

    Raises as `fill` does.
    """
    began = time.monotonic()
    leave_marts(collection)
    sent = fill(address, collection).rows if address else None
    rows = {}
    for mart in MARTS.values():
        if data := mart_bytes(collection, mart):
            rows[mart.name] = len(parse_mart(data, mart))
            if out:
                file = out / mart.name / f"{collection}.parquet"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
    return Handed(collection.name, rows, sent, round(time.monotonic() - began, 3))
