"""Rules of our own on manifests: what the KubeRay operator refuses only when it is too late, and what every pod must keep to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from infra.checks.checking import Check
from infra.checks.manifests import Manifest, cluster, groups, manifests, templates
from infra.checks.texts import unknown_command

RESOURCE_PARAMETERS = {"num-cpus": "CPU", "num-gpus": "GPU", "memory": "memory", "resources": None}
"""Options of `ray start` and the resource that each gives; None: any."""


def operator_findings(manifest: Manifest) -> Iterator[str]:
    """What KubeRay 1.6 refuses, or silently ignores, although its schema allows it."""
    spec = cluster(manifest)
    for place, group in groups(manifest):
        given = group.get("rayStartParams", {})
        if "labels" in given:
            yield f"{place}: labels in rayStartParams: expected them in the group's own `labels`; the autoscaler does not see those"
        for parameter, resource in RESOURCE_PARAMETERS.items():
            stated = group.get("resources", {})
            if parameter in given and (resource in stated if resource else stated):
                yield f"{place}: {parameter} is in both rayStartParams and resources: expected one of the two"
        if spec.get("autoscalerOptions", {}).get("version") == "v2" and group["template"]["spec"].get("restartPolicy") not in {
            "Never",
            None,
        }:
            yield f"{place}: expected restartPolicy Never with autoscaler v2, found {group['template']['spec']['restartPolicy']}"
        if group.get("minReplicas", 0) > group.get("maxReplicas", 0):
            yield f"{place}: minReplicas {group['minReplicas']} exceeds maxReplicas {group['maxReplicas']}"
    if spec and spec.get("authOptions", {}).get("mode") != "token":
        yield "authOptions.mode: expected token: whoever reaches the Jobs API without one runs what he likes"
    if "autoscalerOptions" in spec and not spec.get("enableInTreeAutoscaling"):
        yield "autoscalerOptions without enableInTreeAutoscaling: nothing scales"
    if manifest.get("kind") == "RayJob":
        yield from _job_findings(manifest["spec"])


def _job_findings(spec: Manifest) -> Iterator[str]:
    if "ttlSecondsAfterFinished" in spec and not spec.get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished works with shutdownAfterJobFinishes only"
    if spec.get("shutdownAfterJobFinishes") and "clusterSelector" in spec:
        yield "shutdownAfterJobFinishes with clusterSelector: KubeRay would not end a cluster that it did not make"
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        yield "suspend works with shutdownAfterJobFinishes only"
    if spec.get("submissionMode") == "HTTPMode" and "submitterPodTemplate" in spec:
        yield "submitterPodTemplate in HTTPMode: no pod submits"


def pod_findings(manifest: Manifest) -> Iterator[str]:
    """What every pod keeps to: images of one version, no root, a root filesystem that nobody writes, bounded memory."""
    for place, template in templates(manifest):
        pod = template["spec"]
        account = pod.get("securityContext", {})
        if not account.get("runAsNonRoot") or account.get("runAsUser", 0) == 0:
            yield f"{place}: expected runAsNonRoot and a runAsUser other than 0"
        if account.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{place}: expected seccompProfile RuntimeDefault"
        if not pod.get("serviceAccountName") and pod.get("automountServiceAccountToken") is not False:
            yield f"{place}: expected a serviceAccountName: the default account is everybody's"
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            yield from (f"{place}.{container['name']}: {said}" for said in _container_findings(container))


def _container_findings(container: dict[str, Any]) -> Iterator[str]:
    if said := image_finding(container.get("image", "")):
        yield said
    context = container.get("securityContext", {})
    if not context.get("readOnlyRootFilesystem"):
        yield "expected readOnlyRootFilesystem"
    if context.get("allowPrivilegeEscalation") is not False or context.get("capabilities", {}).get("drop") != ["ALL"]:
        yield "expected allowPrivilegeEscalation: false, and capabilities: drop ALL"
    if said := unknown_command(container.get("command")):
        yield said
    if "memory" not in container.get("resources", {}).get("limits", {}):
        yield "expected a limit of memory"


def image_finding(image: str) -> str | None:
    """Why an image is not one certain version; None if it is."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    if digest.startswith("sha256:") or tag not in {"", "latest"}:
        return None
    return f"expected an image with a version or a digest, found {image or 'none'}"


def account_findings(manifest: Manifest) -> Iterator[str]:
    """Rights within the cluster: no wildcard in a role."""
    for number, rule in enumerate(manifest.get("rules", ()) if manifest.get("kind") in {"Role", "ClusterRole"} else ()):
        if any("*" in rule.get(part, ()) for part in ("apiGroups", "resources", "verbs")):
            yield f"rules.{number}: expected named groups, resources and verbs, found *"


def _over(findings: Callable[[Manifest], Iterator[str]]) -> Callable[[Path], list[str]]:
    return lambda infra: [f"{where}: {said}" for where, manifest in manifests(infra) for said in findings(manifest)]


def network_findings(infra: Path) -> list[str]:
    """Each namespace that is made denies what is not allowed, in both directions."""
    objects: dict[str, list[Manifest]] = {}
    for where, manifest in manifests(infra):
        objects.setdefault(where.partition(":")[0], []).append(manifest)
    return [
        f"{place}: expected a NetworkPolicy for all pods that denies Ingress and Egress"
        for place, made in objects.items()
        if any(manifest["kind"] == "Namespace" for manifest in made) and not any(_denies_all(manifest) for manifest in made)
    ]


def _denies_all(manifest: Manifest) -> bool:
    return manifest["kind"] == "NetworkPolicy" and bool(manifest["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})


CHECKS = (
    Check("kubernetes: rules of the KubeRay operator", _over(operator_findings)),
    Check("kubernetes: what every pod keeps to", _over(pod_findings)),
    Check("kubernetes: no wildcard in a role", _over(account_findings)),
    Check("kubernetes: networks deny by default", network_findings),
)
