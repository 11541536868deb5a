"""What is under infra/ passes its validators, and each finds the mistakes that are planted for it. With Checkov: make infra-check."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from flows.cli.main import app
from infra.checks.__main__ import CHECKS, INFRA
from infra.checks.checking import Check, NotRun
from infra.checks.manifests import kubernetes_findings, schema_findings
from infra.checks.mistakes import MISTAKES, missed
from infra.checks.rules import operator_findings, pod_findings
from tests.support.objectstore import BUCKET, ObjectStore, serve

ELSEWHERE = {
    "checkov: policies for Dockerfiles, manifests and OpenTofu": "needs an environment of its own",
    "prometheus: tests of the rules": "takes ten seconds",
}
"""Checks that only `make infra-check` runs, and why."""
HERE = {check.name: check for check in CHECKS if check.name not in ELSEWHERE}


def findings(check: Check, infra: Path) -> list[str]:
    try:
        return check.findings(infra)
    except NotRun as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("name", HERE)
def test_a_validator_finds_nothing(name: str) -> None:
    assert findings(HERE[name], INFRA) == []


@pytest.mark.parametrize("name", HERE)
def test_its_planted_mistakes_are_found(name: str, tmp_path: Path) -> None:
    try:
        assert missed(HERE[name], INFRA, tmp_path) == []
    except NotRun as missing:
        pytest.skip(str(missing))


def test_a_rendered_rayjob_passes_what_the_manifests_pass() -> None:
    spec = INFRA / "kubernetes" / "overlays" / "prod" / "revector.toml"
    rendered = CliRunner().invoke(app, ["render", "rayjob", "docs", "--config", str(spec)])
    made = list(yaml.safe_load_all(rendered.stdout))
    assert {each["kind"] for each in made} >= {"RayJob", "ConfigMap"}
    judges = (kubernetes_findings, schema_findings, operator_findings, pod_findings)
    assert [said for each in made for judge in judges for said in judge(each)] == []


def test_every_check_has_a_mistake_and_every_mistake_a_check() -> None:
    assert {check.name for check in CHECKS} == {mistake.check for mistake in MISTAKES}


def test_the_secrets_of_the_local_stack_are_made_once_and_stay_out_of_git(tmp_path: Path) -> None:
    script = tmp_path / "secrets.sh"
    script.write_text((INFRA / "compose" / "secrets.sh").read_text())
    for _ in range(2):
        subprocess.run(["sh", script], check=True)
    made = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    random = {"ray_token", "postgres_password", "grafana_password", "dashboard_token", "marts_writer_password", "marts_reader_password"}
    assert made.keys() == {*random, "pg_service.conf", "s3.json", "aws_credentials", "aws_read_credentials"}
    assert len({made[name] for name in random}) == len(random)
    assert len(made["ray_token"]) >= 32 and made["ray_token"] != made["postgres_password"]
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    subprocess.run(["sh", script], check=True)
    assert made == {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert "secrets/" in (INFRA / "compose" / ".gitignore").read_text().splitlines()


def test_the_dashboard_s_keys_of_the_local_stack_read_and_do_not_write(tmp_path: Path) -> None:
    script = tmp_path / "secrets.sh"
    script.write_text((INFRA / "compose" / "secrets.sh").read_text())
    subprocess.run(["sh", script], check=True)
    identities = (tmp_path / "secrets" / "s3.json").read_text()
    writer, reader = (each["credentials"][0] for each in json.loads(identities)["identities"])
    with serve(tmp_path / "files", ObjectStore(access_key=writer["accessKey"], secret_key=writer["secretKey"]), identities) as store:
        store.client().put_object(Bucket=BUCKET, Key="store/a", Body=b"there")
        reading = replace(store, access_key=reader["accessKey"], secret_key=reader["secretKey"]).client()
        assert reading.get_object(Bucket=BUCKET, Key="store/a")["Body"].read() == b"there"
        assert [each["Key"] for each in reading.list_objects_v2(Bucket=BUCKET, Prefix="store/")["Contents"]] == ["store/a"]
        for write in (
            lambda: reading.put_object(Bucket=BUCKET, Key="store/b", Body=b""),
            lambda: reading.delete_object(Bucket=BUCKET, Key="store/a"),
            lambda: reading.create_bucket(Bucket="another"),
        ):
            with pytest.raises(ClientError, match="AccessDenied"):
                write()


def test_a_check_that_needs_a_tool_which_is_missing_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(NotRun, match="needs kubectl: https://"):
        next(check for check in CHECKS if "kustomize" in check.name).findings(INFRA)
