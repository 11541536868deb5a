"""The Prefect flows bring a collection up to date, tell how that ended, and leave nothing behind when they are stopped."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from storage.collection import Collection
from storage.history.fence import take_fence
from storage.store.lance import Store

pytestmark = pytest.mark.timeout(400)  # the server and Ray start slowly on a busy machine

ENTRYPOINTS = {
    "sync": ["collection", "config", "store"],
    "upgrade": ["collection", "config", "store", "model", "promote"],
    "maintain": ["collection", "config", "store"],
    "evaluate": ["collection", "config", "store"],
    "report": ["collection", "config", "store"],
    "reconcile": [],
}
STAND_IN = '{ name = "hash", dimensions = 32 }'


def write_collection(folder: Path, documents: int, source: str = "docs.jsonl", model: str = STAND_IN, **options: str) -> str:
    """A collection `My_docs`; gives the path of its spec."""
    rows = ({"id": f"d{number}", "text": f"the text of document {number}"} for number in range(documents))
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = folder / "revector.toml"
    config.write_text(
        "[collections.My_docs]\n"
        f'source = {{ uri = "{source}", id = "id", text = "text" }}\n'
        + "".join(f"{name} = {value}\n" for name, value in {"model": model, **options}.items())
    )
    return str(config)


def artifact(client: Any, flow_run: UUID, key: str) -> Any:
    """The newest artifact that a flow run left under `key`."""
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey

    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]), key=ArtifactFilterKey(any_=[key]))
    return max(client.read_artifacts(artifact_filter=wanted), key=lambda found: found.created)


def published_events(client: Any, flow_run: UUID) -> Any:
    """What the flow run told others of its publication; None until the server has it."""
    found = events(client, "revector.version.published")
    return next((event.payload for event in found if event.payload["flow_run_id"] == str(flow_run)), None)


def events(client: Any, name: str) -> Any:
    from prefect.events.filters import EventFilter, EventNameFilter

    return client.read_events(EventFilter(event=EventNameFilter(name=[name])), limit=50).events


def until(probe: Callable[[], Any], seconds: float) -> Any:
    """What `probe` gives once that is true, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := probe()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def measures(table: Any) -> dict[str, Any]:
    return {row["measure"]: row["value"] for row in json.loads(table.data)}


def test_a_sync_publishes_and_shows_what_it_did_and_the_next_one_finds_nothing_to_do(prefect: SimpleNamespace, tmp_path: Path) -> None:
    config = write_collection(tmp_path, documents=300)

    first = prefect.sync("My_docs", config, return_state=True)
    run = first.state_details.flow_run_id
    table, progress = (artifact(prefect.client, run, f"revector-my-docs-{what}") for what in ("result", "progress"))
    of_corpus, of_generation = json.loads(artifact(prefect.client, run, "revector-my-docs-plan").data)
    again = prefect.sync("My_docs", config, return_state=True)

    result = first.result()
    assert (first.name, result["status"], result["embed"]["contents"]) == ("Published", "published", 300)
    shown = measures(table)
    assert (shown["forward passes"], shown["version"]) == (300, result["version"])
    assert shown["documents"] == "300 added, 0 changed, 0 removed, 0 unchanged"
    assert "My_docs" in table.description
    assert of_corpus["to do"].startswith("300 documents added, 0 documents changed, ")
    assert of_generation == {"of": result["generation"], "to do": "300 forward passes, 300 chunks, 0 reused, 0 removed"}
    assert progress.data == 100
    shown = prefect.client.read_flow_run(run)
    assert (shown.name, set(shown.tags)) == ("sync My_docs", {"revector", "collection:My_docs"})
    assert result["run_id"].endswith(f"-{run.hex[:8]}-1")  # whoever knows the flow run knows the run
    assert (
        f"| now | `{result['generation']}` | {result['version']} | 300 |" in artifact(prefect.client, run, "revector-my-docs-report").data
    )
    told = until(lambda: published_events(prefect.client, run), 30)
    assert (told["before"], told["after"]["version"], told["run_id"]) == (None, result["version"], result["run_id"])
    assert (again.name, again.result()["status"]) == ("Nothing", "nothing")


def test_a_report_is_made_by_a_flow_and_an_alarm_is_told_to_others(prefect: SimpleNamespace, tmp_path: Path) -> None:
    reports = '{ tasks = { label_file = "labels.csv" } }'
    (tmp_path / "labels.csv").write_text("id,label\n" + "".join(f"d{number},{number % 2}\n" for number in range(60)))
    config = write_collection(tmp_path, documents=60, reports=reports)
    synced = prefect.sync("My_docs", config, return_state=True)
    assert synced.result()["reports"] == {"tasks": "made"}
    quiet = prefect.report("My_docs", config, return_state=True)
    assert (quiet.name, quiet.result()["made"]) == ("Reported", [])

    write_collection(tmp_path, documents=60, reports=reports, gates="{ min_accuracy = 1 }")
    loud = prefect.report("My_docs", config, return_state=True)
    assert (loud.type.value, loud.name) == ("FAILED", "BeyondLimit")
    assert "accuracy" in loud.message
    told = until(lambda: events(prefect.client, "revector.report.alarm"), 30)
    assert [(event.payload["collection"], event.payload["reports"]) for event in told] == [("My_docs", ["tasks"])]


@pytest.mark.parametrize(("allowed", "told"), [(0, ("FAILED", "GateFailed")), (1, ("COMPLETED", "Partial"))])
def test_a_gate_that_fails_and_a_partial_publication_are_told_apart(
    prefect: SimpleNamespace, tmp_path: Path, allowed: int, told: tuple[str, str]
) -> None:
    config = write_collection(tmp_path, documents=0, gates=f"{{ max_failed = {allowed} }}")
    (tmp_path / "docs.jsonl").write_text("this is not JSON\n")

    state = prefect.sync("My_docs", config, return_state=True)

    assert (state.type.value, state.name) == told
    assert measures(artifact(prefect.client, state.state_details.flow_run_id, "revector-my-docs-result"))["dead letters"] == 1


@pytest.mark.usefixtures("prefect")
def test_the_entrypoints_that_servers_keep_in_deployments_stay() -> None:
    """As `flows.sync.sync`, with the parameters by name."""
    flows = {name: getattr(importlib.import_module(f"flows.{name}"), name) for name in ENTRYPOINTS}
    assert {name: list(flow.parameters.properties) for name, flow in flows.items()} == ENTRYPOINTS


def test_another_run_of_the_collection_is_a_conflict(prefect: SimpleNamespace, tmp_path: Path) -> None:
    config = write_collection(tmp_path, 1)
    take_fence(Collection(Store(str(tmp_path / "store")), "My_docs"), "the-other-run")

    state = prefect.sync("My_docs", config, return_state=True)

    assert (state.type.value, state.name) == ("FAILED", "Conflict")
    assert "the-other-run" in state.message


def apply(name: str, config: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", "apply", name, "--json", "--config", config]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("My_dogs", "docs.jsonl", "expected one of My_docs, found 'My_dogs'; did you mean 'My_docs'?"),
        ("My_docs", "nowhere/*.jsonl", "nowhere"),
    ],
)
def test_an_error_fails_the_flow_with_the_one_line_of_the_command(
    prefect: SimpleNamespace, tmp_path: Path, name: str, source: str, said: str
) -> None:
    config = write_collection(tmp_path, 1, source)
    command = apply(name, config)

    state = prefect.sync(name, config, return_state=True)

    line = command.stderr.splitlines()[-1].removeprefix("revector: ")
    assert said in line
    assert str(state.result(raise_on_failure=False)) == line


def start_flow(prefect: SimpleNamespace, config: str) -> subprocess.Popen[bytes]:
    """A flow in a process of its own, as a Prefect worker starts one."""
    code = "import sys; from flows.sync import sync; sync('My_docs', sys.argv[1])"
    environment = {**os.environ, "PREFECT_API_URL": prefect.url}
    return subprocess.Popen([sys.executable, "-c", code, config], env=environment, stderr=subprocess.DEVNULL)


def believed_running(client: Any) -> UUID:
    """The only flow run of the collection that the server takes for running."""
    from flows.flow_run.slots import going_on

    (found,) = going_on(client, "My_docs")
    return UUID(str(found.id))


def alive(session: int) -> list[str]:
    """The processes of a session: its leader, the driver, and the Ray that it started."""
    return [process.name for process in Path("/proc").glob("[0-9]*") if _session(process) == session]


def _session(process: Path) -> int | None:
    try:
        state, _, _, session, *_ = (process / "stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(session) if state != "Z" else None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads process sessions from /proc")
def test_a_flow_that_is_stopped_or_killed_takes_its_driver_and_ray_along_and_the_next_one_completes(
    prefect: SimpleNamespace, tmp_path: Path
) -> None:
    documents = 6_000  # a real model needs ten seconds for them, so that the stop comes in the middle; the stand-in would be through
    minilm = '{ name = "sentence-transformers/all-MiniLM-L6-v2" }'
    config = write_collection(tmp_path, documents, model=minilm, workers="{ actors = 1 }")
    ledger = tmp_path / "store" / "_revector" / "My_docs"

    def drivers() -> list[int]:
        return [json.loads(fence.read_bytes())["pid"] for fence in sorted(ledger.glob("fence/*.json"))]

    stopped = start_flow(prefect, config)
    assert until(lambda: list(ledger.glob("runs/*/shards/*.json")), 90)  # an actor is at work
    (first,) = drivers()
    assert len(alive(first)) > 1
    stopped.terminate()
    assert until(lambda: not alive(first), 10), alive(first)
    assert stopped.wait(30) == -signal.SIGTERM

    killed = start_flow(prefect, config)  # gets the slot: the flow before has given it back
    assert until(lambda: len(drivers()) == 2 and len(alive(drivers()[1])) > 1, 60)  # Ray is starting
    killed.kill()
    assert until(lambda: not alive(drivers()[1]), 10), alive(drivers()[1])
    assert killed.wait() == -signal.SIGKILL
    orphan = believed_running(prefect.client)

    done = prefect.tidy(prefect.client)  # nobody else knows: a worker would have told the server

    assert done.crashed == [f"sync My_docs ({orphan})"]
    state = prefect.client.read_flow_run(orphan).state
    assert (state.name, "the next run goes on from there" in state.message) == ("Crashed", True)

    result = json.loads(apply("My_docs", config).stdout)
    assert result["status"] == "published"
    assert result["chunks"]["added"] + result["chunks"]["unchanged"] == documents
