"""What a command tells the program that started it is read the same from a child process and from a job on a cluster, and nothing else is
taken for it: not what a library prints, not what only a newer version knows."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from flows.elsewhere import submission
from tests.conftest import Workplace
from tests.flows.test_cli import revector
from workers.observing.telling import Progress

PROGRESS = {"kind": "progress", "stage": "embed", "chunks": 5, "total": 10}
LOG = {"kind": "log", "at": "2026-03-01T03:00:00.000+00:00", "level": "info", "event": "shard done", "shard": 3}
RESULT = {"collection": "docs", "status": "published"}
LIBRARIES = ['{"loss": 0.1}', '{"kind": "metric", "loss": 0.1}', '{"kind": "log"}', '{"kind": "progress"}', "[1, 2]", "{not JSON", "null"]
"""What libraries print: JSON objects, with and without a kind."""


class Told:
    """What a reader made of some lines."""

    def __init__(self) -> None:
        self.progress: list[Progress] = []
        self.events: list[str] = []
        self.result: Any = None
        self.shown = ""


@pytest.fixture(scope="module", autouse=True)
def prefect_is_there() -> None:
    """Its log goes to what is stderr when it is imported: that must not be a test's, which is closed after the test."""
    import flows.flow_run.child  # noqa: F401


def of_a_child(out: list[str], err: list[str], _: pytest.CaptureFixture[str]) -> Told:
    """The lines of a child process that writes `out` on stdout and `err` on stderr."""
    from prefect.logging.loggers import disable_run_logger

    from flows.flow_run.child import follow

    code = "import sys; print(sys.argv[1]); print(sys.argv[2], file=sys.stderr)"
    told = Told()
    with disable_run_logger():
        done = follow(
            [sys.executable, "-c", code, "\n".join(out), "\n".join(err)],
            told.progress.append,
            lambda record: told.events.append(record["event"]),
        )
    assert done.code == 0
    told.result, told.shown = done.result, done.line
    return told


def of_a_job(out: list[str], err: list[str], capfd: pytest.CaptureFixture[str]) -> Told:
    """The lines of a job, in whose log both streams are one."""

    class Jobs:
        def follow(self, _: str, tell: Callable[[str], None]) -> None:
            for line in [*err, *out]:
                tell(line)

    told = Told()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REVECTOR_PROGRESS", "json")  # what was told there is told on, as JSON again
        from pipelines.logs import shown

        with shown(json=True):
            _, told.result = submission.follow(Jobs(), "id")  # type: ignore[arg-type]
    told.shown = capfd.readouterr().err
    for line in told.shown.splitlines():
        if line.startswith('{"kind":"progress","stage"'):
            told.progress.append(Progress(**{name: value for name, value in json.loads(line).items() if name != "kind"}))
        if line.startswith('{"kind":"log","at"'):
            told.events.append(json.loads(line)["event"])
    return told


Read = Callable[[list[str], list[str], pytest.CaptureFixture[str]], Told]
both = pytest.mark.parametrize("read", [of_a_child, of_a_job])


def lines(*records: Any) -> list[str]:
    return [json.dumps(record) for record in records]


@both
def test_progress_log_and_result_are_told_apart(read: Read, capfd: pytest.CaptureFixture[str]) -> None:
    told = read(lines({"kind": "result", "result": RESULT}), [*lines(PROGRESS, LOG), "revector: expected this, found that"], capfd)
    assert told.progress == [Progress("embed", chunks=5, total=10)]
    assert told.events == ["shard done"]
    assert told.result == RESULT
    assert "expected this, found that" in told.shown


@both
def test_what_only_a_newer_version_knows_is_left_out(read: Read, capfd: pytest.CaptureFixture[str]) -> None:
    newer = lines({**PROGRESS, "images": 7, "stage": "decode"}, {**LOG, "level": "notice"}, {"kind": "cost", "dollars": 1})
    told = read(lines({"kind": "result", "result": RESULT, "signed": True}), newer, capfd)
    assert told.progress == [Progress("decode", chunks=5, total=10)]  # type: ignore[arg-type]
    assert told.events == ["shard done"]
    assert told.result == RESULT


@both
@pytest.mark.parametrize("before", [True, False])
def test_only_the_result_of_the_command_counts_whatever_libraries_print(
    read: Read, capfd: pytest.CaptureFixture[str], before: bool
) -> None:
    ours = lines({"kind": "result", "result": RESULT})
    out = [*LIBRARIES, *ours] if before else [*ours, *LIBRARIES]
    assert read(out, LIBRARIES, capfd).result == RESULT
    assert read(LIBRARIES, LIBRARIES, capfd).result is None


def test_json_on_stdout_is_the_contract_unless_a_reader_of_lines_asks_for_its_result(workplace: Workplace) -> None:
    workplace.write("a.parquet", {"d0": "text"})
    plain = revector("plan", "--json", cwd=workplace.root)
    asked = revector("plan", "--json", cwd=workplace.root, environment={"REVECTOR_RESULT": "line"})
    assert json.loads(asked.stdout) == {"kind": "result", "result": json.loads(plain.stdout)}


def test_a_run_of_a_newer_version_is_followed_by_the_store(workplace: Workplace) -> None:
    workplace.write("a.parquet", {"d0": "text"})
    run_id = workplace.apply().run_id
    beat = workplace.root / f"store/_revector/docs/runs/{run_id}/heartbeat.json"
    beat.write_text(json.dumps({"beat": 2, "progress": {"stage": "publish", "images": 7}}))
    attached = revector("attach", str(run_id), "--json", cwd=workplace.root)
    assert (attached.returncode, json.loads(attached.stdout)["run_id"]) == (0, run_id), attached.stderr
