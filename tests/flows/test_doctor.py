"""`doctor` finds what would go wrong before `apply` does, and nothing is entrusted to a store that would lose it."""

import time
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows import doctor
from flows.doctor import examine
from pipelines.errors import StorageError
from storage.store import examination
from storage.store.examination import RECORD, examine_store, require_sound
from storage.store.lance import Store
from storage.store.objects import Objects
from tests.conftest import Workplace
from tests.support.proxy import Fault, FaultProxy
from workers.cluster.nodes import Node

STORE = ["permissions", "both clients", "conditional writes", "table commits", "clock", "free space", "scratch"]
MACHINES = ["ray", "versions", "clocks"]


def failed(found: list[Any]) -> dict[str, str]:
    return {check.name: check.detail for check in found if not check.ok}


def residue(store: Store) -> list[str]:
    """Objects; an object store may list a folder for a while after its last one went."""
    return [key for key in store.objects.walk("_revector/_doctor") if key != "_revector/_doctor"]


def ignore_the_condition(self: Objects, key: str, data: bytes) -> bool:
    self.put(key, data)
    return True


def look_too_early(self: Objects, key: str, data: bytes) -> bool:
    """Right for writers one after another, wrong for those at once."""
    there = self.exists(key)
    time.sleep(0.001)
    if not there:
        self.put(key, data)
    return not there


def swallow_the_loser(self: Objects, key: str, data: bytes) -> bool:
    """Tells each who won, and replaces the winner's bytes nevertheless."""
    won = self._really_put(key, data)  # type: ignore[attr-defined]
    self.put(key, data)
    return bool(won)


@pytest.mark.usefixtures("ray_cluster")
def test_a_sound_place_passes(workplace: Workplace) -> None:
    found = examine(None, workplace.config, None)
    assert [check.name for check in found] == [*STORE, "model of docs", "corpus of docs", *MACHINES]
    assert not failed(found)


@pytest.mark.usefixtures("ray_cluster")
def test_a_missing_corpus_or_model_is_found(workplace: Workplace) -> None:
    workplace.spec(model='name = "./nowhere"', source='uri = "missing/*.txt"')
    assert list(failed(examine(None, workplace.config, None))) == ["model of docs", "corpus of docs"]


def test_a_sound_store_is_left_as_it_was_but_for_the_verdict(root: str) -> None:
    store = Store(root)
    assert not failed(examine_store(store))
    assert not residue(store)
    assert store.objects.remote or store.objects.names("_revector") == ["examination.json"]
    record = store.objects.get_json(RECORD)
    assert (record["root"], set(record["versions"]), len(record["checks"])) == (root, {"revector", "pylance", "s3fs"}, 4)
    assert {"at", "who", "host", "endpoint"} <= record.keys()


@pytest.mark.parametrize("fault", [ignore_the_condition, look_too_early, swallow_the_loser])
def test_a_store_that_would_lose_commits_is_found_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    store = Store(str(tmp_path / "store"))
    monkeypatch.setattr(Objects, "_really_put", Objects.put_if_absent, raising=False)
    monkeypatch.setattr(Objects, "put_if_absent", fault)
    assert "would lose commits" in failed(examine_store(store))["conditional writes"]
    with pytest.raises(StorageError, match=r"would lose commits\. Keep the vectors where") as raised:
        require_sound(store)
    assert "\n" not in str(raised.value)
    assert not residue(store)
    assert not store.objects.exists(RECORD)


def test_apply_entrusts_nothing_to_a_store_that_would_lose_commits(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    workplace.write("a.parquet", {"d0": "text"})
    with monkeypatch.context() as patched:
        patched.setattr(Objects, "_really_put", Objects.put_if_absent, raising=False)
        patched.setattr(Objects, "put_if_absent", ignore_the_condition)
        with pytest.raises(StorageError, match="would lose commits"):
            workplace.apply()
    assert Store(workplace.store).tables() == []
    assert workplace.apply().status == "published"


@pytest.mark.parametrize(("path", "name"), [("", "conditional writes"), ("_versions", "table commits")])
def test_an_object_store_that_ignores_the_condition_of_either_client_is_refused(
    bucket: str, proxy: FaultProxy, path: str, name: str
) -> None:
    proxy.inject(Fault("ignore condition", method="PUT", path=path, times=10_000))
    with pytest.raises(StorageError, match=f"{name}: expected .* racing writers"):
        require_sound(Store(bucket))
    assert not residue(Store(bucket))


DENIED = {"list": ("LIST", ""), "put": ("PUT", "object$"), "conditional put": ("PUT", "object-2$"), "get": ("GET", "object$")}
DENIED |= {"delete": ("DELETE|POST", ""), "table commit": ("PUT", r"\.lance")}


@pytest.mark.parametrize(("operation", "request_"), DENIED.items(), ids=DENIED)
def test_what_is_not_allowed_is_named(bucket: str, proxy: FaultProxy, operation: str, request_: tuple[str, str]) -> None:
    proxy.inject(Fault("403", method=request_[0], path=request_[1], times=10_000))
    assert f"expected to be allowed to {operation} in {bucket}" in failed(examine_store(Store(bucket)))["permissions"]


def test_two_clients_that_look_at_different_places_are_found(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a profile or an endpoint that only one of them knows."""
    monkeypatch.setattr(Store, "uri", lambda store, table: f"{store.root}/elsewhere/{table}.lance")
    assert "see the same objects" in failed(examine_store(Store(root)))["both clients"]


def test_a_clock_that_is_wrong_is_found(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Objects, "modified", lambda *_: datetime.now(UTC) - timedelta(minutes=3))
    (detail,) = failed(examine_store(Store(root))).values()
    assert "found 178 s between them" in detail or "found 177 s" in detail


def test_too_little_room_is_found_for_the_store_and_for_what_is_spilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(1 << 20))
    found = failed(examine_store(Store(str(tmp_path / "store"))))
    assert {name: "found 0.0" in detail for name, detail in found.items()} == {"free space": True, "scratch": True}


def test_a_store_is_examined_once_and_its_copy_anew(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(root)
    require_sound(store)
    verdict = store.objects.get(RECORD)
    assert verdict is not None
    monkeypatch.setattr(Objects, "put_if_absent", ignore_the_condition)
    require_sound(store)
    copy = Store(f"{root}-copy")
    copy.objects.put(RECORD, verdict)
    with pytest.raises(StorageError, match="would lose commits"):
        require_sound(copy)


def test_a_store_that_doctor_finds_to_have_become_unsound_is_refused_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path / "store"))
    require_sound(store)
    monkeypatch.setattr(Objects, "put_if_absent", ignore_the_condition)
    examine_store(store)
    with pytest.raises(StorageError, match="would lose commits"):
        require_sound(store)


NODE = Node("n1", "far", {"python": "3.9.1"}, 0.0, 1.0, 0.0, {})


@pytest.mark.parametrize(
    ("node", "name", "detail"),
    [(NODE, "versions", "found 3.9.1 on far"), (Node("n2", "late", {}, -125.0, 1.0, 0.0, {}), "clocks", "found that of late -125 s")],
)
@pytest.mark.usefixtures("ray_cluster")
def test_a_node_that_is_not_like_the_others_is_named(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, node: Node, name: str, detail: str
) -> None:
    monkeypatch.setattr(doctor, "survey", lambda _: [node])
    found = failed(examine(None, workplace.config, None))
    assert list(found) == [name]
    assert detail in found[name]
