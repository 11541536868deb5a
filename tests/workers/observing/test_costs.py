"""What a run and a plan say of money, and what a record says of the machine and the code that made a version."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import workers
from flows import history
from flows.cli import main
from pipelines.spec.running import PricesSpec
from storage.collection import Collection
from storage.history.ledger import runs
from storage.store.lance import Store
from tests.conftest import Workplace
from workers.observing import account, provenance
from workers.observing.costs import MachineTime, cost
from workers.runs import filling, session

amounts = st.floats(min_value=0, max_value=1e7)
helds = st.dictionaries(st.sampled_from(["read", "embed", "gates", "other"]), st.builds(MachineTime, amounts, amounts))
prices = st.builds(PricesSpec, gpu_hour=st.floats(min_value=0.01, max_value=100), cpu_hour=st.floats(min_value=0, max_value=100))


@given(helds, prices)
def test_the_stages_make_up_the_total_and_all_is_priced_by_the_hour(held: dict[str, MachineTime], priced: PricesSpec) -> None:
    made = cost(held, priced)
    assert made is not None and made.currency == "USD"
    assert made.total == pytest.approx(sum(made.stages.values()))
    assert made.total == pytest.approx(sum(held.values(), MachineTime()).amount(priced))
    assert made.stages.keys() == held.keys() and all(amount >= 0 for amount in made.stages.values())


@given(helds, prices, st.integers(min_value=0, max_value=100))
def test_so_many_times_the_work_costs_so_many_times_as_much(held: dict[str, MachineTime], priced: PricesSpec, factor: int) -> None:
    once, often = cost(held, priced), cost({stage: each.times(factor) for stage, each in held.items()}, priced)
    assert once is not None and often is not None
    assert often.total == pytest.approx(once.total * factor)


def test_an_hour_of_a_gpu_costs_its_price_and_without_prices_nobody_knows() -> None:
    held = {"embed": MachineTime(cpu_seconds=7200, gpu_seconds=1800)}
    made = cost(held, PricesSpec(gpu_hour=4, cpu_hour=0.5, currency="EUR"))
    assert made is not None and (made.total, made.currency) == (3.0, "EUR")
    assert cost(held, PricesSpec()) is None


PRICED = 'prices = { cpu_hour = 3600, currency = "EUR" }'


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster, whatever other tests have started; one core."""
    for module in (filling, session):
        monkeypatch.setattr(module, "on_cluster", lambda: False)
    monkeypatch.setattr(account, "_usable_cores", lambda: 1)


def test_a_plan_estimates_by_what_the_last_run_held(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    workplace.write("a.parquet", {f"d{number}": f"some text {number}" for number in range(100)})
    workplace.spec()
    assert workplace.plan().cost is workplace.apply().cost is None
    workplace.spec(rest=PRICED)  # the seconds were kept, so that later prices can be put to them
    workplace.write("b.parquet", {f"e{number}": f"more text {number}" for number in range(200)})
    planned, (before,) = workplace.plan(), history("docs", workplace.config)["runs"]
    assert planned.cost is not None
    assert planned.cost.total == pytest.approx(before["seconds"]["total"] * planned.embed["tokens"] / before["embed"]["tokens"], rel=0.1)
    done = workplace.apply()
    assert done.cost is not None and done.cost.total == pytest.approx(done.seconds["total"], rel=0.01)  # one core, one unit a second
    assert [bool(run.get("cost")) for run in history("docs", workplace.config)["runs"]] == [False, True]

    workplace.write("c.parquet", {"f": "the last text"})
    for command in ("plan", "apply", "history"):
        main._run([command, "--config", str(workplace.config)], False)
        assert " EUR" in capsys.readouterr().out


def test_a_run_that_fails_keeps_what_it_has_spent(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(filling, "embed_shard", fail)
    workplace.spec(rest=PRICED)
    workplace.write("a.parquet", {"d0": "a text"})
    with pytest.raises(OSError):
        workplace.apply()
    (run,) = history("docs", workplace.config)["runs"]
    assert run["status"] == "failed"
    assert run["seconds"]["total"] > 0
    assert run["cost"]["stages"]["read"] > 0
    assert workplace.plan().cost is None  # it says nothing of what the work costs


def test_a_record_names_versions_commit_image_and_machine(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVECTOR_IMAGE", "registry.example/revector@sha256:1f0c")
    workplace.write("a.parquet", {"d0": "a text"})
    workplace.apply()
    monkeypatch.setenv("REVECTOR_COMMIT", "0123abc")
    workplace.write("a.parquet", {"d0": "another"})
    workplace.apply()
    first, second = ((run.read("intent.json") or {})["environment"] for run in runs(Collection(Store(workplace.store), "docs")))
    assert first["image"] == "registry.example/revector@sha256:1f0c"
    assert first["packages"].keys() >= {"revector", "ray", "torch", "pylance", "lancedb", "pyarrow"}
    assert first["packages"]["ray"] == "2.60.0" and first["python"].startswith("3.")
    assert second["commit"] == "0123abc"


def test_a_commit_is_that_of_the_working_copy_that_runs(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    inside = tmp_path / "environment" / "site-packages"
    inside.mkdir(parents=True)
    (tmp_path / "a.py").write_text("1")
    git("init", "--quiet")
    git("add", "a.py")
    git("commit", "--quiet", "--message", "first")
    commit = git("rev-parse", "HEAD")
    assert provenance._commit(tmp_path) == commit
    assert provenance._commit(inside) is None  # installed into an environment that lies in somebody's own project
    (tmp_path / "a.py").write_text("2")
    provenance._commit.cache_clear()
    assert provenance._commit(tmp_path) == f"{commit}-dirty"


def test_a_working_copy_is_looked_for_around_the_packages() -> None:
    assert Path(workers.__file__).parents[1] == provenance.ROOT
