"""A real Postgres, of Debian's package, on a socket of its own: no network, no port, gone at the end of the block."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

ROOT = Path(__file__).parents[2]
PACKAGED = Path("/usr/lib/postgresql")
"""Where Debian has the programs of each version, off the PATH."""
ROLES = ROOT / "infra" / "postgres" / "marts.sql"
STARTS_WITHIN = 60.0
"""Seconds."""


@dataclass(frozen=True)
class Postgres:
    """A server with the roles, and the database, of `infra/postgres/marts.sql`."""

    folder: Path
    """Of its socket."""
    programs: Path

    def uri(self, user: str = "revector", password: str | None = None, database: str = "marts") -> str:
        """As the product takes it. A user's password is its name, unless another one is given."""
        return f"postgresql://{user}:{quote(password or user)}@/{database}?host={quote(str(self.folder), safe='')}"

    def psql(self, *arguments: str, user: str = "postgres", database: str = "postgres") -> str:
        """What psql says. Raises CalledProcessError where it fails."""
        command = [str(self.programs / "psql"), "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", *arguments]
        place = {"PGHOST": str(self.folder), "PGUSER": user, "PGPASSWORD": user, "PGDATABASE": database}
        return subprocess.run(command, env=os.environ | place, check=True, capture_output=True, text=True).stdout

    def rows(self, query: str, user: str = "reader") -> list[tuple[Any, ...]]:
        """Of a query in the marts. Raises the driver's Error."""
        from adbc_driver_postgresql import dbapi

        with dbapi.connect(self.uri(user)) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return [tuple(row) for row in cursor.fetchall()]


@contextmanager
def serve_postgres() -> Iterator[Postgres]:
    """Skips the test where there is no Postgres on this machine, or no user that may run it."""
    programs, account = _programs(), _account()
    folder = Path(
        tempfile.mkdtemp(prefix="revector-pg-")
    )  # not a test's own: the path of a socket is short, and others may not enter those
    try:
        secret = folder / "password"
        secret.write_text("postgres")
        for path in (folder, secret):
            os.chown(path, account.pw_uid, account.pw_gid)
        data = str(folder / "data")
        options = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]
        subprocess.run([programs / "initdb", f"--pgdata={data}", *options], check=True, capture_output=True, **_as(account, folder))
        with (folder / "log").open("wb") as log:
            settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", f"unix_socket_directories={folder}"]
            server = subprocess.Popen([programs / "postgres", "-D", data, *settings], stdout=log, stderr=log, **_as(account, folder))
        try:
            made = Postgres(folder, programs)
            _wait(server, made)
            made.psql("--file", str(ROLES), "--set", "writer=revector", "--set", "reader=reader")
            yield made
        finally:
            server.send_signal(signal.SIGQUIT)  # at once, its own processes too
            server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    found = [path.parent for path in PACKAGED.glob("*/bin/initdb")]
    if not found:
        pytest.skip("needs Postgres: apt-get install postgresql")
    return max(found, key=lambda path: path.parent.name.zfill(4))


def _account() -> pwd.struct_passwd:
    """Postgres does not run as root."""
    if os.getuid():
        return pwd.getpwuid(os.getuid())
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("needs a user `postgres`, or one other than root: apt-get install postgresql")


def _as(account: pwd.struct_passwd, folder: Path) -> dict[str, Any]:
    user = {} if os.getuid() else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    return {"cwd": folder, "env": {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, **user}


def _wait(server: subprocess.Popen[bytes], made: Postgres) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            made.psql("--command", "select 1")
            return
        except subprocess.CalledProcessError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                log = (made.folder / "log").read_text(errors="replace")
                raise RuntimeError(f"expected a Postgres in {made.folder}, found {error.stderr}\n{log}") from None
            time.sleep(0.05)
