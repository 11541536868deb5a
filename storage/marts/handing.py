"""Marts brought up to date, and handed on: after whatever changes the records, without a say in how that ends; and on demand."""

import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import RevectorError
from pipelines.logs import warn
from pipelines.spec.running import MartsSpec
from storage.collection import Collection
from storage.marts.columns import MARTS
from storage.marts.leaving import leave_marts
from storage.marts.mart_files import mart_bytes, parse_mart
from storage.marts.postgres import address_of, fill
from storage.marts.standing_rows import Looked


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


def leave(collection: Collection, looked: Looked | None = None, marts: MartsSpec | None = None) -> bool:
    """Leave the marts of a collection, as its records are now, also where `marts` says.

    They are read off the records, so what fails here is made up for the next time. False if something did.
    """
    try:
        leave_marts(collection, looked)
        if marts and marts.postgres:
            fill(address_of(marts.postgres), collection)
    except Exception as error:  # noqa: BLE001  the outermost edge: whatever a record or a driver has in it, what it is told of is done
        said = {"why": str(error)} if isinstance(error, RevectorError) else {}
        warn("marts not written", collection=collection.name, error=type(error).__name__, **said)
        return False
    return True
