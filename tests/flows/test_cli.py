"""The contract of the command line: exit codes, one object on stdout, one line for an error, and a help that costs nothing."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flows import apply, diff, history, promote, rollback, search, status
from pipelines.errors import SpecError
from pipelines.spaces.space import Model
from tests.conftest import Workplace
from workers.encoders.hashing import HashEncoder
from workers.encoders.machine import PROCESSOR, Machine

HEAVY = ("ray", "torch", "lance", "pyarrow", "lancedb", "prefect", "transformers", "sentence_transformers")


def revector(*arguments: str, cwd: Path, environment: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REVECTOR_")}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments], cwd=cwd, env={**kept, **environment}, capture_output=True, text=True, timeout=240
    )


def test_help_and_usage_errors_import_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
from flows.cli import main as cli
assert cli._run(["--help"], False) == 0
assert cli._run(["apply", "--help"], False) == 0
assert cli._run(["aply"], False) == 64
assert cli._run(["plan", "--config", "missing.toml"], False) == 64
"""
    for line in (code, "import flows.cli.main"):
        done = subprocess.run(
            [sys.executable, "-c", line + f"\nimport sys; print([name for name in {HEAVY} if name in sys.modules])"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        heavy = done.stdout.splitlines()[-1]
        assert heavy == "[]" or "plan" in line  # a command that runs may import what it needs


def test_every_command_takes_the_same_options_for_the_spec_the_store_and_json() -> None:
    import typer.main

    from flows.cli.main import app

    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    common = {"config": ["--config", "-c"], "store": ["--store"], "json": ["--json"]}
    told = {name: {option.name: option.opts for option in command.params if option.name in common} for name, command in commands.items()}
    others = {"init": ["json"], "demo": ["json"], "reconcile": ["json"], "announce": ["config", "json"], "serve": ["config", "store"]}
    others["dashboard"] = ["config", "store"]
    del told["render"]
    assert told == {name: {key: common[key] for key in others.get(name, common)} for name in told}
    helps = {option.help for name in told for option in commands[name].params if option.name in common}
    assert len(helps) == len(common)


def test_the_first_five_minutes(workplace: Workplace) -> None:
    here = workplace.root
    workplace.write("a.parquet", {f"d{number}": f"text {number}" for number in range(20)})
    planned = revector("plan", "--json", cwd=here)
    assert planned.returncode == 2
    plan = json.loads(planned.stdout)
    assert set(plan) >= {"collection", "generation", "space", "change", "documents", "chunks", "embed", "reuse"}
    assert (plan["change"], plan["embed"]["contents"], plan["documents"]["added"]) == ("data", 20, 20)
    assert not (here / "store").exists()

    applied = revector("apply", "--json", cwd=here)
    assert applied.returncode == 0, applied.stderr
    result = json.loads(applied.stdout)
    assert set(result) >= {"run_id", "status", "version", "dead_letters", "seconds", "tokens_per_second"}
    assert (result["status"], result["embed"]["contents"]) == ("published", 20)
    assert "Traceback" not in applied.stderr

    assert revector("plan", cwd=here).returncode == 0
    found = json.loads(revector("search", "docs", "text 7", "-k", "3", "--where", "kind=a", "--json", cwd=here).stdout)
    best = found["results"][0]
    assert (best["chunk_id"], best["doc_id"], best["text"], best["metadata"]) == ("d7#0", "d7", "text 7", {"kind": "a"})
    assert best["score"] == pytest.approx(1, abs=1e-3)
    status = json.loads(revector("status", "--json", cwd=here).stdout)["collections"][0]
    assert (status["name"], status["chunks"], status["vectors"], status["backlog"], status["dead_letters"]) == ("docs", 20, 20, 0, 0)
    assert status["published"] == {**status["published"], "generation": result["generation"], "version": result["version"]}
    assert len(json.loads(revector("history", "--json", cwd=here).stdout)["published"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["plann"], 64, "No such command 'plann'"),
        (["plan", "--confg", "x"], 64, "No such option: --confg"),
        (["plan", "nope"], 64, "expected one of docs, found 'nope'"),
        (["plan", "--config", "missing.toml"], 64, "expected a spec at missing.toml, found none"),
        (["search", "docs", "x"], 1, "expected a published collection 'docs'"),
        (["search", "docs", "x", "--where", "kind"], 64, "expected --where field=value"),
        (["rollback"], 1, "expected a published collection"),
        (["apply", "--plan", "nothing.json"], 64, "expected a plan in nothing.json"),
    ],
)
def test_an_error_is_one_line_and_has_its_code(workplace: Workplace, arguments: list[str], code: int, message: str) -> None:
    done = revector(*arguments, cwd=workplace.root)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


@pytest.fixture
def left(workplace: Workplace) -> str:
    """A store with the collection `docs`, published twice, which the spec beside it no longer has; gives the first generation."""
    workplace.write("a.parquet", {"d0": "text"})
    generation = workplace.apply().generation
    workplace.write("a.parquet", {"d0": "text", "d1": "another"})
    workplace.apply()
    workplace.config.write_text(workplace.config.read_text().replace("collections.docs", "collections.others"))
    return generation


def test_the_store_is_enough_for_what_the_spec_no_longer_has(workplace: Workplace, left: str) -> None:
    (shown,) = status("docs", workplace.config)["collections"]
    assert (shown["published"]["generation"], shown["vectors"]) == (left, 2)
    assert len(history("docs", workplace.config)["published"]) == 2
    assert rollback("docs", workplace.config).chunks == 1
    assert promote("docs", left, workplace.config, force=True).chunks == 2
    with pytest.raises(SpecError, match=r"expected one of docs, others, found 'dosc'; did you mean 'docs'\?"):
        history("dosc", workplace.config)
    with pytest.raises(SpecError, match="expected one of docs, others, found 'dosc'"):
        status("dosc", workplace.config)


@pytest.mark.parametrize("named", ["by an option", "by the environment"])
@pytest.mark.parametrize("spec", ["none", "broken"])
def test_a_store_that_is_named_is_enough_without_a_spec(
    workplace: Workplace, left: str, monkeypatch: pytest.MonkeyPatch, named: str, spec: str
) -> None:
    workplace.config.unlink() if spec == "none" else workplace.config.write_text("[collections")
    monkeypatch.chdir(workplace.root)
    monkeypatch.setenv("REVECTOR_STORE", workplace.store if named == "by the environment" else "/nowhere")
    store = workplace.store if named == "by an option" else None
    (shown,) = status("docs", store=store)["collections"]
    (run, *_) = history("docs", store=store)["runs"]
    assert shown["published"]["generation"] == left
    assert rollback("docs", store=store).chunks == 1
    assert promote("docs", left, store=store, force=True).chunks == 2
    assert diff("docs", 2, 3, store=store)["chunks"]["added"] == 1
    attached = revector("attach", run["run_id"], "--json", cwd=workplace.root, environment={"REVECTOR_STORE": workplace.store})
    assert json.loads(attached.stdout)["run_id"] == run["run_id"], attached.stderr
    if spec == "none":
        assert [each["name"] for each in status(store=store)["collections"]] == ["docs"]
        assert search("docs", "another", store=store)[0]["doc_id"] == "d1"


def test_progress_survives_a_shard_that_gave_nothing() -> None:
    from flows.show.progress import describe
    from workers.observing.telling import Progress

    assert describe(Progress("embed", documents=1, chunks=0, total=1, tokens=3, reused=0)) == "embed · 0 of 1 chunks · 1 documents read"
    moment = Progress("embed", documents=9, chunks=50, total=200, tokens=900, tokens_per_second=450.0, reused=10, seconds_left=100)
    assert describe(moment) == "embed · 50 of 200 chunks · 450 tokens/s · 2 min left · 20% reused · 9 documents read"


def test_init_writes_a_spec_that_is_valid_and_keeps_one_that_is_there(tmp_path: Path) -> None:
    from pipelines.spec.parsing import load_spec

    assert revector("init", cwd=tmp_path).returncode == 0
    assert list(load_spec(tmp_path / "revector.toml").collections) == ["docs"]
    again = revector("init", cwd=tmp_path)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)


APPLY_AND_TELL = f"""
import os, sys
from flows import apply
print(os.getpid(), apply().status, [name for name in {HEAVY[:2]} if name in sys.modules])
"""


def test_a_little_work_starts_no_ray_unless_the_run_before_ended_badly(workplace: Workplace) -> None:
    def apply() -> list[str]:
        done = subprocess.run([sys.executable, "-c", APPLY_AND_TELL], cwd=workplace.root, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        pid, *told = done.stdout.split(maxsplit=2)
        assert not list(Path(tempfile.gettempdir(), "ray").glob(f"session_*_{pid}"))  # Ray would leave it
        return told

    workplace.write("a.parquet", {"d1": "text 1"})
    assert apply() == ["published", "[]\n"]
    assert apply() == ["nothing", "[]\n"]
    (run,) = (workplace.root / "store/_revector/docs/runs").iterdir()
    (run / "result.json").unlink()  # as if it had been killed
    workplace.write("a.parquet", {"d1": "text 2"})
    assert apply() == ["published", "['ray']\n"]


def test_a_query_is_encoded_as_precisely_as_the_spec_says(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Machine] = []

    def load(model: Model, machine: Machine = PROCESSOR) -> HashEncoder:
        loaded.append(machine)
        return HashEncoder(model)

    workplace.write("a.parquet", {"d1": "text 1"})
    workplace.spec(rest='workers = { precision = "float32" }')
    workplace.apply()
    monkeypatch.setattr("workers.search.load_encoder", load)
    assert len(search("docs", "text", workplace.config)) == len(search("docs", "text", store=workplace.store)) == 1
    assert [machine.precision for machine in loaded] == ["float32", "auto"]


def test_profile_tells_where_the_time_went(workplace: Workplace) -> None:
    workplace.write("a.parquet", {f"d{number}": f"text {number}" for number in range(20)})
    shown = revector("apply", "--profile", cwd=workplace.root)
    assert shown.returncode == 0, shown.stderr
    assert [
        line.split()[0] for line in shown.stdout.splitlines() if line.startswith(("read", "settle", "compare", "embed", "publish"))
    ] == [
        "read",
        "settle",
        "compare",
        "embed",
        "publish",
    ]
    assert "stand-in" in shown.stdout


def test_a_spec_that_the_environment_names_must_be_there(workplace: Workplace, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVECTOR_CONFIG", str(workplace.root / "mistyped.toml"))
    with pytest.raises(SpecError, match=r"expected a spec at .*mistyped\.toml"):
        status(store=workplace.store)


def test_what_others_wrote_is_shown_and_not_obeyed_by_the_terminal(workplace: Workplace) -> None:
    """In ids, metadata, texts and names of files; what is made for programs has it as it is."""
    evil = "\x1b]0;owned\x07\x1b[31m\x9b2J\r\u202e"
    workplace.write("a.parquet", {f"id{evil}": f"text {evil}"}, kind=evil)
    (workplace.root / "data" / f"b{evil}.parquet").write_bytes(b"no parquet")
    workplace.spec(rest="gates = { max_failed = 1.0 }")
    assert revector("apply", cwd=workplace.root).returncode == 4
    commands = (
        ["search", "docs", "text"],
        ["status", "docs"],
        ["-v", "plan"],
        ["search", evil, "text"],
        ["search", "docs", "x", "--where", evil],
    )
    for arguments in commands:
        done = revector(*arguments, cwd=workplace.root)
        told = done.stdout + done.stderr
        assert told
        assert not set(evil) & {"\x1b", "\x07", "\x9b", "\u202e"} & set(told), arguments
    shown = revector("search", "docs", "text", cwd=workplace.root).stdout
    assert "id␛]0;owned" in shown
    hit = json.loads(revector("search", "docs", "text", "--json", cwd=workplace.root).stdout)["results"][0]
    assert (hit["doc_id"], hit["metadata"]["kind"]) == (f"id{evil}", evil)


def test_a_run_id_and_a_text_are_checked_before_anything_is_done(workplace: Workplace) -> None:
    workplace.write("a.parquet", {"d1": "text"})
    before = sorted(workplace.root.parent.rglob("*"))
    with pytest.raises(SpecError, match="expected the id of a run, of letters"):
        apply(config=workplace.config, run_id="../../../x")
    wrong = revector("apply", "--run-id=../../../x", cwd=workplace.root)
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (64, 1)
    assert sorted(workplace.root.parent.rglob("*")) == before
    workplace.apply()
    no_text = os.fsdecode(b"\xff\xfe")
    for arguments in (
        ["search", "docs", no_text],
        ["rollback", "docs", "--why", no_text],
        ["search", "docs", "x", "--where", f"kind={no_text}"],
    ):
        done = revector(*arguments, cwd=workplace.root)
        assert (done.returncode, len(done.stderr.splitlines())) in {(64, 1), (1, 1)}
        assert done.stderr.startswith("revector: expected ")
