"""`revector render rayjob` writes a manifest that Kubernetes and KubeRay take, with the spec in it and nothing that is a secret."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.elsewhere.rayjob import render
from infra.checks import manifests, rules
from pipelines.errors import SpecError
from pipelines.spec.declared import Spec
from pipelines.spec.parsing import load_spec, parse_spec

IMAGE = "registry.example/revector:1.2"
ON_GPUS = {"actors": 6, "gpus_per_actor": 0.5, "label": {"pool": "gpu", "rack": "!c", "ray.io/accelerator-type": "in(A100,H100)"}}


def declared(**collection: Any) -> Spec:
    source = {"uri": "s3://bucket/corpus/*.parquet", "id": "id", "text": "text"}
    table = {"source": source, "model": {"name": "hash", "dimensions": 16}, "workers": {"actors": 2}, **collection}
    return parse_spec({"store": "s3://bucket/store", "collections": {"My_Documents_of_2026": table}}, Path("/"))


def rendered(spec: Spec, image: str | None = IMAGE, secret: str | None = None) -> tuple[Any, Any]:
    """The ConfigMap and the RayJob."""
    config, job = yaml.safe_load_all(render(spec, "My_Documents_of_2026", image, "revector", secret))
    return config, job


@pytest.mark.parametrize("workers", [{"actors": 9}, ON_GPUS, {"actors": 3, "gpus_per_actor": 2}], ids=["cpu", "half a gpu", "two gpus"])
def test_kubernetes_and_kuberay_take_it(workers: dict[str, Any]) -> None:
    for manifest in rendered(declared(workers=workers)):
        assert [*manifests.kubernetes_findings(manifest)] == []
        assert [*manifests.schema_findings(manifest)] == []
        assert [*rules.operator_findings(manifest)] == []
        assert [*rules.pod_findings(manifest)] == []
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", manifest["metadata"]["name"])
        assert len(manifest["metadata"]["name"]) <= 47  # KubeRay's limit of a RayJob


def test_what_checks_them_finds_a_mistake() -> None:
    _, job = rendered(declared())
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["rayStartParams"] = {"labels": "pool=gpu"}
    job["spec"]["rayClusterSpec"]["idleTimeout"] = 60
    assert [*manifests.schema_findings(job)]
    assert [*rules.operator_findings(job)]


def groups(job: Any) -> dict[str, Any]:
    return {group["groupName"]: group for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]}


def gpus(group: Any) -> str | None:
    (container,) = group["template"]["spec"]["containers"]
    limit: str | None = container["resources"]["limits"].get("nvidia.com/gpu")
    return limit


def test_pods_have_what_the_actors_ask_for() -> None:
    _, job = rendered(declared(workers=ON_GPUS))
    gpu = groups(job)["gpu"]
    assert (gpu["minReplicas"], gpu["maxReplicas"], gpus(gpu)) == (0, 3, "1")
    assert gpu["labels"] == {"pool": "gpu", "ray.io/accelerator-type": "A100"}
    assert gpu["template"]["spec"]["tolerations"]
    assert not groups(job)["cpu"].get("labels")
    assert job["spec"]["rayClusterSpec"]["headGroupSpec"]["resources"] == {"CPU": "0"}

    _, job = rendered(declared(workers={"actors": 3, "gpus_per_actor": 2}))
    assert (groups(job)["gpu"]["maxReplicas"], gpus(groups(job)["gpu"])) == (3, "2")

    _, job = rendered(declared(marts={"postgres": "env:WHERE_MARTS_GO"}))
    (head,) = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert {"name": "WHERE_MARTS_GO", "valueFrom": {"secretKeyRef": {"name": "marts", "key": "uri", "optional": True}}} in head["env"]

    _, job = rendered(declared(workers={"actors": 9, "label": {"pool": "cpu"}}))
    assert [*groups(job)] == ["cpu"]
    assert (groups(job)["cpu"]["maxReplicas"], groups(job)["cpu"]["labels"]) == (3, {"pool": "cpu"})


def test_the_spec_goes_along_and_each_attempt_is_a_run_of_its_own(tmp_path: Path) -> None:
    config, job = rendered(declared(workers=ON_GPUS), secret="store-credentials")
    (tmp_path / "revector.json").write_text(config["data"]["revector.json"])
    assert load_spec(tmp_path / "revector.json", environ={}) == declared(workers=ON_GPUS)

    run_id = job["metadata"]["annotations"]["revector.dev/run"]
    said = subprocess.run(["sh", "-c", f"printf '%s\\n' {job['spec']['entrypoint']}"], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[:3] == ["revector", "apply", "My_Documents_of_2026"]
    assert re.search(rf"^--run-id={run_id}-\d+$", said.stdout, re.MULTILINE)
    (head,) = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert {"secretRef": {"name": "store-credentials"}} in head["envFrom"]
    mounted = {mount["mountPath"] for mount in head["volumeMounts"]}
    assert all(path.rpartition("/")[0] in mounted for path in re.findall(r"--config=(\S+)", job["spec"]["entrypoint"]))


@pytest.mark.parametrize(
    ("spec", "image", "message"),
    [
        (declared(), None, "expected a container image, found none: set run.image in the spec, or --image"),
        (declared(), "registry.example/revector:latest", "name a tag other than latest, or a digest"),
        (declared(), "registry.example:5000/revector", "name a tag other than latest, or a digest"),
        (declared(workers={}), IMAGE, "workers.actors: expected a number"),
        (declared(model={"name": "/home/me/model"}), IMAGE, "model.name = /home/me/model"),
        (declared(source={"uri": "/data/*.parquet", "id": "id", "text": "text"}), IMAGE, "source.uri = /data/"),
    ],
)
def test_what_would_not_run_is_refused(spec: Spec, image: str | None, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        rendered(spec, image)


def test_the_command_writes_nothing_but_the_manifest(tmp_path: Path) -> None:
    spec = 'source = { uri = "s3://bucket/*.parquet", id = "id", text = "text" }\nworkers = { actors = 1 }\n'
    image = f'run = {{ image = "{IMAGE.partition(":")[0]}@sha256:{"0" * 64}" }}'
    (tmp_path / "revector.toml").write_text(f'store = "s3://bucket/store"\n[collections.docs]\n{spec}{image}\n')
    command = [sys.executable, "-m", "flows.cli", "render", "rayjob", "docs", "--namespace", "night"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    config, job = yaml.safe_load_all(done.stdout)
    assert {manifest["metadata"]["namespace"] for manifest in (config, job)} == {"night"}
    assert job["metadata"]["name"] == config["metadata"]["name"]
