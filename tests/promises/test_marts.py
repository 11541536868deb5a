"""What BI tools read is what runs left: the same in files and in Postgres, filled once, whole or not at all, by nobody but the writer."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest

from docs import make_marts
from flows import doctor, drop, export_marts, maintain, resume, rollback
from flows.cli import main
from pipelines.errors import RevectorError, SpecError, StorageError
from pipelines.spec.running import MartsSpec
from storage.collection import Collection, collections
from storage.marts import postgres as filling
from storage.marts.columns import MARTS
from storage.marts.handing import leave
from storage.marts.mart_files import put_mart, read_mart, table_of
from storage.marts.postgres import address_of, fill
from storage.store.lance import Store
from tests.conftest import Workplace
from tests.support.postgresql import ROOT, Postgres, serve_postgres
from workers.runs import apply as applying

DASHBOARD = ROOT / "infra" / "grafana" / "dashboards" / "marts.json"
MARTS_KEY = 'marts = { postgres = "env:MARTS" }'
PRICES = 'prices = { cpu_hour = 1.0, currency = "EUR" }'
CANDIDATE = 'candidates = [{ name = "hash", dimensions = 24 }]\ngates = { max_failed = 1, max_removed = 0.5, min_overlap_changed = 0 }'


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with serve_postgres() as made:
        yield made


@pytest.fixture
def database(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """Nothing is in it, and runs find it."""
    server.psql("--command", "drop schema if exists revector cascade", database="marts")
    roles = make_marts.ROLES.read_text()
    again = [line for line in roles.partition("\\connect marts\n")[2].splitlines() if "schema revector" in line]
    server.psql(*(argument for line in again for argument in ("--command", line)), database="marts")
    monkeypatch.setenv("MARTS", server.uri())
    return server


def documents(*numbers: int) -> dict[str, str]:
    return {f"d{number}": f"text of document {number}" for number in numbers}


def story(workplace: Workplace) -> None:
    """A load, an update with a dead letter, a failed gate, a rollback and what releases it; a candidate beside."""
    workplace.spec(rest=f"{PRICES}\n{CANDIDATE}\n{MARTS_KEY}")
    workplace.write("a.parquet", documents(*range(20)))
    workplace.apply()
    (workplace.root / "data" / "broken.parquet").write_bytes(b"no Parquet")
    workplace.write("a.parquet", documents(*range(21)))
    workplace.apply()
    workplace.write("a.parquet", documents(1, 2))
    assert workplace.apply().status == "built"
    workplace.write("a.parquet", documents(*range(22)))
    workplace.apply()
    rollback(config=workplace.config, why="recall fell")
    resume(config=workplace.config, why="mended")


def here(workplace: Workplace) -> Collection:
    return Collection(Store(workplace.store), "docs")


def in_files(workplace: Workplace, name: str) -> list[tuple[Any, ...]]:
    rows = read_mart(here(workplace), MARTS[name]).to_pylist()
    return sorted((tuple(row.values()) for row in rows), key=repr)


def in_postgres(database: Postgres, name: str) -> list[tuple[Any, ...]]:
    return sorted(database.rows(f"select {', '.join(MARTS[name].schema.names)} from {name}"), key=repr)


def asked(workplace: Workplace) -> duckdb.DuckDBPyConnection:
    """DuckDB with the views of the page, as they stand there, but for the place of the store."""
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    for view in make_marts.views(workplace.store):
        connection.execute(view)
    return connection


def test_runs_fill_postgres_with_what_they_leave_in_the_store(workplace: Workplace, database: Postgres) -> None:
    story(workplace)
    for name in MARTS:
        assert in_postgres(database, name) == in_files(workplace, name), name
    assert {"runs", "stages", "gates", "versions", "dead_letters"} <= {name for name in MARTS if in_postgres(database, name)}


def test_the_questions_of_the_page_have_the_same_answers_in_duckdb_and_postgres(workplace: Workplace, database: Postgres) -> None:
    story(workplace)
    files = asked(workplace)
    answered = 0
    for said, sql in make_marts.questions():
        by_files, by_server = files.execute(sql).fetchall(), database.rows(sql)
        assert [[plain(value) for value in row] for row in by_files] == [[plain(value) for value in row] for row in by_server], said
        answered += bool(by_files)
    assert len(make_marts.questions()) == 10
    assert answered >= 8  # nothing is over budget, and no run was slow


def plain(value: Any) -> Any:
    """A number as one of a kind, rounded: engines add in different orders, and the driver gives numerics as texts."""
    try:
        return round(float(value), 6)
    except (TypeError, ValueError):
        return value


def test_what_the_page_says_in_python_works(workplace: Workplace, capfd: pytest.CaptureFixture[str]) -> None:
    workplace.spec(rest=PRICES)
    workplace.write("a.parquet", documents(1))
    workplace.apply()
    code = make_marts.page().partition("```python\n")[2].partition("```")[0]
    assert "s3://bucket/prefix" in code
    exec(code.replace("s3://bucket/prefix", workplace.store), {})
    assert "docs" in capfd.readouterr().out


def test_every_query_of_grafana_s_dashboard_is_answered(workplace: Workplace, database: Postgres) -> None:
    story(workplace)
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [target["rawSql"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    others = [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    others += [annotation["rawQuery"] for annotation in dashboard["annotations"]["list"]]
    empty = [sql for sql in (*panels, *others) if not database.rows(filled_in(sql))]
    assert len(panels) >= 12
    assert [sql for sql in empty if "monthly_budget" not in sql and "revector.reports" not in sql] == []


def filled_in(sql: str) -> str:
    """Grafana's macros and variables, as it replaces them."""
    while "$__timeFilter(" in sql:
        before, _, rest = sql.partition("$__timeFilter(")
        depth = next(place for place in range(len(rest)) if rest[: place + 1].count(")") > rest[:place].count("("))
        sql = f"{before}{rest[:depth]} between now() - interval '1 day' and now() + interval '1 day'{rest[depth + 1 :]}"
    return sql.replace("$collection", "'docs', 'others'").replace("$gate", "dead letters")


def test_a_second_fill_changes_nothing(workplace: Workplace, database: Postgres) -> None:
    story(workplace)
    before = {name: in_postgres(database, name) for name in MARTS}
    written = database.rows("select sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_stat_user_tables", user="revector")
    (again,) = export_marts("docs", workplace.config)
    assert again.postgres == {}
    assert {name: in_postgres(database, name) for name in MARTS} == before
    database.psql("--command", "delete from revector.filled", database="marts")  # all is sent again
    (sent,) = export_marts("docs", workplace.config)
    assert {name: rows for name, rows in (sent.postgres or {}).items() if rows and name != "dead_letters"} == {}
    assert {name: in_postgres(database, name) for name in MARTS} == before
    assert written


def test_a_database_that_is_away_stops_no_run_and_the_next_one_makes_up_for_it(
    workplace: Workplace, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.spec(rest=MARTS_KEY)
    workplace.write("a.parquet", documents(1))
    metrics = workplace.root / "metrics"
    metrics.mkdir()
    monkeypatch.setenv("REVECTOR_METRICS", str(metrics))
    monkeypatch.setenv("MARTS", "postgresql://revector:revector@/marts?host=/nowhere")
    assert workplace.apply().status == "published"
    assert "revector_marts_left{" in (said := (metrics / "revector_docs.apply.prom").read_text()) and said_of(said) == 0
    monkeypatch.setenv("MARTS", database.uri())
    workplace.write("a.parquet", documents(1, 2))
    workplace.apply()
    assert said_of((metrics / "revector_docs.apply.prom").read_text()) == 1
    assert in_postgres(database, "runs") == in_files(workplace, "runs")


def test_doctor_tries_what_a_fill_needs_and_leaves_nothing(
    workplace: Workplace, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_cluster", lambda _: iter(()))
    workplace.spec(rest=MARTS_KEY)
    workplace.write("a.parquet", documents(1))
    (found,) = (check for check in doctor.examine(None, workplace.config, None) if check.name == "marts of docs")
    assert found.ok and found.detail.startswith("Postgres ") and found.detail.endswith("as revector")
    assert database.rows("select count(*) from information_schema.tables where table_schema = 'revector'", "revector") == [(0,)]
    monkeypatch.setenv("MARTS", database.uri("reader"))
    (found,) = (check for check in doctor.examine(None, workplace.config, None) if check.name == "marts of docs")
    assert (not found.ok and "permission denied" in found.detail) or "read-only" in found.detail


def said_of(metrics: str) -> float:
    return float(next(line.rpartition(" ")[2] for line in metrics.splitlines() if line.startswith("revector_marts_left{")))


def test_a_fill_that_is_killed_leaves_nothing_and_the_next_one_does_all(workplace: Workplace, database: Postgres) -> None:
    """Killed amid the tables, by a real signal, while the server has some of them; and at its very end."""
    workplace.spec()
    workplace.write("a.parquet", documents(1, 2))
    workplace.apply()
    for mart in ("runs", "dead_letters", "reports"):
        assert killed_at(mart, workplace, database) == -9
        assert database.rows("select count(*) from information_schema.tables where table_schema = 'revector'", user="revector") == [(0,)]
    fill(database.uri(), here(workplace))
    before = in_postgres(database, "runs")
    workplace.write("a.parquet", documents(1, 2, 3))
    workplace.apply()
    assert killed_at("stages", workplace, database) == -9
    assert in_postgres(database, "runs") == before  # though it had been sent
    fill(database.uri(), here(workplace))
    for name in MARTS:
        assert in_postgres(database, name) == in_files(workplace, name), name


KILLED = """
import os, signal, sys
from storage.collection import Collection
from storage.marts import postgres
from storage.store.lance import Store

def stop(cursor, collection, mart, digest, remember=postgres._remember):
    remember(cursor, collection, mart, digest)
    if mart.name == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

postgres._remember = stop
postgres.fill(sys.argv[1], Collection(Store(sys.argv[2]), "docs"))
"""


def killed_at(mart: str, workplace: Workplace, database: Postgres) -> int:
    command = [sys.executable, "-c", KILLED, database.uri(), workplace.store, mart]
    code = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode
    others = "select count(*) from pg_stat_activity where usename = 'revector' and pid <> pg_backend_pid()"
    deadline = time.monotonic() + 10  # the server notices that its client is gone
    while database.rows(others, "revector") != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return code


def test_the_reader_reads_all_that_will_be_made_and_changes_nothing(workplace: Workplace, database: Postgres) -> None:
    workplace.spec(rest=MARTS_KEY)
    workplace.write("a.parquet", documents(1))
    workplace.apply()
    database.psql("--command", "set role revector; create table revector.later (a text)", database="marts")
    assert database.rows("select * from later") == []
    for statement in (
        "delete from runs",
        "update runs set cost = 0",
        "insert into collections (collection) values ('x')",
        "truncate runs",
        "drop table runs",
        "alter table runs add column x text",
        "create table revector.own (a text)",
        "create table public.own (a text)",
        "create temporary table own (a text)",
    ):
        writing = ("--command", "set default_transaction_read_only = off", "--command", statement)
        with pytest.raises(subprocess.CalledProcessError) as refused:
            database.psql("--set", "ON_ERROR_STOP=on", *writing, user="reader", database="marts")
        assert "permission denied" in refused.value.stderr or "must be owner" in refused.value.stderr, statement


def test_what_is_missing_of_the_schema_is_made_and_written_down_and_nothing_is_taken_away(workplace: Workplace, database: Postgres) -> None:
    workplace.spec()
    workplace.write("a.parquet", documents(1))
    workplace.apply()
    fill(database.uri(), here(workplace))
    made = database.rows("select count(*) from migrations")
    old = "alter table revector.runs drop column tokens; alter table revector.runs add column of_tomorrow text; drop table revector.stages"
    database.psql("--command", old, database="marts")
    fill(database.uri(), here(workplace))
    assert in_postgres(database, "runs") == in_files(workplace, "runs")
    assert in_postgres(database, "stages") == in_files(workplace, "stages")
    assert database.rows("select of_tomorrow from runs") == [(None,)]
    assert database.rows("select statement from migrations order by number offset " + str(made[0][0])) == [
        ("alter table revector.runs add column tokens bigint",),
        (next(filling._creation(MARTS["stages"])),),
    ]
    database.psql("--command", "alter table revector.runs alter column tokens type text", database="marts")
    with pytest.raises(StorageError, match=r"expected revector.runs.tokens as bigint, found text"):
        fill(database.uri(), here(workplace))
    database.psql("--command", "drop table revector.runs", database="marts")  # what the error says
    fill(database.uri(), here(workplace))
    assert in_postgres(database, "runs") == in_files(workplace, "runs")


def test_what_stands_goes_with_the_store_and_history_stays(workplace: Workplace, database: Postgres) -> None:
    """Also where all marts were lost, and are made anew from records that do not go back as far."""
    workplace.spec()
    workplace.write("a.parquet", documents(1))
    workplace.apply()
    letters = [letter(id="x" * 5000), letter(id="nul\0nul")]
    put_mart(here(workplace), MARTS["dead_letters"], table_of(MARTS["dead_letters"], letters))
    fill(database.uri(), here(workplace))
    assert sorted(row[0][:3] for row in database.rows("select id from dead_letters")) == ["nul", "xxx"]
    put_mart(here(workplace), MARTS["dead_letters"], table_of(MARTS["dead_letters"], letters[:1]))
    fill(database.uri(), here(workplace))
    assert [len(row[0]) for row in database.rows("select id from dead_letters")] == [5000]
    workplace.spec('name = "hash", dimensions = 8')
    workplace.apply()
    old = next(row["generation"] for row in read_mart(here(workplace), MARTS["generations"]).to_pylist() if row["role"] != "published")
    drop("docs", old, workplace.config)
    fill(database.uri(), here(workplace))
    assert database.rows("select count(*) from generations") == [(1,)]
    shutil.rmtree(Path(workplace.store) / "_revector" / "marts.d")
    shutil.rmtree(next((Path(workplace.store) / "_revector" / "docs" / "runs").iterdir()))
    export_marts("docs", workplace.config, postgres=database.uri())
    assert [len(in_files(workplace, "runs")), len(in_postgres(database, "runs"))] == [2, 3]


def test_a_run_that_was_seen_before_it_had_a_currency_is_counted_once(workplace: Workplace, database: Postgres) -> None:
    workplace.spec(rest=f"{PRICES}\n{MARTS_KEY}")
    workplace.write("a.parquet", documents(1))

    def meanwhile(*arguments: Any, judge: Any = applying.judge, **named: Any) -> Any:
        leave(here(workplace), marts=MartsSpec(postgres="env:MARTS"))
        return judge(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(applying, "judge", meanwhile)
        workplace.apply()
    assert in_postgres(database, "costs_daily") == in_files(workplace, "costs_daily")
    assert database.rows("select runs, currency from costs_daily") == [(1, "EUR")]


def letter(**fields: Any) -> dict[str, Any]:
    return {"collection": "docs", "stage": "document", "file": "a.parquet", "id": "1", "reason": "empty", "inputs": 1, **fields}


def test_a_collection_of_the_same_name_in_another_store_is_refused(workplace: Workplace, database: Postgres) -> None:
    workplace.spec()
    workplace.write("a.parquet", documents(1))
    workplace.apply()
    fill(database.uri(), here(workplace))
    shutil.copytree(workplace.store, workplace.root / "copy")
    with pytest.raises(StorageError, match="take a database for each store"):
        fill(database.uri(), Collection(Store(str(workplace.root / "copy")), "docs"))
    database.psql("--command", "drop table revector.filled", database="marts")  # what the error says
    fill(database.uri(), Collection(Store(str(workplace.root / "copy")), "docs"))
    assert database.rows("select count(*) from runs") == [(1,)]


def test_erasure_takes_ids_and_messages_out_of_files_and_postgres(workplace: Workplace, database: Postgres) -> None:
    workplace.spec(rest=f"gates = {{ max_failed = 1 }}\n{MARTS_KEY}")
    workplace.write("a.parquet", documents(1, 2))
    workplace.write("canary.parquet", documents(3))
    workplace.apply()
    (workplace.root / "data" / "canary.parquet").write_bytes(b"no Parquet")
    workplace.apply()
    row = {**read_mart(here(workplace), MARTS["runs"]).to_pylist()[0], "run_id": "20200101T000000000000-canary", "status": "failed"}
    rows = [*read_mart(here(workplace), MARTS["runs"]).to_pylist(), row | {"error": "SourceError: canary\nis odd"}]
    put_mart(here(workplace), MARTS["runs"], table_of(MARTS["runs"], rows))
    fill(database.uri(), here(workplace))
    assert database.rows("select file from dead_letters") == [("canary.parquet",)]
    put_mart(here(workplace), MARTS["runs"], table_of(MARTS["runs"], rows[:-1]))  # the files have no room for it any more
    workplace.remove("canary.parquet")
    workplace.apply()
    maintain(config=workplace.config, erase=True)
    for name in MARTS:
        assert "canary" not in repr([value for row in in_files(workplace, name) for value in row]).replace("000-canary", ""), name
        assert name == "runs" or in_postgres(database, name) == in_files(workplace, name), name
    assert database.rows("select error from runs where status = 'failed'") == [("SourceError",)]
    files = [path for path in (database.folder / "data" / "base").rglob("*") if path.is_file()]
    assert [path for path in files if b"canary.parquet" in path.read_bytes()] == []


def test_an_erasure_that_cannot_reach_postgres_says_so(workplace: Workplace, database: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    workplace.spec(rest=MARTS_KEY)
    workplace.write("a.parquet", documents(1))
    workplace.apply()
    monkeypatch.delenv("MARTS")
    with pytest.raises(SpecError, match="in MARTS, found none"):
        maintain(config=workplace.config, erase=True)
    monkeypatch.setenv("MARTS", database.uri())
    assert maintain(config=workplace.config, erase=True).status == "erased"


def test_many_fill_an_empty_database_at_once(workplace: Workplace, database: Postgres) -> None:
    workplace.write("a.parquet", documents(1))
    text = workplace.config.read_text()
    for name in "abcd":
        workplace.config.write_text(text.replace("collections.docs", f"collections.{name}"))
        workplace.apply()
    with ThreadPoolExecutor(8) as pool:
        every = [one for one in collections(Store(workplace.store)) for _ in range(2)]
        assert len(list(pool.map(lambda one: fill(database.uri(), one), every))) == 8
    assert database.rows("select collection, count(*) from runs group by 1 order by 1") == [(name, 1) for name in "abcd"]
    assert database.rows("select count(*), count(distinct statement) from migrations") == [(len(MARTS) + 2, len(MARTS) + 2)]


def test_marts_are_made_anew_from_the_records(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    workplace.spec()
    workplace.write("a.parquet", documents(1))
    workplace.apply()
    before = in_files(workplace, "runs")
    shutil.rmtree(Path(workplace.store) / "_revector" / "marts.d")
    monkeypatch.chdir(workplace.root)
    assert main._run(["export", "docs", "copies", "--to", "marts", "--json"], False) == 0
    (told,) = json.loads(capfd.readouterr().out)
    assert in_files(workplace, "runs") == before
    assert (told["rows"]["runs"], told["postgres"]) == (1, None)
    assert sorted(path.name for path in (workplace.root / "copies").iterdir()) == sorted(MARTS)
    assert main._run(["export", "docs", "copies", "--to", "marts"], False) == 64  # it is there
    assert main._run(["export", "docs", "--to", "png"], False) == 64


@pytest.mark.parametrize("named", ["env:NOWHERE", "mysql://u:hunter2@h/d", "u:hunter2@h"])
def test_an_address_that_is_none_is_refused_without_its_password(named: str) -> None:
    with pytest.raises(SpecError, match="expected the address of a Postgres") as refused:
        address_of(named, {})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("address", ["postgresql://u:hunter2%ff%@/d?host=/nowhere", "postgresql://u:hunter2@/d?host=/nowhere"])
def test_what_the_driver_says_has_no_password(workplace: Workplace, address: str) -> None:
    workplace.write("a.parquet", documents(1))
    workplace.apply()
    with pytest.raises(RevectorError, match="expected marts in Postgres, found") as refused:
        fill(address, here(workplace))
    assert "hunter2" not in str(refused.value)
