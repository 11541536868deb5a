"""What runs leave on record does not grow for ever, and nothing that is asked for goes."""

import pytest

from flows import maintain
from pipelines.errors import Conflict
from storage.collection import Collection
from storage.history import fence
from storage.history.fence import Fence, take_fence, tokens
from storage.history.ledger import Run, runs
from storage.store.lance import Store
from storage.upkeep import retention
from tests.conftest import Workplace


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "KEPT_RUNS", 2)
    monkeypatch.setattr(retention, "KEPT_TOKENS", 2)


def in_turn(collection: Collection, *ended: bool) -> list[Fence]:
    """Runs one after another, of which some never left a result, and were overtaken."""
    fences = []
    for number, ends in enumerate(ended):
        fences.append(Fence(collection, number + 1, f"{number}"))
        collection.objects.put(f"_revector/c/fence/{number + 1:012d}.json", b'{"run_id": "%d"}' % number)
        if ends:
            Run(collection, f"{number}").write("result.json", {})
    return fences


@pytest.mark.usefixtures("few")
def test_a_token_stays_as_long_as_a_run_before_it_may_still_ask_for_it(root: str) -> None:
    collection = Collection(Store(root), "c")
    fences = in_turn(collection, True, False, True, True, True, True)
    for token in retention.idle_tokens(collection):
        fence.forget(collection, token)
    assert tokens(collection) == [2, 3, 5, 6]  # 2 has not ended: it may wake up, and looks for 3
    with pytest.raises(Conflict):
        fences[1].check()


@pytest.mark.usefixtures("few")
def test_who_takes_a_token_that_was_tidied_away_does_not_become_the_committer(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = Collection(Store(root), "c")
    in_turn(collection, True, True, True, True, True, True)
    seen = iter([[1], *(tokens(collection) for _ in range(1))])
    for token in retention.idle_tokens(collection):
        fence.forget(collection, token)
    monkeypatch.setattr(fence, "tokens", lambda _: next(seen, [2, 5, 6]))  # it was paused since the first of them
    monkeypatch.setattr(fence, "_refuse_if_alive", lambda *_: None)
    with pytest.raises(Conflict, match="meanwhile"):
        take_fence(collection, "late")
    monkeypatch.undo()
    assert tokens(collection) == [5, 6]


@pytest.mark.usefixtures("few")
def test_upkeep_keeps_the_records_of_the_newest_runs_and_of_what_can_be_rolled_back_to(workplace: Workplace) -> None:
    for number in range(6):
        workplace.write("a.parquet", {"d0": f"text {number}"})
        workplace.apply()
    collection = Collection(Store(workplace.store), "docs")
    before = [run.run_id for run in runs(collection)]
    workplace.spec(rest="retention = { publications = 2, days = 0 }")
    done = maintain(config=workplace.config)
    kept = [run.run_id for run in runs(collection)]
    assert done.status == "maintained"
    assert set(before[-2:]) <= set(kept)
    assert len(kept) < len(before)
    assert tokens(collection)[-1] == 7
    assert workplace.apply().status == "nothing"
