"""`doctor` finds what would go wrong before `apply` does."""

import pytest

from flows.doctor import examine
from storage.objects import Objects
from tests.conftest import Workplace

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_sound_place_passes(workplace: Workplace) -> None:
    checks = {check.name: check.ok for check in examine(None, workplace.config, None)}
    assert checks == dict.fromkeys(["store writes", "free space", "model of docs", "corpus of docs", "ray"], True)


def test_a_store_that_ignores_the_condition_is_found(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrite(self: Objects, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True

    monkeypatch.setattr(Objects, "put_if_absent", overwrite)
    check = next(check for check in examine(None, workplace.config, None) if check.name == "store writes")
    assert (check.ok, "would lose commits" in check.detail) == (False, True)


def test_a_missing_corpus_or_model_is_found(workplace: Workplace) -> None:
    workplace.spec(model='name = "./nowhere"', source='uri = "missing/*.txt"')
    failed = [check.name for check in examine(None, workplace.config, None) if not check.ok]
    assert failed == ["model of docs", "corpus of docs"]
