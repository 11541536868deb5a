"""What all viewers share: looked at once for all of them, anew only where something was written, and never older than a decision."""

import threading
import time
from typing import Any

import pytest

from dashboard.looking import lookout
from dashboard.looking.lookout import Lookout
from flows import apply, rollback
from storage.marts.columns import COLLECTIONS
from storage.store.lance import Store
from tests.conftest import Workplace


@pytest.fixture
def two(workplace: Workplace) -> Workplace:
    """Collections `docs` and `notes` in one store."""
    workplace.write("1.parquet", {"a": "one text"})
    spec = workplace.config.read_text()
    workplace.config.write_text(spec + spec.replace("collections.docs", "collections.notes"))
    apply("docs", workplace.config)
    apply("notes", workplace.config)
    return workplace


def test_only_what_was_written_is_read_anew(two: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "FRESH_SECONDS", 0.0)
    read: list[str] = []
    real = lookout.readable_mart
    monkeypatch.setattr(lookout, "readable_mart", lambda collection, mart: (read.append(collection.name), real(collection, mart))[1])
    looking = Lookout(Store(two.store))
    for expected in (["docs", "notes"], []):
        read.clear()
        assert looking._of_all(COLLECTIONS)["collection"].to_pylist() == ["docs", "notes"]
        assert sorted(read) == expected
    two.write("2.parquet", {"b": "two"})
    apply("notes", two.config)
    read.clear()
    assert looking._of_all(COLLECTIONS)["documents"].to_pylist() == [1, 2]
    assert read == ["notes"]


def test_what_was_seen_before_a_decision_is_not_shown_after_it(two: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that began before, and ends after it."""
    two.write("2.parquet", {"b": "two"})
    apply("docs", two.config)
    looking = Lookout(Store(two.store))
    seen, decided = threading.Event(), threading.Event()
    real = lookout.all_publications

    def slow(store: Store) -> Any:
        rows = real(store)
        seen.set()
        assert decided.wait(20)
        return rows

    monkeypatch.setattr(lookout, "all_publications", slow)
    looker = threading.Thread(target=looking.publications)
    looker.start()
    assert seen.wait(20)
    rollback("docs", two.config)
    looking.forget()
    decided.set()
    looker.join()
    assert looking.publications("docs")[-1].action == "rollback"


def test_nobody_waits_for_a_look_that_goes_on_behind(two: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    looking = Lookout(Store(two.store))
    before = looking.standings()
    monkeypatch.setattr(lookout, "FRESH_SECONDS", 0.0)
    held = threading.Event()
    real = looking._standings
    monkeypatch.setattr(looking, "_standings", lambda: (held.wait(20), real())[1])
    two.write("2.parquet", {"b": "two"})
    apply("docs", two.config)
    assert [one.told("documents") for one in before] == [one.told("documents") for one in looking.standings()] == [1, 1]
    held.set()
    deadline = time.monotonic() + 20
    while [one.told("documents") for one in looking.standings()] != [2, 1]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
