"""A version for other tools: its rows with what reports say of them, and a map of what is there, and of that only."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import export, report
from flows.cli import main as cli
from pipelines.errors import SpecError
from storage.store import spill
from tests.conftest import Workplace
from tests.support.browser import browse
from workers.reports.exporting import Look
from workers.reports.run_reports import Wish

TEXTS = {f"d{number}": f"text {number} of {['cats', 'dogs', 'ships'][number % 3]}" for number in range(60)}


@pytest.fixture
def filled(workplace: Workplace) -> Workplace:
    workplace.write("a.parquet", TEXTS, ["a", "b", "c"] * 20)
    workplace.apply()
    return workplace


def exported(workplace: Workplace, to: str, name: str, **more: Any) -> Path:
    out = workplace.root / name
    made = export("docs", to, out, workplace.config, **more)
    assert made.path == str(out) and made.to == to
    return out


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    return {row["chunk_id"]: row for row in pq.read_table(path).to_pylist()}


def test_rows_are_what_readers_get_flat(filled: Workplace) -> None:
    table = pq.read_table(exported(filled, "parquet", "rows.parquet"))
    assert table.schema.names == ["chunk_id", "doc_id", "text", "vector", "kind"], "nothing was reported, and nothing is made for it"
    assert table.schema.field("vector").type == pa.list_(pa.float32())
    stored = filled.published()
    assert table.sort_by("chunk_id")["text"].equals(stored["text"])
    vectors = [np.array(vector, np.float32) for vector in stored["vector"].to_pylist()]
    assert np.array_equal(np.stack(table.sort_by("chunk_id")["vector"].to_pylist()), np.stack(vectors))


def test_rows_have_what_reports_say_of_them(filled: Workplace) -> None:
    """Also where the tables that are joined do not fit in memory: in the same order."""
    (filled.root / "seeds.csv").write_text("id,label\n" + "".join(f"d{number},{number % 3}\n" for number in range(12)))
    filled.spec(rest='reports = { map = {}, labels = { seeds = "seeds.csv", min_confidence = 0 } }')
    report("docs", config=filled.config)
    whole = exported(filled, "parquet", "rows.parquet")
    with patch.object(spill, "MEMORY_BYTES", 200):
        parts = exported(filled, "parquet", "again.parquet")
    assert whole.read_bytes() == parts.read_bytes()
    rows, places = rows_of(whole), rows_of(exported(filled, "atlas", "atlas.parquet"))
    assert {row["labels_label"] for row in rows.values()} == {"0", "1", "2"} and rows["d4#0"]["labels_confidence"] == 1
    assert list(places["d1#0"]) == ["chunk_id", "text", "x", "y", "cluster", "name", "kind"]
    for chunk_id, row in rows.items():
        there = places[chunk_id]
        assert (row["map_x"], row["map_y"], row["map_cluster"]) == (there["x"], there["y"], there["cluster"]) and there["name"]
    assert list(rows) == list(places), "as in the table"


def test_a_map_tells_of_what_is_there_only(filled: Workplace) -> None:
    """A landmark keeps its place when its content is gone; nothing is told of that content any more."""
    report("docs", ["map"], filled.config)
    filled.write("a.parquet", {name: text for name, text in TEXTS.items() if not name.endswith("7")}, "a")
    filled.apply()
    out = exported(filled, "projector", "projector")
    text = (out / "metadata.tsv").read_text()
    assert text.startswith("chunk_id\tcluster\trows\ttext\tkind\n") and "text 8 of" in text and "text 17 of" not in text
    points = len(text.splitlines()) - 1
    assert len(np.fromfile(out / "tensors.bytes", "<f4")) == points * 16 and sum(map(int, counted(text))) == 54
    page = exported(filled, "page", "page.html").read_text()
    assert "text 8 of" in page and "text 17 of" not in page and "share of rows, version" in page


def counted(text: str) -> list[str]:
    return [line.split("\t")[2] for line in text.splitlines()[1:]]


def test_a_picture_has_the_colours_that_are_asked_for(filled: Workplace) -> None:
    with pytest.raises(SpecError, match="expected an earlier version"):
        exported(filled, "png", "growth.png", look=Look("growth"))
    with pytest.raises(SpecError, match=r"expected clusters, growth or a field of the metadata \(kind\), found colour"):
        exported(filled, "png", "colour.png", look=Look("colour"))
    first = report("docs", ["map"], filled.config).version
    filled.write("b.parquet", {"e1": "text of a new ship", "e2": "another cat"}, "d")
    filled.apply()
    pictures = [
        exported(filled, "png", f"{look.by}.png", look=look, wish=Wish(since=first)) for look in (Look(), Look("kind"), Look("growth"))
    ]
    assert len({path.read_bytes() for path in pictures}) == 3
    assert {path.name for path in filled.root.iterdir() if path.suffix == ".png"} == {path.name for path in pictures}


def test_nothing_is_overwritten(filled: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(filled.root)
    (filled.root / "rows.parquet").write_text("mine")
    with pytest.raises(SpecError, match=r"expected a new path, found .*rows.parquet: name another, or remove it"):
        exported(filled, "parquet", "rows.parquet")
    with pytest.raises(SpecError, match="expected --by and --dark with --to png, found them with --to page"):
        exported(filled, "page", "b.html", look=Look(dark=True))
    with pytest.raises(SpecError, match="expected --to page, png, projector, atlas, parquet, found 'parket'"):
        exported(filled, "parket", "b.parquet")
    assert cli._run(["export", "docs", "nowhere/rows.parquet", "--to", "parquet"], False) == 64
    assert "expected a folder to write to" in capsys.readouterr().err
    assert (filled.root / "rows.parquet").read_text() == "mine"


def test_open_shows_the_page_of_what_was_reported(
    filled: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(filled.root)
    monkeypatch.setenv("TMPDIR", str(filled.root))
    monkeypatch.setattr("tempfile.tempdir", None)
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert cli._run(["report", "docs", "map", "balance", "--open"], False) == 0
    [uri] = opened
    page = Path(uri.removeprefix("file://"))
    assert page.parent.stat().st_mode & 0o077 == 0, "it has ids and texts: nobody else may look"
    told = capsys.readouterr()
    assert str(page) in told.err and max(map(len, told.out.splitlines())) <= 80
    seen = browse(page, filled.root)
    assert seen.complaints == [] and "<h2>balance</h2>" in seen.dom and "docs: 60 chunks by meaning" in seen.dom
