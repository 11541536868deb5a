"""Marts in Postgres, for tools that ask in SQL: the same tables, in a schema of their own, brought up to date with those in the store."""

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import SpecError, StorageError
from pipelines.redaction import HIDDEN, redact
from pipelines.spec.running import VARIABLE
from storage.collection import Collection
from storage.marts.columns import MARTS, Mart
from storage.marts.forgetting import MESSAGES
from storage.marts.mart_files import mart_bytes, parse_mart

SCHEMA = "revector"
REPLACED = frozenset({"dead_letters"})
"""Tables without a key in Postgres: ids may be longer than what an index of it takes. Their rows of a collection are replaced whole."""
MIRRORED = frozenset({"generations", "reports"})
"""Tables whose rows go with those in the store. Of the others, which are history, all stay: files have room for the newest ones only."""
WHOLE_DAYS = frozenset({"costs_daily"})
"""Tables whose days stay, each with the rows that those in the store have of it."""
PATIENCE = "2min"
"""For one statement, waiting for another fill of the collection included."""
_LIMITS = {"connect_timeout": 15, "tcp_user_timeout": 60_000, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""Of libpq: seconds, and of `tcp_user_timeout` milliseconds."""
_ADDRESS = re.compile(r"postgres(?:ql)?://")
TYPES = {
    pa.string(): "text",
    pa.int64(): "bigint",
    pa.float64(): "double precision",
    pa.bool_(): "boolean",
    pa.timestamp("us", "UTC"): "timestamp with time zone",
    pa.date32(): "date",
}
"""As information_schema names them."""
_MIGRATIONS = f"{SCHEMA}.migrations"
"""What was done to the schema, in order."""
_FILLED = f"{SCHEMA}.filled"
"""What the rows of each collection were filled from last, so that nothing is sent again."""
_OWN_TABLES = {
    "migrations": "number bigint generated always as identity primary key, at timestamptz default now(), statement text",
    "filled": "collection text, mart text, store text, digest text, at timestamptz, primary key (collection, mart)",
}


@dataclass(frozen=True, slots=True)
class Filled:
    """What a fill did."""

    collection: str
    rows: dict[str, int]
    """Table -> rows that were added, changed or taken away; tables that were as in the store are left out."""
    seconds: float


def address_of(named: str, environ: Mapping[str, str] = os.environ) -> str:
    """The address that `env:NAME` leads to, or that `named` is. Raises SpecError, which does not repeat it: it may have a password."""
    variable = VARIABLE.fullmatch(named)
    address = environ.get(variable[1], "") if variable else named
    if not _ADDRESS.match(address):
        where = f"in {variable[1]}" if variable else "or env:NAME of a variable that has it"
        found = "something else" if address else "none"
        raise SpecError(f"expected the address of a Postgres, postgresql://user:password@host/database, {where}, found {found}")
    return address


def fill(address: str, collection: Collection) -> Filled:
    """Bring the rows of one collection in Postgres up to those in the store: all of it or nothing. What has not changed is not sent.

    Schema, tables and columns that are missing are made first. Raises SpecError without the driver, StorageError for what the server
    says, and if the rows there are of another store.
    """
    began = time.monotonic()
    rows = {}
    with _connected(address) as (connection, cursor):
        _begin(cursor, collection)
        _migrate(cursor)
        kept = _filled(cursor, collection)
        for mart in MARTS.values():
            data = mart_bytes(collection, mart)  # under the lock: who comes later has seen no earlier file
            if data is None:  # which says nothing of rows that are there
                continue
            digest = hashlib.sha256(data).hexdigest()
            if kept.get(mart.name) != digest:
                rows[mart.name] = _send(cursor, collection.name, mart, parse_mart(data, mart))
                _remember(cursor, collection, mart, digest)
        connection.commit()
    return Filled(collection.name, rows, round(time.monotonic() - began, 3))


def try_out(address: str) -> str:
    """Do what `fill` needs of a database, and undo it. Gives the server's version. Raises as `fill` does."""
    with _connected(address) as (_, cursor):
        _migrate(cursor)
        cursor.execute("select current_setting('server_version'), current_user")
        version, user = cursor.fetchone()
    return f"Postgres {version}, as {user}"


def scrub(address: str, collection: Collection) -> None:
    """Take messages out of rows that are in Postgres alone, and leave no byte of what was taken away. Raises as `fill` does."""
    with _connected(address, autocommit=True) as (_, cursor):
        for table, column in MESSAGES:
            bare = f"{column} = split_part({column}, ':', 1)"
            cursor.execute(f"update {SCHEMA}.{table} set {bare} where collection = $1 and {column} like '%:%'", (collection.name,))  # noqa: S608
        for name in MARTS:
            cursor.execute(f"vacuum {SCHEMA}.{name}")


@contextmanager
def _connected(address: str, autocommit: bool = False) -> Iterator[tuple[Any, Any]]:
    """A connection, and a cursor of it. What is not committed is undone."""
    try:
        from adbc_driver_manager import Error
        from adbc_driver_postgresql import dbapi
    except ImportError as error:
        raise SpecError(f"expected what marts in Postgres need, found no {error.name}: pip install 'revector[bi]'") from None
    try:
        with dbapi.connect(_impatient(address), autocommit=autocommit) as connection, connection.cursor() as cursor:
            yield connection, cursor
    except Error as error:
        raise StorageError(f"expected marts in Postgres, found {_said(error, address)}: infra/RUNBOOK.md has what to do") from None


def _impatient(address: str) -> str:
    """With limits for how long the server may take to answer at all, and for one that is gone without a word."""
    given = [f"{name}={value}" for name, value in _LIMITS.items() if f"{name}=" not in address]
    return f"{address}{'&' if '?' in address else '?'}{'&'.join(given)}" if given else address


def _said(error: Exception, address: str) -> str:
    """The driver's first line: those below quote rows and statements. Without the password, which it quotes if it cannot read it."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    secret = urlsplit(address).password or ""
    for form in {secret, unquote(secret)} - {""}:
        line = line.replace(form, HIDDEN)
    return redact(line)


def _begin(cursor: Any, collection: Collection) -> None:
    """One fill of a collection at a time: others wait."""
    cursor.execute(f"set local statement_timeout = '{PATIENCE}'")
    cursor.execute("select pg_advisory_xact_lock(hashtext('revector'), hashtext($1))", (collection.name,))


def _migrate(cursor: Any) -> None:
    """Make what is missing of schema, tables and columns, and write down what was done. What a later program has added stays."""
    if not list(_missing(cursor)):
        return
    cursor.execute("select pg_advisory_xact_lock(hashtext('revector migrations'), 0)")
    for statement in list(_missing(cursor)):  # again: a fill of another collection may have made it
        cursor.execute(statement)
        if statement.startswith(("create table", "alter table")):
            cursor.execute(f"insert into {_MIGRATIONS} (statement) values ($1)", (statement,))  # noqa: S608
    cursor.execute(f"update {_FILLED} set digest = ''")  # noqa: S608  what is new has nothing of what was sent before


def _missing(cursor: Any) -> Iterator[str]:
    """Statements that bring the schema to what `MARTS` say. Raises StorageError for a column of another type."""
    cursor.execute("select table_name, column_name, data_type from information_schema.columns where table_schema = $1", (SCHEMA,))
    there: dict[str, dict[str, str]] = {}
    for table, column, kind in cursor.fetchall():
        there.setdefault(table, {})[column] = kind
    if not there:
        cursor.execute("select from pg_namespace where nspname = $1", (SCHEMA,))
        yield from () if cursor.fetchall() else (f"create schema {SCHEMA}",)
    yield from (f"create table {SCHEMA}.{name} ({columns})" for name, columns in _OWN_TABLES.items() if name not in there)
    for mart in MARTS.values():
        yield from _lacking(mart, there[mart.name]) if mart.name in there else _creation(mart)


def _columns(mart: Mart) -> dict[str, str]:
    """Name -> type."""
    return {field.name: TYPES[field.type] for field in mart.schema}


def _creation(mart: Mart) -> Iterator[str]:
    table = f"{SCHEMA}.{mart.name}"
    columns = [f"{name} {kind}" for name, kind in _columns(mart).items()]
    key = [] if mart.name in REPLACED else [f"primary key ({', '.join(mart.key)})"]
    yield f"create table {table} ({', '.join([*columns, *key])})"
    if not key:
        yield f"create index on {table} (collection)"
    yield f"comment on table {table} is {_quoted(mart.about)}"
    yield from (f"comment on column {table}.{field.name} is {_quoted(about)}" for field, about in mart.columns())


def _lacking(mart: Mart, there: Mapping[str, str]) -> Iterator[str]:
    table = f"{SCHEMA}.{mart.name}"
    for name, kind in _columns(mart).items():
        if name not in there:
            yield f"alter table {table} add column {name} {kind}"
        elif there[name] != kind:
            raise StorageError(
                f"expected {table}.{name} as {kind}, found {there[name]}: somebody has changed it; `drop table {table}`, and fill all again"
            )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _filled(cursor: Any, collection: Collection) -> dict[str, str]:
    """Mart -> digest of what it was filled from. Raises StorageError for a collection of another store: its rows would be taken away."""
    cursor.execute(f"select mart, store, digest from {_FILLED} where collection = $1", (collection.name,))  # noqa: S608
    rows = cursor.fetchall()
    others = {store for _, store, _ in rows} - {collection.store.root}
    if others:
        raise StorageError(
            f"expected the marts of {collection} in {collection.store.root}, found those of a collection of that name in {min(others)}: "
            f"take a database for each store; if the store was moved, `drop table {_FILLED}`"
        )
    return {mart: digest for mart, _, digest in rows}


def _remember(cursor: Any, collection: Collection, mart: Mart, digest: str) -> None:
    cursor.execute(
        f"insert into {_FILLED} values ($1, $2, $3, $4, now()) on conflict (collection, mart) do update "  # noqa: S608
        "set digest = excluded.digest, at = excluded.at",
        (collection.name, mart.name, collection.store.root, digest),
    )


def _send(cursor: Any, name: str, mart: Mart, rows: pa.Table) -> int:
    """How many rows of a collection were added, changed or taken away."""
    given, table, columns = f"given_{mart.name}", f"{SCHEMA}.{mart.name}", ", ".join(mart.schema.names)
    cursor.adbc_ingest(given, _storable(rows), mode="create", temporary=True)
    changed = 0
    if mart.name in REPLACED | MIRRORED:
        same = " and ".join(f"given.{column} = kept.{column}" for column in mart.key)
        left = "" if mart.name in REPLACED else f" and not exists (select from {given} as given where {same})"
        changed += _count(cursor, f"delete from {table} as kept where kept.collection = $1{left}", (name,))  # noqa: S608
    if mart.name in WHOLE_DAYS:
        same = " and ".join(f"given.{column} = kept.{column}" for column in mart.key)
        gone = f"exists (select from {given} as given where given.day = kept.day)"
        gone += f" and not exists (select from {given} as given where {same})"
        changed += _count(cursor, f"delete from {table} as kept where kept.collection = $1 and {gone}", (name,))  # noqa: S608
    settled = "" if mart.name in REPLACED else _settled(mart)
    changed += _count(cursor, f"insert into {table} as kept ({columns}) select {columns} from {given}{settled}")  # noqa: S608
    cursor.execute(f"drop table {given}")
    return changed


def _settled(mart: Mart) -> str:
    """What is done with rows that are there already; what is the same is not written."""
    rest = [column for column in mart.schema.names if column not in mart.key]
    sets = ", ".join(f"{column} = excluded.{column}" for column in rest)
    kept, new = (", ".join(f"{side}.{column}" for column in rest) for side in ("kept", "excluded"))
    return f" on conflict ({', '.join(mart.key)}) do update set {sets} where ({kept}) is distinct from ({new})"


def _count(cursor: Any, statement: str, values: tuple[str, ...] = ()) -> int:
    """Do it, and say to how many rows: the driver counts none."""
    cursor.execute(f"with done as ({statement} returning 1) select count(*) from done", values)  # noqa: S608
    return int(cursor.fetchone()[0])


def _storable(rows: pa.Table) -> pa.Table:
    """Postgres has no NUL in a text."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_string(field.type):
            rows = rows.set_column(place, field, pc.replace_substring(rows[field.name], "\0", "\ufffd"))
    return rows
