"""Kubernetes manifests: built by Kustomize, against the schemas of Kubernetes, KubeRay and the Prometheus operator, and our own rules."""

import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from infra.checks.checking import Check, complaints, tool

KUBERNETES = "1.33"
"""The oldest version that the manifests are for."""
SCHEMAS = Path(__file__).parent
BY_SCHEMA = {"ray.io/v1": "ray.schema.json", "monitoring.coreos.com/v1": "monitoring.schema.json"}
"""Kinds that are not Kubernetes' own."""
GET_KUBECTL = "https://kubernetes.io/docs/tasks/tools"

Manifest = dict[str, Any]


def manifests(infra: Path) -> Iterator[tuple[str, Manifest]]:
    """Every object, with where it comes from: each overlay as it is built, and the examples. Raises NotRun without kubectl."""
    for folder in _kustomizations(infra):
        for manifest in _objects(_build(folder)):
            yield f"{folder.relative_to(infra)}: {title(manifest)}", manifest
    for file in sorted((infra / "kubernetes" / "examples").glob("*.yaml")):
        for manifest in _objects(file.read_text()):
            yield f"{file.relative_to(infra)}: {title(manifest)}", manifest


def _objects(text: str) -> Iterator[Manifest]:
    return yaml.load_all(text, Loader=yaml.CSafeLoader)  # five times as fast as the one without C


def title(manifest: Manifest) -> str:
    """Kind and name."""
    return f"{manifest.get('kind')} {manifest.get('metadata', {}).get('name')}"


def _kustomizations(infra: Path) -> list[Path]:
    return sorted(file.parent for file in (infra / "kubernetes").rglob("kustomization.yaml"))


@cache
def _build(folder: Path) -> str:
    kubectl = tool("kubectl", get=GET_KUBECTL)
    return subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=True).stdout


def building(infra: Path) -> list[str]:
    """Whether Kustomize can build each base and overlay."""
    kubectl = tool("kubectl", get=GET_KUBECTL)
    return [
        line for folder in _kustomizations(infra) for line in complaints([kubectl, "kustomize", "--output", "/dev/null", folder], infra)
    ]


def strictly(infra: Path) -> list[str]:
    """Objects of Kubernetes' own kinds, and the pod templates in those of others, against its schemas; unknown fields are refused."""
    return [f"{where}: {said}" for where, manifest in manifests(infra) for said in kubernetes_findings(manifest)]


def kubernetes_findings(manifest: Manifest) -> Iterator[str]:
    """What Kubernetes' schemas say of one object."""
    if manifest["apiVersion"] not in BY_SCHEMA:
        yield from _against_kubernetes(manifest)
    for place, template in templates(manifest) if manifest["apiVersion"] == "ray.io/v1" else ():
        wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "template"}, "template": template}
        yield from (f"{place}: {said}" for said in _against_kubernetes(wrapped))


def _against_kubernetes(manifest: Manifest) -> tuple[str, ...]:
    return _validated(json.dumps(manifest, sort_keys=True))


@cache
def _validated(text: str) -> tuple[str, ...]:
    """By text, as most objects of one overlay are those of another."""
    manifest = json.loads(text)
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return (f"{'.'.join(str(step) for step in error.path)}: {error.message}",)
    except kubernetes_validate.SchemaNotFoundError:
        return (f"expected a kind of Kubernetes {KUBERNETES}, found {manifest['apiVersion']} {manifest['kind']}",)
    return ()


def extended(infra: Path) -> list[str]:
    """RayClusters, RayJobs and monitors against schemas of the fields that we use."""
    return [f"{where}: {said}" for where, manifest in manifests(infra) for said in schema_findings(manifest)]


def schema_findings(manifest: Manifest) -> Iterator[str]:
    """What our schemas of others' kinds say of one object."""
    if name := BY_SCHEMA.get(manifest["apiVersion"]):
        validator = jsonschema.Draft202012Validator(json.loads((SCHEMAS / name).read_text()))
        for error in validator.iter_errors(manifest):
            yield f"{'.'.join(str(step) for step in error.absolute_path)}: {error.message}"


def templates(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """The pod templates of an object, of whatever kind, with the place of each."""
    spec = manifest.get("spec", {})
    if manifest.get("kind") in {"Deployment", "StatefulSet", "DaemonSet", "Job"}:
        yield "template", spec["template"]
    if submitter := spec.get("submitterPodTemplate"):
        yield "submitterPodTemplate", submitter
    for place, group in groups(manifest):
        yield f"{place}.template", group.get("template", {})


def cluster(manifest: Manifest) -> Manifest:
    """The spec of the Ray cluster that an object describes; empty if it describes none."""
    spec: Manifest = manifest.get("spec", {})
    if manifest.get("kind") == "RayJob":
        spec = spec.get("rayClusterSpec", {})
    return spec if manifest.get("kind") in {"RayCluster", "RayJob"} else {}


def groups(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """The head and the worker groups of a Ray cluster, with the place of each."""
    spec = cluster(manifest)
    if head := spec.get("headGroupSpec"):
        yield "headGroupSpec", head
    for number, group in enumerate(spec.get("workerGroupSpecs", ())):
        yield f"workerGroupSpecs.{number}", group


CHECKS = (
    Check("kubernetes: kustomize builds each overlay", building),
    Check("kubernetes: strict schemas of Kubernetes " + KUBERNETES, strictly),
    Check("kubernetes: schemas of ray.io/v1 and monitoring.coreos.com/v1", extended),
)
