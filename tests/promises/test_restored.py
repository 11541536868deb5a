"""Tables that were restored from an older copy, and what was erased: said, no reason to stand still, never taken for others."""

import shutil
from pathlib import Path

import pytest

from flows import diff, evaluate, history, maintain, resume, rollback, search, status
from pipelines.errors import NotFound
from storage import open_published
from tests.conftest import Workplace
from tests.support.faults import small_scale


def documents(*numbers: int, word: str = "text") -> dict[str, str]:
    return {f"d{number}": f"{word} of document {number}" for number in numbers}


def texts(held: dict[str, str]) -> dict[str, str]:
    return {f"{id}#0": text for id, text in held.items()}


class Backup:
    """The tables as they are now, without the records beside them."""

    def __init__(self, workplace: Workplace) -> None:
        self._store = Path(workplace.store)
        self._copy = self._store.with_name("backup")
        shutil.copytree(self._store, self._copy, ignore=shutil.ignore_patterns("_revector"))

    def restore(self) -> None:
        for table in self._store.glob("*.lance"):
            shutil.rmtree(table)
        shutil.copytree(self._copy, self._store, dirs_exist_ok=True)


@pytest.fixture
def restored(workplace: Workplace) -> tuple[Workplace, dict[str, str]]:
    """Of three publications the tables of the first one are left. With it, what the corpus says."""
    held = documents(1, 2, 3)
    workplace.write("a.parquet", held)
    workplace.apply()
    backup = Backup(workplace)
    for step in (1, 2):
        held = held | documents(step, 10 + step, word=f"edit {step}")
        workplace.write("a.parquet", held)
        workplace.apply()
    backup.restore()
    return workplace, held


def test_what_is_gone_is_said_and_built_anew(restored: tuple[Workplace, dict[str, str]]) -> None:
    workplace, held = restored
    assert [row["gone"] for row in history(config=workplace.config)["published"]] == [False, True, True]
    assert status(config=workplace.config)["collections"][0]["published"]["gone"]
    for reader in (lambda: search("docs", "text", workplace.config), lambda: open_published(workplace.store, "docs")):
        with pytest.raises(NotFound, match=r"gone or others in their place.*revector apply docs"):
            reader()
    maintain(config=workplace.config)
    assert workplace.plan().pending
    assert workplace.apply().status == "published"
    assert workplace.texts() == texts(held)
    assert not status(config=workplace.config)["collections"][0]["published"]["gone"]
    assert workplace.apply().status == "nothing"


def test_a_version_number_that_is_used_again_is_another_version(restored: tuple[Workplace, dict[str, str]]) -> None:
    workplace, held = restored
    for step in range(4):  # until the numbers of the lost versions are used
        held = held | documents(20 + step, word="later")
        workplace.write("a.parquet", held)
        assert workplace.apply().status == "published"
        assert workplace.texts() == texts(held)
    rows = history(config=workplace.config)["published"]
    lost, later = rows[1:3], rows[3:]
    assert {row["version"] for row in lost} & {row["version"] for row in later}
    assert [row["gone"] for row in rows] == [False, True, True, *(False for _ in later)]
    maintain(config=workplace.config)
    for _ in later[1:]:
        rollback(config=workplace.config)
    rollback(config=workplace.config)
    assert workplace.texts() == texts(documents(1, 2, 3))


def test_a_rollback_goes_from_what_is_gone_to_what_is_there(restored: tuple[Workplace, dict[str, str]]) -> None:
    workplace, _ = restored
    rollback(config=workplace.config)
    assert workplace.texts() == texts(documents(1, 2, 3))


def test_a_pin_on_what_is_gone_is_released_by_a_person_alone(workplace: Workplace) -> None:
    for step in range(3):
        workplace.write("a.parquet", documents(1, step))
        workplace.apply()
    backup = Backup(workplace)
    workplace.write("a.parquet", documents(1, 7))
    workplace.apply()
    workplace.write("a.parquet", documents(1, 8))
    workplace.apply()
    rollback(config=workplace.config)
    backup.restore()
    done = workplace.apply()
    assert (done.status, done.pin is not None) == ("pinned", True)
    resume(config=workplace.config)
    assert workplace.texts() == texts(documents(1, 8))


def test_a_table_that_is_gone_as_a_whole_is_built_anew(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(1, 2))
    workplace.apply()
    for table in Path(workplace.store).glob("*.lance"):
        shutil.rmtree(table)
    maintain(config=workplace.config)
    assert workplace.apply().status == "published"
    assert workplace.texts() == texts(documents(1, 2))


def test_what_was_erased_is_no_precondition(workplace: Workplace) -> None:
    with small_scale():
        for step in range(3):
            workplace.write("a.parquet", documents(1, 2, 10 + step, word=f"edit {step}"))
            workplace.apply()
        versions = [row["version"] for row in history(config=workplace.config)["published"]]
        maintain(config=workplace.config, erase=True)
        evaluate("docs", config=workplace.config)
        kept = history(config=workplace.config)["published"][-1]["version"]
        assert diff("docs", kept, kept, workplace.config)["documents"]["changed"] == 0
        with pytest.raises(NotFound, match=f"expected one of the published versions {kept}, found {versions[0]}, which is no longer"):
            diff("docs", versions[0], kept, workplace.config)
        workplace.write("a.parquet", documents(1, 2, 3))
        assert workplace.apply().status == "published"
