"""YAML's form, the specs that the examples bring, and the runbook: what it names must exist."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from infra.checks.checking import Check, complaints

STYLE = Path(__file__).parent / "yamllint.yaml"
COMMAND = re.compile(r"(?<!-n )\brevector ((?:[a-z]+)(?: [^`|\n;&#]*)?)")
CODE = re.compile(r"```sh\n(.*?)```|`([^`\n]+)`", re.DOTALL)


def linted(infra: Path) -> list[str]:
    """What yamllint finds in all YAML."""
    return complaints([sys.executable, "-m", "yamllint", "--strict", "--format", "parsable", "--config-file", STYLE, "."], infra)


def specs(infra: Path) -> list[str]:
    """Whether revector takes each revector.toml of the examples."""
    from pipelines.errors import SpecError
    from pipelines.spec.parsing import load_spec

    found = []
    for file in sorted(infra.rglob("revector.toml")):
        try:
            load_spec(file, environ={})
        except SpecError as error:
            found.append(f"{file.relative_to(infra)}: {error}")
    return found


def runbook(infra: Path) -> list[str]:
    """Each alert has a section of its name, and each command of revector that is to be typed exists, with its options."""
    text = (infra / "RUNBOOK.md").read_text()
    missing = [f"expected a section about the alert {alert}" for alert in alerts(infra) if f"## {alert}\n" not in text]
    return [*missing, *(finding for command in commands(text) if (finding := unknown(command.split())))]


def alerts(infra: Path) -> list[str]:
    """Names of the alerts."""
    groups = yaml.safe_load((infra / "prometheus" / "rules.yml").read_text())["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]


def commands(text: str) -> Iterator[str]:
    """The commands of revector in the code of a Markdown text, without the program's name."""
    for block, inline in CODE.findall(text):
        yield from COMMAND.findall(block or inline)


def unknown(words: list[str]) -> str | None:
    """What is wrong with the words of a command behind `revector`: no such command, or no such option of it; None: nothing."""
    import typer.main

    from flows.cli.main import app

    command: Any = typer.main.get_command(app)
    path = ["revector"]
    while words and hasattr(command, "commands"):
        path.append(words.pop(0))
        if path[-1] not in command.commands:
            return f"no such command: {' '.join(path)}"
        command = command.commands[path[-1]]
    offered = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    asked = [word.partition("=")[0] for word in words if word.startswith("--")]
    return next((f"{' '.join(path)} has no {option}" for option in asked if option not in offered), None)


def unknown_command(command: Any) -> str | None:
    """What is wrong with a container's command, if that is one of revector; None: nothing."""
    return unknown([str(word) for word in command[1:]]) if isinstance(command, list) and command[:1] == ["revector"] else None


CHECKS = (
    Check("yaml: yamllint", linted),
    Check("specs: each revector.toml of the examples", specs),
    Check("runbook: a section for each alert, commands that exist", runbook),
)
