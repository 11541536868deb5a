"""Whether a place can be a store: found by trying, with both clients that write there, before anything is entrusted to it.

Commits rest on one thing alone: of several writers who each put a name that is not there yet, exactly one wins. Stores that ignore that
condition, or look at it too early, lose commits without an error.
"""

import itertools
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Barrier

import orjson
import pyarrow as pa
from lance import LanceDataset, LanceOperation, Transaction
from lance.commit import CommitConflictError

from pipelines.errors import RevectorError, StorageError
from pipelines.redaction import redact
from storage.store.lance import Store, table_meta
from storage.store.s3 import clear_errors, endpoint, store_failure
from storage.who import now, whoami

FOLDER = "_revector/_doctor"
RECORD = "_revector/examination.json"
WRITERS = 8
OBJECT_RACES, TABLE_RACES = 4, 2
LITTLE_SPACE, LITTLE_SCRATCH = 5 << 30, 1 << 30
"""Bytes: of the store, and of the folder that differences of large tables lie in for a while."""
LARGEST_SKEW = timedelta(minutes=1)
GRANULARITY = timedelta(seconds=2)
"""Stores give times in seconds, some round them up."""
_VERSIONS = ("revector", "pylance", "s3fs")
_SCHEMA = pa.schema([("writer", pa.int64())])


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried, and what came of it."""

    name: str
    ok: bool
    detail: str
    """What was found; of one that failed: what was expected, too."""


def attempt(name: str, check: Callable[[], str]) -> Check:
    """Run `check`: passed, with the detail that it gives, or failed, with the error that it ends with. Other errors than ours go on."""
    try:
        with clear_errors():
            return Check(name, True, check())
    except (RevectorError, OSError) as error:
        return Check(name, False, redact(" ".join(str(error).split())))


def examine_store(store: Store) -> list[Check]:
    """Try all that a run asks of a store: soundness, then clock and space. Leaves nothing behind but the verdict for `require_sound`."""
    sound = _soundness(store)
    _keep_verdict(store, sound)
    if not sound[0].ok:
        return sound
    return [*sound, attempt("clock", partial(_clock, store)), attempt("free space", partial(_space, store)), attempt("scratch", _scratch)]


def require_sound(store: Store) -> None:
    """Raise StorageError unless this very store was found sound: now, if it was never examined."""
    if _found_sound(store):
        return
    sound = _soundness(store)
    _keep_verdict(store, sound)
    for check in sound:
        if not check.ok:
            raise StorageError(f"{store.root}: {check.name}: {check.detail}")


def _soundness(store: Store) -> list[Check]:
    """What nothing can be entrusted to a store without. Stops at the first failure: what follows rests on it."""
    tries = {"permissions": _permissions, "both clients": _both_clients, "conditional writes": _race_objects, "table commits": _race_tables}
    checks: list[Check] = []
    for name, check in tries.items():
        checks.append(attempt(name, partial(_in_a_folder, store, check)))
        if not checks[-1].ok:
            break
    return checks


def _in_a_folder(store: Store, check: Callable[[Store, str], str]) -> str:
    with _folder(store) as folder:
        return check(store, folder)


@contextmanager
def _folder(store: Store) -> Iterator[str]:
    """A place of its own: other examinations may go on."""
    folder = f"{FOLDER}/{uuid.uuid4().hex}"
    try:
        yield folder
    finally:
        with suppress(OSError):  # what is wrong with the store may be wrong with this, too; a store that cannot delete is told of
            store.objects.remove(folder)
        if not store.objects.remote:
            with suppress(OSError):  # another examination is in it
                Path(store.root, FOLDER).rmdir()


# The verdict


def _found_sound(store: Store) -> bool:
    record = store.objects.get_json(RECORD)
    return bool(record) and all(record[key] == value for key, value in _place(store).items())


def _place(store: Store) -> dict[str, str]:
    """What the verdict is bound to: a copy of the store elsewhere is another one."""
    return {"root": store.root, "endpoint": (endpoint() or "AWS") if store.objects.remote else ""}


def _keep_verdict(store: Store, sound: list[Check]) -> None:
    """The newest one counts: a store that is no longer sound is forgotten."""
    if all(check.ok for check in sound):
        made = {"at": now(), "who": whoami(), "host": socket.gethostname(), "versions": {name: version(name) for name in _VERSIONS}}
        record = {**_place(store), **made, "checks": {check.name: check.detail for check in sound}}
        store.objects.put(RECORD, orjson.dumps(record, option=orjson.OPT_INDENT_2))
    elif sound[0].ok:
        store.objects.delete(RECORD)


# What is tried


def _permissions(store: Store, folder: str) -> str:
    """Make every kind of request that a run makes. Gives their names; raises StorageError that names the first that is refused."""
    objects, key = store.objects, f"{folder}/object"
    requests: dict[str, Callable[[], object]] = {
        "list": lambda: objects.names("_revector"),
        "put": lambda: objects.put(key, b"1"),
        "conditional put": lambda: objects.put_if_absent(f"{key}-2", b"2"),
        "get": lambda: objects.get(key),
        "delete": lambda: objects.delete(key),
        "table commit": lambda: store.create(f"{folder}/t", _SCHEMA, {}),
    }
    for name, request in requests.items():
        try:
            request()
        except (OSError, RevectorError) as error:
            reason = str(error) or type(error).__name__
            raise StorageError(f"expected to be allowed to {name} in {store.root}, found {reason}: check credentials and policy") from error
    return ", ".join(requests)


def _both_clients(store: Store, folder: str) -> str:
    """What Lance writes is copied with the other client, and the copy opened with Lance: wherever one looks elsewhere, it is not there."""
    objects = store.objects
    store.create(f"{folder}/a", _SCHEMA, {"made": "here"})
    files = objects.walk(f"{folder}/a.lance")
    for key in files:
        objects.put(key.replace("/a.lance/", "/b.lance/"), objects.get(key) or b"")
    if not files or not store.has(f"{folder}/b") or table_meta(store.open(f"{folder}/b")) != {"made": "here"}:
        raise StorageError(
            f"expected Lance and s3fs to see the same objects in {store.root}, found that they do not: "
            "do AWS_PROFILE, region and endpoint hold for both?"
        )
    return "Lance and the ledger see the same objects"


def _race_objects(store: Store, folder: str) -> str:
    """Let the writers of each name put it all at once, and then one more: of all of them one may win."""
    objects, together = store.objects, Barrier(OBJECT_RACES * WRITERS)

    def put(race: int, writer: int) -> bool:
        together.wait()
        return objects.put_if_absent(f"{folder}/{race}", b"%d" % writer)

    for race, won in enumerate(_all_at_once(OBJECT_RACES, put)):
        late = objects.put_if_absent(f"{folder}/{race}", b"late")
        if sum(won) != 1 or late or objects.get(f"{folder}/{race}") != b"%d" % won.index(True):
            raise _racy(store, sum(won) + late)
    return f"one of {WRITERS} writers won each of {OBJECT_RACES} races"


def _race_tables(store: Store, folder: str) -> str:
    """Writers who each replace one version of a table, as the catalog is swapped."""
    together = Barrier(TABLE_RACES * WRITERS)
    bases = [store.create(f"{folder}/{race}", _SCHEMA, {}) for race in range(TABLE_RACES)]

    def swap(race: int, writer: int) -> bool:
        base = bases[race]
        overwrite = Transaction(base.version, LanceOperation.Overwrite(base.schema, []), transaction_properties={"writer": str(writer)})
        together.wait()
        try:
            LanceDataset.commit(base.uri, overwrite, storage_options=store.options, max_retries=0)
        except CommitConflictError:
            return False
        except OSError as error:
            failure = store_failure(error) or error
            raise StorageError(f"expected writers of one table to win or to lose in {store.root}, found {failure}") from error
        return True

    for race, won in enumerate(_all_at_once(TABLE_RACES, swap)):
        after = store.open(f"{folder}/{race}")
        kept = after.read_transaction(after.version).transaction_properties["writer"]
        if sum(won) != 1 or after.version != bases[race].version + 1 or kept != str(won.index(True)):
            raise _racy(store, sum(won))
    return f"one of {WRITERS} writers won each of {TABLE_RACES} races"


def _all_at_once(races: int, write: Callable[[int, int], bool]) -> list[list[bool]]:
    """Who won: for each race one bool a writer. A store is the busier, and its gaps the wider, the more races there are at a time."""
    numbers, writers = zip(*itertools.product(range(races), range(WRITERS)), strict=True)
    with ThreadPoolExecutor(races * WRITERS) as threads:
        won = list(threads.map(write, numbers, writers))
    return [won[start : start + WRITERS] for start in range(0, len(won), WRITERS)]


def _racy(store: Store, won: int) -> StorageError:
    return StorageError(
        f"expected one of {WRITERS} racing writers to win in {store.root}, found {won}, or another one's bytes: this store would lose "
        "commits. Keep the vectors where conditional writes hold: a local disk, Amazon S3, SeaweedFS 4.48"
    )


def _clock(store: Store) -> str:
    """The store's time of an object that was just written, against the time of this machine."""
    with _folder(store) as folder:
        before = datetime.now(UTC)
        store.objects.put(f"{folder}/object", b"")
        after = datetime.now(UTC)
        written = store.objects.modified(f"{folder}/object")
    skew = max(before - GRANULARITY - written, written - after - GRANULARITY, timedelta())
    if skew > LARGEST_SKEW:
        raise StorageError(
            f"expected the clocks of the store and of this machine within {LARGEST_SKEW.seconds} s, found {skew.total_seconds():.0f} s "
            f"between them ({written:%H:%M:%S} there, {after:%H:%M:%S} here, UTC): set the wrong one by NTP"
        )
    return f"that of the store within {GRANULARITY.seconds + skew.seconds} s"


def _space(store: Store) -> str:
    if store.objects.remote:
        return "an object store: not limited by this machine"
    folder = Path(store.root)
    return _free(next(path for path in (folder, *folder.parents) if path.exists()), LITTLE_SPACE)


def _scratch() -> str:
    """Where Spill keeps what does not fit in memory."""
    folder = Path(tempfile.gettempdir())
    return f"{_free(folder, LITTLE_SCRATCH)} in {folder}"


def _free(folder: Path, least: int) -> str:
    free = shutil.disk_usage(folder).free
    if free < least:
        raise StorageError(f"expected at least {least >> 30} GiB free in {folder}, found {free / (1 << 30):.1f}: make room, or set TMPDIR")
    return f"{free / (1 << 30):.0f} GiB"
