"""What a run shows to Prometheus, and that alerts and the dashboard ask for just that."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prometheus_client.parser import text_string_to_metric_families

from flows import evaluate, maintain
from flows.cli import main
from pipelines.errors import Conflict, StorageError
from tests.conftest import Workplace
from tests.workers.test_pool import Faulty
from workers.embedding import pool
from workers.embedding.embed_shard import Receipt
from workers.observing import telemetry
from workers.observing.metrics import HELP
from workers.runs import filling, session

INFRA = Path(__file__).parents[3] / "infra"
RULES = INFRA / "prometheus/rules.yml"
DASHBOARD = INFRA / "grafana/dashboards/revector.json"

Series = dict[str, list[tuple[dict[str, str], float]]]


def parsed(text: str) -> Series:
    """By metric name, its labels and values."""
    found: Series = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name].append((sample.labels, sample.value))
    return found


class Metrics:
    """A folder of node_exporter's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def text(self) -> str:
        return "".join(file.read_text() for file in sorted(self.folder.glob("*.prom")))

    def series(self) -> Series:
        return parsed(self.text())

    def value(self, name: str, **labels: str) -> float:
        found = [value for told, value in self.series()[name] if labels.items() <= told.items()]
        assert len(found) == 1, (name, labels, found)
        return found[0]

    def outcome(self, command: str = "apply") -> list[str]:
        return [told["outcome"] for told, value in self.series()["revector_run_status"] if told["command"] == command and value == 1]


@pytest.fixture
def metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Metrics:
    folder = tmp_path / "metrics"
    folder.mkdir()
    monkeypatch.setenv("REVECTOR_METRICS", str(folder))
    return Metrics(folder)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster, whatever other tests have started."""
    for module in (filling, session):
        monkeypatch.setattr(module, "on_cluster", lambda: False)


PRICED = 'prices = { gpu_hour = 2, cpu_hour = 36, currency = "EUR" }\nschedule = { sync = "0 3 * * *", timezone = "Europe/Berlin" }'


@pytest.mark.usefixtures("here")
def test_a_folder_gets_how_the_newest_run_stands_and_when_one_last_went_well(workplace: Workplace, metrics: Metrics) -> None:
    workplace.spec(rest=PRICED)
    workplace.write("a.parquet", {f"d{number}": f"canarytext {number % 5}" for number in range(10)})
    done = workplace.apply()
    assert metrics.outcome() == ["published"]
    assert metrics.value("revector_documents", change="added") == metrics.value("revector_published_chunks") == 10
    assert metrics.value("revector_forward_passes") == 5
    assert metrics.value("revector_tokens") == done.embed["tokens"]
    assert metrics.value("revector_published_version") == done.version
    assert metrics.value("revector_stage_seconds", stage="embed") > 0
    assert done.cost is not None and done.cost.total > 0
    assert metrics.value("revector_cost", stage="embed", currency="EUR") >= done.cost.stages["embed"]
    assert {labels["gate"] for labels, passed in metrics.series()["revector_gate_passed"] if passed} == {gate.name for gate in done.gates}
    first = metrics.value("revector_last_success_timestamp_seconds")
    assert 0 < metrics.value("revector_next_update_timestamp_seconds") - first <= 25 * 3600

    assert workplace.apply().status == "nothing"
    assert metrics.outcome() == ["nothing"]
    assert metrics.value("revector_documents", change="unchanged") == metrics.value("revector_published_chunks") == 10
    second = metrics.value("revector_last_success_timestamp_seconds")
    assert second > first

    workplace.spec(rest=f"{PRICED}\ngates = {{ max_failed = 0 }}")
    workplace.write("b.parquet", {"": "canarytext, of a document without an id"})
    assert workplace.apply().status == "built"
    assert metrics.outcome() == ["built"]
    assert metrics.value("revector_dead_letters") == 1
    assert metrics.value("revector_gate_passed", gate="dead letters") == 0
    assert metrics.value("revector_last_success_timestamp_seconds") == second
    assert "canary" not in metrics.text()


@pytest.mark.usefixtures("here")
def test_a_run_that_fails_says_so_and_one_that_must_wait_leaves_the_stage_to_the_other(
    workplace: Workplace, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.write("a.parquet", {"d0": "a text"})
    workplace.apply()
    first = metrics.value("revector_last_success_timestamp_seconds")
    workplace.write("b.parquet", {"d1": "another"})

    def busy(*_: object) -> None:
        raise Conflict("another run is in progress")

    before = metrics.text()
    with monkeypatch.context() as patched, pytest.raises(Conflict):
        patched.setattr(session, "take_fence", busy)
        workplace.apply()
    assert metrics.text() == before

    with monkeypatch.context() as patched, pytest.raises(StorageError):
        patched.setattr(session, "require_sound", unsound)
        workplace.apply()
    assert metrics.outcome() == ["failed"]
    assert metrics.value("revector_run_error", error="StorageError") == 1
    assert metrics.value("revector_last_success_timestamp_seconds") == first
    assert metrics.value("revector_published_chunks") == 1

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(filling, "embed_shard", lambda *_: signal.raise_signal(signal.SIGINT))
        workplace.apply()
    assert metrics.outcome() == ["cancelled"]


@pytest.mark.usefixtures("here")
def test_while_a_run_goes_on_its_progress_is_shown(workplace: Workplace, metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "EXPORT_SECONDS", 0.02)
    embed, seen = filling.embed_shard, []

    def slow(*arguments: Any) -> Receipt:
        until = time.monotonic() + 30
        while not any(labels["stage"] == "embed" for labels, _ in metrics.series()["revector_run_stage"]):
            assert time.monotonic() < until
        first = metrics.value("revector_heartbeat_timestamp_seconds")
        while metrics.value("revector_heartbeat_timestamp_seconds") == first:
            assert time.monotonic() < until
        seen.append((metrics.outcome(), metrics.value("revector_progress_chunks"), metrics.value("revector_progress_chunks_total")))
        return embed(*arguments)

    monkeypatch.setattr(filling, "embed_shard", slow)
    workplace.write("a.parquet", {"d0": "a text", "d1": "another"})
    workplace.apply()
    assert seen == [(["running"], 0, 2)]
    assert not metrics.series()["revector_run_stage"]


def test_a_run_that_is_killed_stays_as_running_for_the_alert_to_see(workplace: Workplace, metrics: Metrics) -> None:
    workplace.write("a.parquet", {"d0": "a text"})
    file = metrics.folder / "revector_docs.apply.prom"
    ending = f"""
import os, pathlib, signal, time
from flows import apply
from workers.runs import filling
def end(*_):
    while not pathlib.Path({str(file)!r}).exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
filling.embed_shard = end
apply()
"""
    assert subprocess.run([sys.executable, "-c", ending], cwd=workplace.root).returncode == -signal.SIGKILL
    assert metrics.outcome() == ["running"]
    assert metrics.value("revector_progress_timestamp_seconds") <= metrics.value("revector_heartbeat_timestamp_seconds")
    assert not metrics.series()["revector_last_success_timestamp_seconds"]


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """A Pushgateway's address, and the requests that it got: method, path, body. One that is broken answers 500."""
    got: list[tuple[str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            got.append((self.command, self.path, body))
            self.send_response(500 if self.path.startswith("/broken") else 202)
            self.end_headers()

        do_PUT = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.usefixtures("here")
def test_a_pushgateway_gets_the_same_and_may_be_away(
    workplace: Workplace,
    gateway: tuple[str, list[tuple[str, str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    address, got = gateway
    monkeypatch.setenv("REVECTOR_METRICS", address)
    workplace.write("a.parquet", {"d0": "a text"})
    workplace.apply()
    assert {(method, path) for method, path, _ in got} == {("POST", "/metrics/job/revector/collection/docs/command/apply")}
    *_, last, success = (parsed(body) for _, _, body in got)
    assert last["revector_run_status"] == [({"collection": "docs", "command": "apply", "outcome": "published"}, 1)]
    assert list(success) == ["revector_last_success_timestamp_seconds", "revector_next_update_timestamp_seconds"]

    monkeypatch.chdir(workplace.root)
    for number, away in enumerate((f"{address}/broken", "http://127.0.0.1:9", "/nowhere/at/all")):
        workplace.write("a.parquet", {"d0": f"changed {number}"})
        monkeypatch.setenv("REVECTOR_METRICS", away)
        assert main._run(["--verbose", "apply"], False) == 0
        assert capfd.readouterr().err.count("metrics not written") == 1


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, ray_cluster: Any) -> Series:
    """All that runs of every kind export, and what their actors do on the metrics port of their node."""
    root = tmp_path_factory.mktemp("exported")
    (root / "data").mkdir()
    (root / "metrics").mkdir()
    workplace, metrics, found = Workplace(root), Metrics(root / "metrics"), defaultdict(list)

    def run(command: Callable[[], Any], *errors: type[BaseException]) -> None:
        with contextlib.suppress(*errors):
            command()
        for name, samples in metrics.series().items():
            found[name] += samples

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("REVECTOR_METRICS", str(metrics.folder))
        patched.setattr(telemetry, "EXPORT_SECONDS", 0.05)
        ray_cluster.cloudpickle.register_pickle_by_value(sys.modules[Faulty.__module__])
        patched.setattr(pool, "EmbedActor", Faulty)
        workplace.spec(rest=f"workers = {{ actors = 1 }}\ngates = {{ max_failed = 0.9 }}\nreports = ['map']\n{PRICED}")
        workplace.write("a.parquet", {"d0": "a text", "d1": "nan"})
        over = watch(metrics, found)
        run(workplace.apply)
        run(lambda: evaluate("docs", config=workplace.config))
        run(lambda: maintain("docs", config=workplace.config))
        workplace.spec(rest=f"workers = {{ actors = 1 }}\n{PRICED}")
        workplace.write("b.parquet", {"d2": "kill"})
        run(workplace.apply)
        over.set()
        patched.setattr(session, "require_sound", unsound)
        workplace.write("c.parquet", {"d3": "a third"})
        run(workplace.apply, StorageError)
    for name, samples in on_nodes(ray_cluster).items():
        found[name] += samples
    return found


def unsound(*_: object) -> None:
    raise StorageError("it lost a race")


def watch(metrics: Metrics, found: Series) -> threading.Event:
    """Collects what is exported while a run goes on, until the event is set."""
    over = threading.Event()

    def collect() -> None:
        while not over.wait(0.05):
            for name, samples in metrics.series().items():
                found[name] += [sample for sample in samples if sample not in found[name]]

    threading.Thread(target=collect, daemon=True).start()
    return over


def on_nodes(ray: Any) -> Series:
    """What the nodes of a cluster export, as soon as our actors' metrics are among it."""
    until = time.monotonic() + 90
    while True:
        found: Series = defaultdict(list)
        for node in ray.nodes():
            with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=30) as answer:
                for name, samples in parsed(answer.read().decode()).items():
                    found[name] += samples
        if "ray_revector_actor_tokens_total" in found:
            return found
        assert time.monotonic() < until, sorted(found)
        time.sleep(1)


def test_actors_count_on_the_metrics_port_of_their_node(exported: Series) -> None:
    ours = {name: samples for name, samples in exported.items() if name.startswith("ray_revector_actor_")}
    assert {labels["collection"] for samples in ours.values() for labels, _ in samples} >= {"docs"}
    mine = [value for labels, value in ours["ray_revector_actor_contents_total"] if labels["collection"] == "docs"]
    assert sum(mine) >= 2
    steps = {labels["step"] for labels, _ in ours["ray_revector_actor_shard_seconds_count"]}
    assert steps == {"read", "tokenize", "model", "write"}
    assert all(labels["NodeAddress"] for labels, _ in ours["ray_revector_actor_tokens_total"])  # the alert on idle GPUs joins by it


def test_lost_actors_and_shards_that_were_put_back_are_counted(exported: Series) -> None:
    assert max(value for _, value in exported["revector_actors_replaced"]) >= 2
    assert max(value for _, value in exported["revector_shards_requeued"]) >= 1
    assert max(value for _, value in exported["revector_actors"]) == 1
    assert max(value for _, value in exported["revector_shards_in_flight"]) >= 1


def test_every_metric_has_a_help_and_is_exported_by_some_run(exported: Series) -> None:
    assert {name for name in exported if name.startswith("revector_")} == set(HELP)


def test_labels_take_few_values(exported: Series) -> None:
    """No run id, no text, no path: those would be a new series each time."""
    ours = {name: samples for name, samples in exported.items() if name.startswith("revector_")}
    labels = {label for samples in ours.values() for told, _ in samples for label in told}
    assert labels == {"collection", "command", "outcome", "error", "change", "stage", "currency", "gate", "report"}


RECORDED = re.compile(r"revector:\w+")
METRIC = re.compile(r"\b((?:ray_|revector_)\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!=|=)\s*"([^"]*)"')


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def dashboard_expressions(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (part[key] for key in ("expr", "query") if isinstance(part.get(key), str))
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from dashboard_expressions(each)


EXPRESSIONS = [*(rule["expr"] for rule in rules()), *dashboard_expressions(json.loads(DASHBOARD.read_text()))]


def test_what_alerts_and_panels_ask_for_is_exported(exported: Series) -> None:
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    gpu = {f"ray_{name}" for name in METRICS_GAUGES} | {"ray_revector_actor_gpu_bytes"}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for expression in EXPRESSIONS:
        assert set(RECORDED.findall(expression)) <= recorded, expression
        for name, matchers in METRIC.findall(RECORDED.sub("", expression)):
            asked = MATCHER.findall(matchers) if name not in gpu else []
            assert name in exported or name in gpu, (name, expression)
            for label, operator, value in asked:
                values = {labels[label] for labels, _ in exported[name] if label in labels}
                assert values, (name, label, expression)
                assert operator != "=" or value in values, (name, label, value, expression)


def test_an_alert_says_what_to_type_and_where_to_read_on() -> None:
    known = {*typer.main.get_command(main.app).commands, "{{ $labels.command }}"}  # type: ignore[attr-defined]
    for rule in rules():
        if "alert" in rule:
            notes = rule["annotations"]
            assert notes["runbook_url"] == f"infra/RUNBOOK.md#{rule['alert'].lower()}"
            commands = re.findall(r"`revector (\w+|{{ \$labels.command }})", notes["description"])
            assert commands and set(commands) <= known, rule["alert"]


promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, of Debian's package prometheus")


@promtool
def test_prometheus_understands_what_the_panels_ask(tmp_path: Path) -> None:
    asked = [target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel.get("targets", [])]
    assert len(asked) > 20
    checked = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(asked)]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": checked}]}))
    ended = subprocess.run(["promtool", "check", "rules", "--lint=none", "panels.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@promtool
def test_each_alert_fires_when_it_should_and_not_beside() -> None:
    for arguments in (["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]):
        ended = subprocess.run(["promtool", *arguments], cwd=RULES.parent, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    tested = yaml.safe_load((RULES.parent / "rules_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tested for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}
