"""What a run logs: events that can be followed back to the ledger, and nothing that is anybody's business."""

import json
import sys
from typing import Any

import pytest

from flows.cli import main
from storage.collection import Collection
from storage.history.ledger import runs
from storage.store.lance import Store
from storage.store.objects import Objects
from tests.conftest import Workplace
from tests.workers.test_pool import Faulty
from workers.embedding import pool
from workers.runs import filling, session

TEXT = "canarytext"
SECRET = "canarysecret/access+key"


@pytest.fixture(autouse=True)
def place(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace.root)
    monkeypatch.setenv("HF_TOKEN", SECRET)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster, whatever other tests have started."""
    for module in (filling, session):
        monkeypatch.setattr(module, "on_cluster", lambda: False)


def events(lines: str) -> list[dict[str, Any]]:
    """All that a parent process is told, which must be JSON objects of a kind that it knows."""
    told = [json.loads(line) for line in lines.splitlines()]
    assert {each["kind"] for each in told} <= {"log", "progress"}
    return [each for each in told if each["kind"] == "log"]


def receipts(root: str) -> list[dict[str, Any]]:
    objects, (run,) = Objects(root), runs(Collection(Store(root), "docs"))
    return [json.loads(objects.get(run.key(f"shards/{name}")) or b"") for name in objects.names(run.key("shards"))]


@pytest.mark.usefixtures("here")
def test_a_parent_gets_each_event_as_json_with_the_run_it_is_of(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REVECTOR_PROGRESS", "json")
    workplace.write("a.parquet", {f"d{number}": f"{TEXT} {number} {SECRET}" for number in range(20)})
    assert main._run(["apply", "--json"], False) == 0
    streams = capfd.readouterr()
    result = json.loads(streams.out)
    assert "kind" not in result
    told = events(streams.err)
    order = list(dict.fromkeys(each["event"] for each in told))
    assert order == ["run began", "committed", "corpus read", "work found", "shard done", "indexed", "gate", "published", "run ended"]
    assert {(each["run_id"], each["collection"]) for each in told[:-1]} == {(result["run_id"], "docs")}
    assert told[-1]["status"] == "published"
    done = [(each["shard"], each["contents"], each["tokens"], each["worker"]) for each in told if each["event"] == "shard done"]
    assert done == [(each["shard"], each["contents"], each["tokens"], each["worker"]) for each in receipts(workplace.store)]
    assert [each["gate"] for each in told if each["event"] == "gate"] == [gate["name"] for gate in result["gates"]]
    assert [each["version"] for each in told if each["event"] == "committed"][-1] == result["version"]
    assert TEXT not in streams.err and SECRET not in streams.err


@pytest.mark.usefixtures("here")
def test_a_person_gets_lines_when_asking_for_them_wherever_the_option_stands(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for number, (arguments, shown) in enumerate(((["apply"], False), (["apply", "-v"], True), (["--verbose", "apply"], True))):
        workplace.write("a.parquet", {"d0": f"text {number}"})
        monkeypatch.setattr(sys, "argv", ["revector", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert ended.value.code == 0
        told = capfd.readouterr().err
        assert ("docs shard done  shard=0" in told, "docs run ended  status=published" in told) == (shown, shown)
        assert "{" not in told


@pytest.mark.parametrize("word", ["--debug", "-v", "--verbose"])
def test_behind_two_dashes_there_are_no_options(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], word: str
) -> None:
    workplace.write("a.parquet", {"d0": word, "d1": "another text"})
    workplace.apply()
    monkeypatch.setattr(sys, "argv", ["revector", "search", "docs", "--json", "-k", "1", "--", word])
    with pytest.raises(SystemExit) as ended:
        main.main()
    found = json.loads(capsysbinary.readouterr().out)
    assert (ended.value.code, found["query"], found["results"][0]["text"]) == (0, word, word)


@pytest.mark.usefixtures("here")
def test_a_run_that_fails_ends_with_the_kind_of_error_alone(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REVECTOR_PROGRESS", "json")

    def fail(*_: object) -> None:
        raise OSError(f"{TEXT} {SECRET}")

    monkeypatch.setattr(filling, "embed_shard", fail)
    workplace.write("a.parquet", {"d0": TEXT})
    assert main._run(["apply"], False) == 1
    (ended,) = [json.loads(line) for line in capfd.readouterr().err.splitlines() if '"run ended"' in line]
    assert (ended["status"], ended["error"]) == ("failed", "OSError")
    assert SECRET not in str(ended) and TEXT not in str(ended)


def test_what_befalls_actors_and_shards_is_told_with_their_ids(
    workplace: Workplace, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ray_cluster.cloudpickle.register_pickle_by_value(sys.modules[Faulty.__module__])
    monkeypatch.setattr(pool, "EmbedActor", Faulty)
    monkeypatch.setenv("REVECTOR_PROGRESS", "json")
    workplace.spec(rest="workers = { actors = 1 }\ngates = { max_failed = 0.9 }\nprices = { gpu_hour = 2, cpu_hour = 0.1 }")
    workplace.write("a.parquet", {"d0": "kill", "d1": f"{TEXT} one", "d2": f"{TEXT} two"})
    assert main._run(["apply", "--json"], False) == 4
    streams = capfd.readouterr()
    out, err = ("\n".join(line for line in lines.splitlines() if line[0] == "{") for lines in (streams.out, streams.err))  # Ray speaks, too
    result, told = json.loads(out), events(err)
    by_event = {each["event"]: each for each in told}
    (node,) = [each["NodeID"] for each in ray_cluster.nodes() if each["Alive"]]
    assert by_event["actor started"]["node"] == by_event["actor replaced"]["node"] == node
    assert by_event["actor replaced"]["reason"] == by_event["shard put back"]["reason"] == "its worker died"
    assert by_event["shard given up"]["contents"] == 1
    assert set(by_event["shard halved"]["into"]) <= {each.get("shard") for each in told}
    assert {each["shard"] for each in told if each["event"] == "shard done"} == {each["shard"] for each in receipts(workplace.store)}
    assert TEXT not in streams.err

    (used,) = result["nodes"]
    assert (used["node"], used["gpus"]) == (node, []) and used["actors"] >= 2 and used["actor_seconds"] > 0
    assert result["profile"]["held"]["embed"]["cpu_seconds"] >= used["actor_seconds"]
    assert result["cost"]["total"] == pytest.approx(sum(result["cost"]["stages"].values()))
    assert result["cost"]["stages"]["embed"] >= used["actor_seconds"] * 0.1 / 3600
