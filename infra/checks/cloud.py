"""OpenTofu: that it parses, its versions, its rights and its form."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
from lark.exceptions import LarkError

from infra.checks.checking import Check, NotRun, complaints, tool

Block = dict[str, Any]


def files(infra: Path) -> list[Path]:
    return sorted((infra / "tofu").rglob("*.tf"))


def parsed(infra: Path) -> list[str]:
    """Whether every file is HCL."""
    found = []
    for file in files(infra):
        try:
            _load(file)
        except LarkError as error:
            found.append(f"{file.relative_to(infra)}: {str(error).splitlines()[0]}")
    return found


def _load(file: Path) -> Block:
    return _parse(file.read_text())


@cache
def _parse(text: str) -> Block:
    loaded: Block = hcl2.loads(text, serialization_options=hcl2.SerializationOptions(strip_string_quotes=True))
    return loaded


def wildcards(infra: Path) -> list[str]:
    """No statement that allows has a wildcard among its actions, or for its resource."""
    return [
        f"{file.relative_to(infra)}: {name}: {said}"
        for file in files(infra)
        for name, statement in _statements(_load(file))
        for said in _statement_findings(statement)
    ]


def _statements(loaded: Block) -> Iterator[tuple[str, Block]]:
    for data in loaded.get("data", ()):
        for name, document in data.get("aws_iam_policy_document", {}).items():
            repeated = [inner for block in document.get("dynamic", ()) if "statement" in block for inner in block["statement"]["content"]]
            yield from ((name, statement) for statement in [*document.get("statement", ()), *repeated])


def _statement_findings(statement: Block) -> Iterator[str]:
    if statement.get("effect", "Allow") != "Allow":
        return
    for action in statement.get("actions", ()):
        if "*" in action:
            yield f"expected named actions, found {action}"
    if statement.get("not_actions") or statement.get("not_resources"):
        yield "expected what is allowed, found what is not"
    for resource in statement.get("resources", ()):
        if resource == "*":
            yield "expected named resources, found *"
    for principal in statement.get("principals", ()):
        if "*" in principal.get("identifiers", ()):
            yield "expected named principals, found *"


def pinned(infra: Path) -> list[str]:
    """Each provider at one version."""
    return [
        f"{file.relative_to(infra)}: {name}: expected one version, found {provider.get('version')}"
        for file in files(infra)
        for block in _load(file).get("terraform", ())
        for providers in block.get("required_providers", ())
        for name, provider in providers.items()
        if isinstance(provider, dict) and not str(provider.get("version", "")).replace(".", "").isdecimal()
    ]


def formatted(infra: Path) -> list[str]:
    """Whether the files have the form that `tofu fmt` gives."""
    try:
        program = tool("tofu", get="")
    except NotRun:
        program = tool("terraform", get="tofu or terraform, https://opentofu.org/docs/intro/install")
    return complaints([program, "fmt", "-check", "-diff", "-recursive", "tofu"], infra)


CHECKS = (
    Check("tofu: parses", parsed),
    Check("tofu: no wildcard is allowed", wildcards),
    Check("tofu: providers at one version", pinned),
    Check("tofu: form", formatted),
)
