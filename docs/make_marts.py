"""Writes docs/marts.md: the tables from `storage/marts/columns.py`, the questions from docs/questions.sql, the rest from here.

    python docs/make_marts.py        # or: make reference

A test fails when the committed file is not what this makes, and another one asks all that it says.
"""

from collections.abc import Iterator
from pathlib import Path

from storage.marts.columns import MARTS, Mart
from storage.marts.mart_files import FOLDER
from storage.marts.postgres import REPLACED, TYPES

PAGE = Path(__file__).with_name("marts.md")
QUESTIONS = Path(__file__).with_name("questions.sql")
ROLES = Path(__file__).parents[1] / "infra" / "postgres" / "marts.sql"
HEAD = """# Marts

<!-- Written by `make reference`. To change it, change storage/marts/columns.py, docs/questions.sql or docs/make_marts.py. -->

Small tables of what runs leave, for Grafana, Superset, Metabase, Power BI, DuckDB, or whatever asks in SQL. Each run, evaluation, report
and upkeep brings them up to date at its end; one that could not write them costs nothing, the next one makes up for it. They are made
from the records, so they can be lost and made again: `revector export --to marts`.

They have ids, figures, names and reasons. They have no text of a document, and no vector. Times are in UTC. What is not known is null,
which is not zero.

- [As Parquet, with DuckDB](#as-parquet-with-duckdb)
- [In Postgres](#in-postgres)
- [Ten questions](#ten-questions)
- [The tables](#the-tables)
- [What they do not say](#what-they-do-not-say)

## As Parquet, with DuckDB

In the store: `{folder}/TABLE/COLLECTION.parquet`. One view for each table, in the folder that the store is in:

```sql
{views}
```

A store on S3 goes the same way with DuckDB's extension `httpfs`. Without it, from Python, through revector's own access:

```python
import duckdb
from storage.marts.columns import MARTS
from storage.marts.mart_files import read_marts
from storage.store.lance import Store

runs = read_marts(Store("s3://bucket/prefix"), MARTS["runs"])
duckdb.sql("select collection, sum(cost) from runs group by 1").show()
```

`revector export NAME OUT --to marts` copies those of a collection into a folder of their own, as `OUT/TABLE/COLLECTION.parquet`.

## In Postgres

1. `pip install 'revector[bi]'` where runs end; the images have it.
2. An administrator, once: `psql --file infra/postgres/marts.sql --set writer=PASSWORD --set reader=PASSWORD`. It makes a database `marts`,
   a role `revector` that writes, and a role `reader` that can do nothing but read:

```sql
{roles}
```

3. In the spec of each collection `marts = {{ postgres = "env:REVECTOR_MARTS" }}`, and in the environment of its runs
   `REVECTOR_MARTS=postgresql://revector:PASSWORD@HOST/marts?sslmode=verify-full` (what libpq takes: `sslrootcert`, a `service` of a file,
   `~/.pgpass`). Every run fills its rows then. To fill by hand, or what was there before:

```sh
revector export --to marts --postgres env:REVECTOR_MARTS
```

A collection's rows change in one transaction: a tool sees all tables as before, or all as after. What has not changed is not sent. A fill
that is killed leaves nothing behind, and the next one does all of it. A Postgres that is away stops no run: its log and an alert say so,
and the next run fills what is missing; `revector doctor` tries it. Tables have their columns' meanings as comments, and lie in the schema
`revector`.

Tables and columns that a newer revector brings are added by its first fill, and written down in `revector.migrations`; none is ever taken
away or changes its type. Grants stay. `revector.filled` says which state of the store each table has. One database is for one store: rows
of a collection of the same name in another store are refused.

Connect a BI tool as `reader`; what makes it read-only is the role, not the tool. Grafana has a dashboard:
[infra/grafana/dashboards/marts.json](../infra/grafana/dashboards/marts.json).

`revector maintain --erase` takes ids, names of files and messages out of the marts, in the store and, where the spec names it, in Postgres,
and vacuums its tables. Backups and replicas of the database are yours to look after.

## Ten questions

Each runs as it stands in DuckDB on the views above, and in Postgres as `reader`, whose search path is `revector`.
"""
TAIL = """## What they do not say

- What goes on at this moment: a run that is not over has a row with the status `unfinished` once another one has ended, and no figures.
- A text, a vector, or what a gate found of each row: `revector history --json`, `revector status` and the dashboard have that.
- What a column that came up later would be of rows from before: it is null there. Remove `_revector/marts.d`, and `revector export --to
  marts` makes all anew of what is still on record.
- In files more than the 10,000 newest runs of a collection. In Postgres they stay. Of neither more dead letters than a run's record keeps.
"""


def page() -> str:
    """The whole of marts.md."""
    head = HEAD.format(folder=FOLDER, views="\n".join(views()), roles=_roles())
    return "\n".join([head, *_questions(), "## The tables\n", *(line for mart in MARTS.values() for line in _table(mart)), TAIL])


def views(store: str = "store") -> Iterator[str]:
    """Statements of DuckDB that make a view of each table."""
    for name in MARTS:
        yield f"create view {name} as from read_parquet('{store}/{FOLDER}/{name}/*.parquet', union_by_name = true);"


def questions() -> list[tuple[str, str]]:
    """Each with its SQL."""
    parts = QUESTIONS.read_text(encoding="utf-8").strip().split("\n\n")
    return [(said.removeprefix("-- "), sql) for said, _, sql in (part.partition("\n") for part in parts)]


def _roles() -> str:
    lines = ROLES.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line and not line.startswith("--"))


def _questions() -> Iterator[str]:
    for number, (said, sql) in enumerate(questions(), 1):
        yield f"{number}. {said}\n\n```sql\n{sql}\n```\n"


def _table(mart: Mart) -> Iterator[str]:
    key = ", ".join(f"`{name}`" for name in mart.key)
    yield f"### {mart.name}\n\n{mart.about} {'A row' if mart.name in REPLACED else 'Key'}: {key}.\n"
    yield "| column | type in Postgres | meaning |\n| --- | --- | --- |"
    for field, about in mart.columns():
        yield f"| `{field.name}` | {TYPES[field.type]} | {about} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
