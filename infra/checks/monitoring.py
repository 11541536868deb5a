"""Prometheus rules and their tests, and the configuration of the local stack's Prometheus."""

from pathlib import Path

from infra.checks.checking import Check, complaints, tool

GET_PROMTOOL = "apt-get install prometheus, or https://prometheus.io/download"


def rules(infra: Path) -> list[str]:
    """Whether the rules are well-formed."""
    return complaints([tool("promtool", get=GET_PROMTOOL), "check", "rules", "rules.yml"], infra / "prometheus")


def rule_tests(infra: Path) -> list[str]:
    """Whether alerts come, and go, when they should."""
    return complaints([tool("promtool", get=GET_PROMTOOL), "test", "rules", "rules_test.yml"], infra / "prometheus")


def configuration(infra: Path) -> list[str]:
    """Whether the scrape configuration is well-formed."""
    promtool = tool("promtool", get=GET_PROMTOOL)
    return complaints([promtool, "check", "config", "--syntax-only", "prometheus.yml"], infra / "compose")


CHECKS = (
    Check("prometheus: rules", rules),
    Check("prometheus: tests of the rules", rule_tests),
    Check("prometheus: configuration of the local stack", configuration),
)
