"""Runs that nobody types: deployments from the spec, events that start them, one at a time, upgrades, and what was orphaned."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from flows import evaluate, promote, status
from pipelines.spec.parsing import load_spec
from tests.flows.test_flow import artifact, until

pytestmark = pytest.mark.timeout(400)  # the server starts slowly on a busy machine


FLOWS = ("sync", "upgrade", "maintain", "evaluate", "report")


def write_spec(folder: Path, name: str, **options: str) -> str:
    """A collection of twenty documents; gives the path of its spec."""
    folder.mkdir(exist_ok=True)
    (folder / "docs.jsonl").write_text("".join(json.dumps({"id": f"d{number}", "text": f"text {number}"}) + "\n" for number in range(20)))
    told = {"source": '{ uri = "docs.jsonl", id = "id", text = "text" }', "model": '{ name = "hash", dimensions = 32 }', **options}
    config = folder / "revector.toml"
    config.write_text(f"[collections.{name}]\n" + "".join(f"{key} = {value}\n" for key, value in told.items()))
    return str(config)


def revector(prefect: SimpleNamespace, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run(prefect, [sys.executable, "-m", "flows.cli", *arguments], folder)


def run(prefect: SimpleNamespace, command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PREFECT_API_URL": prefect.url}
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def deploy(prefect: SimpleNamespace, config: str) -> dict[str, str]:
    """Deploy in this process; gives what became of each deployment."""
    wanted = prefect.deployments.wanted(load_spec(config), config)
    return {each.name: each.status for each in prefect.deployments.deploy(prefect.client, wanted)}


NIGHTLY = '{ sync = "0 3 * * *", maintain = "0 5 * * 0", timezone = "Europe/Berlin" }'


def test_deploy_writes_what_the_spec_says_and_a_second_time_changes_nothing(prefect: SimpleNamespace, tmp_path: Path) -> None:
    config = write_spec(tmp_path, "nightly", schedule=NIGHTLY, run='{ pool = "night" }')

    first = json.loads(revector(prefect, "deploy", "--json", "--config", config).stdout)["deployments"]
    found = prefect.client.read_deployment_by_name("revector-sync/nightly")
    again = deploy(prefect, config)
    write_spec(tmp_path, "nightly", schedule=NIGHTLY.replace("0 3", "30 4"), run='{ pool = "night" }')
    changed = deploy(prefect, config)

    assert {each["name"] for each in first} == {f"revector-{flow}/nightly" for flow in FLOWS} | {"revector-reconcile/all"}
    (schedule,) = found.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone, schedule.active) == ("0 3 * * *", "Europe/Berlin", True)
    assert found.parameters == {"collection": "nightly", "config": str(tmp_path / "revector.toml")}
    assert (found.entrypoint, found.work_pool_name, found.enforce_parameter_schema) == ("flows.sync.sync", "night", True)
    assert set(found.tags) == {"revector", "collection:nightly"}
    assert prefect.client.read_work_pool("night").type == "process"
    assert prefect.client.read_global_concurrency_limit_by_name("revector-nightly").limit == 1
    assert set(again.values()) == {"unchanged"}
    assert {name: status for name, status in changed.items() if status != "unchanged"} == {"revector-sync/nightly": "updated"}


def test_the_server_plans_the_runs_of_a_schedule(prefect: SimpleNamespace, tmp_path: Path) -> None:
    """What its scheduler does every minute; with SQLAlchemy 2.1 it failed, in its log only."""
    deploy(prefect, write_spec(tmp_path, "planned", schedule=NIGHTLY))
    deployment = prefect.client.read_deployment_by_name("revector-sync/planned").id

    prefect.client.request("POST", "/deployments/{id}/schedule", path_params={"id": deployment}, json={"min_runs": 2})

    starts = [each.expected_start_time.astimezone(ZoneInfo("Europe/Berlin")) for each in runs_of(prefect.client, deployment)]
    assert len(starts) >= 2
    assert {(start.hour, start.minute) for start in starts} == {(3, 0)}


def test_prefect_yaml_deploys_the_same(prefect: SimpleNamespace, tmp_path: Path) -> None:
    config = write_spec(tmp_path, "filed", schedule=NIGHTLY.replace(" }", ", paused = true }"))
    deploy(prefect, write_spec(tmp_path / "other", "other"))  # makes the pool
    (tmp_path / "prefect.yaml").write_text(prefect.deployments.prefect_yaml(prefect.deployments.wanted(load_spec(config), config)))

    deployed = run(prefect, [sys.executable, "-m", "prefect", "deploy", "--all"], tmp_path)

    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert set(deploy(prefect, config).values()) == {"unchanged"}


def test_what_is_paused_waits_for_a_person_and_prune_removes_what_the_spec_no_longer_has(prefect: SimpleNamespace, tmp_path: Path) -> None:
    config = write_spec(tmp_path, "waiting", schedule='{ sync = "0 3 * * *", paused = true }')
    deploy(prefect, config)
    found = prefect.client.read_deployment_by_name("revector-sync/waiting")
    (trigger,) = prefect.client.read_resource_related_automations(f"prefect.deployment.{found.id}")
    write_spec(tmp_path, "renamed")

    removed = prefect.deployments.prune(prefect.client, load_spec(config), config)

    assert (found.schedules[0].active, trigger.enabled) == (False, False)
    assert {each.name for each in removed} == {f"revector-{flow}/waiting" for flow in FLOWS}
    assert prefect.client.read_resource_related_automations(f"prefect.deployment.{found.id}") == []


@pytest.fixture(scope="module")
def strict(prefect: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A collection that is deployed."""
    deploy(prefect, write_spec(tmp_path_factory.mktemp("strict"), "strict"))
    return "strict"


SECRET = "wJalrXUtnFEMI"


@pytest.mark.parametrize(
    ("flow", "parameters"),
    [
        ("sync", {"collection": "not a name"}),
        ("sync", {"store": f"s3://key:{SECRET}@bucket/prefix"}),
        ("upgrade", {"model": {"nam": "hash"}}),
        ("upgrade", {"model": {"name": "hash", "trust_remote_code": True}}),
        ("upgrade", {"promote": "perhaps"}),
    ],
)
def test_wrong_parameters_are_refused_before_a_run_is_recorded(
    prefect: SimpleNamespace, strict: str, flow: str, parameters: dict[str, Any]
) -> None:
    from prefect.exceptions import PrefectHTTPStatusError

    deployment = prefect.client.read_deployment_by_name(f"revector-{flow}/{strict}")

    with pytest.raises(PrefectHTTPStatusError) as refused:
        prefect.client.create_flow_run_from_deployment(deployment.id, parameters=parameters)

    assert refused.value.response.status_code in (409, 422)
    assert runs_of(prefect.client, deployment.id) == []


def runs_of(client: Any, deployment: Any) -> list[Any]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId

    found: list[Any] = client.read_flow_runs(flow_run_filter=FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment])))
    return found


def test_announced_files_start_one_sync_and_a_registered_model_its_upgrade(prefect: SimpleNamespace, tmp_path: Path) -> None:
    deploy(prefect, write_spec(tmp_path, "heard"))
    sync, upgrade = (prefect.client.read_deployment_by_name(f"revector-{flow}/heard").id for flow in ("sync", "upgrade"))
    model = {"name": "hash", "dimensions": 8}

    for _ in range(5):
        prefect.events.announce(prefect.client, "heard")
    prefect.events.announce(prefect.client, "another")
    prefect.events.announce(prefect.client, "heard", model)

    assert until(lambda: runs_of(prefect.client, upgrade), 60)  # the events before it have been heard, too
    assert until(lambda: runs_of(prefect.client, sync), 10)
    (started,), (upgrading,) = runs_of(prefect.client, sync), runs_of(prefect.client, upgrade)
    assert (started.parameters["collection"], started.state.type.value) == ("heard", "SCHEDULED")
    assert upgrading.parameters["model"] == model


def hold(prefect: SimpleNamespace, collection: str) -> Any:
    """A flow run that has the collection's slot; its id."""
    from prefect.client.schemas.objects import ConcurrencyLeaseHolder
    from prefect.states import Running

    client = prefect.client
    made = client.create_flow_run(prefect.sync, parameters={}, tags=["revector", f"collection:{collection}"], state=Running())
    holder = ConcurrencyLeaseHolder(type="flow_run", id=made.id)
    lease = client.increment_concurrency_slots_with_lease([f"revector-{collection}"], 1, "concurrency", 300, holder).json()["lease_id"]
    process = {"run": "r", "host": "elsewhere", "pid": 1, "started": "", "beat": 1, "lease": lease}
    client.update_flow_run_labels(made.id, {f"revector.{name}": value for name, value in process.items()})
    return made.id


def test_one_run_waits_for_another_further_ones_give_way_and_the_slot_of_one_that_crashed_is_free_at_once(
    prefect: SimpleNamespace, tmp_path: Path
) -> None:
    from prefect.states import Crashed

    config = write_spec(tmp_path, "single")
    deploy(prefect, config)
    code = "import sys; from flows.sync import sync; print(sync('single', sys.argv[1], return_state=True).name)"
    command = [sys.executable, "-c", code, config]
    environment = {**os.environ, "PREFECT_API_URL": prefect.url}
    holder = hold(prefect, "single")
    waiting = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert until(lambda: is_waiting(prefect.client, "single"), 60)

    further = run(prefect, command)
    prefect.client.set_flow_run_state(holder, Crashed())

    assert further.stdout.strip() == "Superseded", further.stderr
    assert waiting.communicate(timeout=60)[0].strip() == "Published"
    assert prefect.client.read_global_concurrency_limit_by_name("revector-single").active_slots == 0


def test_a_slot_that_a_server_counts_and_nobody_holds_is_taken_by_the_next_run(prefect: SimpleNamespace, tmp_path: Path) -> None:
    """As after a restart: the server has forgotten the lease, not the count."""
    config = write_spec(tmp_path, "counted")
    deploy(prefect, config)
    prefect.client.increment_concurrency_slots(["revector-counted"], 1, "concurrency")

    assert prefect.sync("counted", config, return_state=True).name == "Published"
    assert prefect.client.read_global_concurrency_limit_by_name("revector-counted").active_slots == 0


def test_a_run_whose_lease_has_ended_does_not_give_back_the_slot_of_another(prefect: SimpleNamespace, tmp_path: Path) -> None:
    from prefect.states import Running

    from flows.flow_run.slots import slot

    client = prefect.client
    deploy(prefect, write_spec(tmp_path, "expired"))
    run = client.create_flow_run(prefect.sync, parameters={}, tags=["revector", "collection:expired"], state=Running())
    presence = SimpleNamespace(lease=None, show=lambda _: None)
    with slot("expired", run, presence):
        client.release_concurrency_slots_with_lease(presence.lease)  # as the server does when it was not renewed
        assert client.increment_concurrency_slots_with_lease(["revector-expired"], 1, "concurrency", 300).status_code == 200

    assert client.read_global_concurrency_limit_by_name("revector-expired").active_slots == 1


def is_waiting(client: Any, collection: str) -> bool:
    from flows.flow_run.presence import sign
    from flows.flow_run.slots import going_on

    return any((found := sign(each)) and found.waiting for each in going_on(client, collection))


def test_an_upgrade_is_left_to_a_person_or_promoted_and_what_fails_its_gates_is_neither(prefect: SimpleNamespace, tmp_path: Path) -> None:
    config = write_spec(tmp_path, "better")
    prefect.sync("better", config)
    model = {"name": "hash", "dimensions": 8}

    left = prefect.upgrade("better", config, model=model, return_state=True)
    (candidate,) = left.result()["generations"]
    served = evaluate("better", config=config).generation
    report = artifact(prefect.client, left.state_details.flow_run_id, "revector-better-upgrade").data
    promoted = prefect.upgrade("better", config, model=model, promote=True, return_state=True)
    moved = evaluate("better", config=config).generation
    promote("better", served, config, force=True)
    write_spec(tmp_path, "better", gates="{ min_cosine = 1.0 }")  # which no rounding passes
    failed = prefect.upgrade("better", config, model=model, promote=True, return_state=True)

    assert (left.type.value, left.name) == ("COMPLETED", "AwaitingDecision")
    assert (candidate["passed"], candidate["generation"] != served) == (True, True)
    assert f"revector promote better {candidate['generation'].rpartition('.')[2]} --config {config}" in report
    assert 'candidates = [{ name = "hash", dimensions = 8 }]' in report
    assert (promoted.name, moved) == ("Promoted", candidate["generation"])
    assert (failed.type.value, failed.name) == ("FAILED", "GateFailed")
    assert status("better", config)["collections"][0]["published"]["generation"] == served


def test_a_run_that_goes_on_without_its_flow_run_is_cancelled(prefect: SimpleNamespace, tmp_path: Path) -> None:
    from prefect.states import Cancelled, Running

    from flows.flow_run.presence import run_id

    config = write_spec(tmp_path, "orphaned")
    deploy(prefect, config)
    tags = ["revector", "collection:orphaned"]
    made = prefect.client.create_flow_run(prefect.sync, parameters={"collection": "orphaned", "config": config}, tags=tags, state=Running())
    run = run_id(prefect.client.read_flow_run(made.id))
    code = (
        "import sys, time\nfrom storage.collection import Collection\nfrom storage.store.lance import Store\n"
        "from workers.observing.telling import silent\n"
        "from workers.runs.session import open_session\n"
        "with open_session(Collection(Store(sys.argv[1]), 'orphaned'), silent, sys.argv[2]):\n    while True:\n        time.sleep(0.1)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "store"), run], stderr=subprocess.DEVNULL)
    record = tmp_path / "store" / "_revector" / "orphaned" / "runs" / run
    assert until((record / "heartbeat.json").exists, 60)
    prefect.client.set_flow_run_state(made.id, Cancelled(), force=True)

    done = prefect.tidy(prefect.client)

    assert done.cancelled == [run]
    assert driver.wait(30) != 0
    assert json.loads((record / "result.json").read_bytes())["status"] == "cancelled"


def test_without_a_server_the_error_is_one_line_that_says_what_to_start(prefect: SimpleNamespace, tmp_path: Path) -> None:
    config = write_spec(tmp_path, "docs")
    unreachable = SimpleNamespace(url="http://127.0.0.1:9/api")

    done = revector(unreachable, "deploy", "--config", config)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "http://127.0.0.1:9/api" in line
    assert "`prefect server start`" in line
