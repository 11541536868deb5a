"""Checkov over everything, in an environment of its own: its pins would fight with ours."""

import re
import tempfile
from pathlib import Path

import yaml

from infra.checks.checking import Check, NotRun, complaints
from infra.checks.manifests import Manifest, manifests, templates

PROGRAM = Path(__file__).parents[2] / "build" / "checkov" / "bin" / "checkov"
EXCEPTIONS = Path(__file__).parent / "checkov.yaml"
"""The policies that do not apply here, and why."""


def policies(infra: Path) -> list[str]:
    """What Checkov's policies find in the Dockerfiles, in the built manifests and in the OpenTofu code; nothing is fetched."""
    if not PROGRAM.exists():
        raise NotRun("needs checkov: make infra-check puts it into build/checkov")
    with tempfile.TemporaryDirectory() as folder:
        _explain(infra, Path(folder))
        options = ["--skip-download", "--compact", "--quiet", "--config-file", str(EXCEPTIONS)]
        frameworks = {"dockerfile": infra / "docker", "terraform": infra / "tofu", "kubernetes": Path(folder)}
        return [
            f"{framework}: {line}"
            for framework, place in frameworks.items()
            for line in complaints([PROGRAM, *options, "--framework", framework, "--directory", place], infra)
        ]


def _explain(infra: Path, folder: Path) -> None:
    """Write all manifests into `folder`, and for each pod of a kind that Checkov does not know one that it does."""
    for number, (where, manifest) in enumerate(manifests(infra)):
        pods = (
            [manifest] if manifest["apiVersion"] != "ray.io/v1" else [_pod(place, manifest, inner) for place, inner in templates(manifest)]
        )
        name = f"{number:03}-{re.sub('[^A-Za-z0-9]+', '-', where)}.yaml"
        (folder / name).write_text(yaml.safe_dump_all(pods))


def _pod(place: str, owner: Manifest, template: Manifest) -> Manifest:
    name = f"{owner['metadata'].get('name', 'unnamed')}-{place}".lower().replace(".", "-")
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "revector"}, "spec": template["spec"]}


CHECKS = (Check("checkov: policies for Dockerfiles, manifests and OpenTofu", policies),)
