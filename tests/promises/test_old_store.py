"""A store that an earlier version wrote opens, is updated, and rolls back.

`before-the-house.tar.gz` was written by commit dee8d86, the last with flat packages: three runs of the stand-in with a dead letter, a
candidate that was promoted and rolled back, evaluations, and no upkeep since.
"""

import json
import tarfile
from pathlib import Path

import pytest

from flows import apply, diff, evaluate, history, maintain, plan, promote, resume, rollback, search, status
from storage import open_published

WRITTEN = Path(__file__).parents[1] / "support/stores/before-the-house.tar.gz"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(WRITTEN) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "revector.toml"


def texts() -> dict[str, str]:
    rows = open_published("store", "docs").table.to_arrow()
    assert len(rows) == len(set(rows["chunk_id"].to_pylist()))
    return dict(zip(rows["chunk_id"].to_pylist(), rows["text"].to_pylist(), strict=True))


def test_it_is_read_as_it_was_left(config: Path) -> None:
    assert len(texts()) == 24
    (collection,) = status(None, config)["collections"]
    assert [generation["state"] for generation in collection["generations"]] == ["published", "built"]
    assert (collection["dead_letters"], collection["backlog"]) == (1, 0)
    kept = history("docs", config)
    assert [row["action"] for row in kept["published"]] == ["publish", "publish", "promote", "rollback"]
    assert (len(kept["runs"]), len(kept["evaluations"])) == (3, 4)
    assert search("docs", "the tide", config, k=3, where=[("kind", "letter")])
    assert evaluate("docs", config=config).passed


def test_nothing_is_embedded_again(config: Path) -> None:
    planned = plan(config=config)
    assert (planned.documents["unchanged"], planned.embed["contents"]) == (13, 0)
    done = apply(config=config)
    assert (done.dead_letters, done.exit_code, done.embed["contents"]) == (1, 4, 0)


def test_it_is_updated_looked_after_and_rolled_back(config: Path) -> None:
    before = texts()
    added = {"id": "later", "text": "What this version of the program adds.", "kind": "note"}
    (config.parent / "data/c.jsonl").write_text(json.dumps(added) + "\n")
    done = apply(config=config)
    assert (done.status, texts()) == ("pinned", before)  # by a rollback that the version before took for the last word
    candidate = next(generation.generation for generation in done.generations if generation.role == "candidate")
    assert resume("docs", config).generation == candidate  # which had been promoted before
    assert (done.exit_code, done.documents["added"], done.embed["contents"]) == (4, 1, 1)  # the candidate is a cut of the main one
    assert texts() == before | {"later#0": added["text"]}
    promote("docs", done.generation, config)
    assert diff("docs", 4, done.version or 0, config)["chunks"]["added"] == 1
    rollback("docs", config, to=4)
    assert texts() == before
    maintain(config=config)
    assert texts() == before
    promote("docs", candidate, config)
    assert open_published("store", "docs").space["dimension"] == 4
