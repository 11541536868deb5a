"""The command that serves the pages: to this machine alone unless a token of one's own guards them, until it is stopped."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dashboard.app import STATIC
from dashboard.desk import TEMPLATES
from flows.cli.main import app
from pipelines.errors import SpecError
from tests.conftest import Workplace


@contextmanager
def served(workplace: Workplace, *options: str) -> Iterator[str]:
    """The address that `revector dashboard` prints."""
    argv = [sys.executable, "-m", "flows.cli", "dashboard", "--config", str(workplace.config), "--port", "0", *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        found = re.search(r"http\S+", process.stderr.readline())
        assert found
        try:
            yield found[0]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0


def test_the_address_that_it_prints_opens_the_pages(workplace: Workplace) -> None:
    workplace.write("1.parquet", {"a": "one text"})
    workplace.apply()
    with served(workplace) as address:
        assert address.startswith("http://127.0.0.1:")
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        page = opener.open(address).read().decode()
        assert 'href="/c/docs"' in page
        assert "Plan now" in opener.open(address.partition("?")[0] + "c/docs/plan").read().decode()
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(address.partition("?")[0])


def test_a_token_of_ones_own_is_taken_from_a_file_and_not_shown_to_others(workplace: Workplace) -> None:
    file = workplace.root / "token"
    file.write_text("a token that is long enough\n")
    with served(workplace, "--token-file", str(file)) as address:
        assert "token" not in address
        request = urllib.request.Request(address, headers={"Authorization": "Bearer a token that is long enough"})
        assert urllib.request.urlopen(request).status == 200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "--token-file or --header"),
        (["--host", "example.com"], "--token-file or --header"),
        (["--allow", "promot"], "did you mean"),
        (["--token-file", "none"], "no such file"),
        (["--token-file", "short"], "20 characters or more"),
    ],
)
def test_what_would_be_unsafe_is_refused(workplace: Workplace, options: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace.root)
    (workplace.root / "short").write_text("guess me")
    result = CliRunner().invoke(app, ["dashboard", "--config", str(workplace.config), *options])
    assert isinstance(result.exception, SpecError)
    assert said in str(result.exception)


def test_what_is_not_ours_is_as_it_was_published() -> None:
    listed = re.findall(r"^\| `(\S+)` \|.*\[\S+\]\((\S+)\) \| `([0-9a-f]{64})` \|$", (STATIC / "VENDORED.md").read_text(), re.MULTILINE)
    assert {name for name, _, _ in listed} == {file.name for file in STATIC.glob("*.min.*")}
    for name, licence, digest in listed:
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest
        assert (STATIC / licence).stat().st_size > 100


def test_no_template_lets_a_text_through_as_it_is() -> None:
    for template in TEMPLATES.glob("*.html"):
        assert not re.search(r"\|\s*safe\b|autoescape\s+false|\shx-on|\sstyle=|<script(?![^>]*\bsrc=)", template.read_text()), template.name
