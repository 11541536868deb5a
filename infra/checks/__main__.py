"""One line a check: ok, failed with the tool's words, or not run and what it needs. Exits with 1 if one failed."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from infra.checks import checkov, cloud, containers, manifests, monitoring, rules, texts
from infra.checks.checking import Check, NotRun
from infra.checks.mistakes import missed, of

INFRA = Path(__file__).parents[1]
CHECKS: tuple[Check, ...] = tuple(
    check for part in (texts, containers, manifests, rules, cloud, monitoring, checkov) for check in part.CHECKS
)


def main() -> int:
    """All checks, and with --mistakes also whether each finds the mistake that is planted for it."""
    arguments = argparse.ArgumentParser(prog="python -m infra.checks", description=__doc__)
    arguments.add_argument("--mistakes", action="store_true", help="Also plant a mistake for each check in a copy, and see it found.")
    planting = arguments.parse_args().mistakes
    told = [_checked(check) for check in CHECKS] + ([_planted(check) for check in CHECKS] if planting else [])
    print(f"{told.count('ok')} ok, {told.count('failed')} failed, {told.count('not run')} not run")
    return 1 if "failed" in told else 0


def _checked(check: Check) -> str:
    began = time.monotonic()
    try:
        findings = check.findings(INFRA)
    except NotRun as missing:
        return _tell("not run", f"{check.name}: {missing}")
    if findings:
        return _tell("failed", check.name, findings)
    return _tell("ok", f"{check.name} ({time.monotonic() - began:.1f} s)")


def _planted(check: Check) -> str:
    """Whether it finds the mistakes that are planted for it in a copy of everything."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            lost = missed(check, INFRA, Path(folder))
    except NotRun as missing:
        return _tell("not run", f"mistakes of {check.name}: {missing}")
    if lost or not of(check):
        return _tell("failed", f"mistakes of {check.name}", lost or ["none is planted: add one to mistakes.toml"])
    return _tell("ok", f"{check.name} finds: {', '.join(mistake.what for mistake in of(check))}")


def _tell(outcome: str, said: str, findings: list[str] | None = None) -> str:
    print(f"{outcome:8}{said}", *(f"          {line}" for line in findings or ()), sep="\n", flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
