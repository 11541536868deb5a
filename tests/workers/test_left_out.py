"""What of a corpus is not read is said: files of no known format, and files that do not have what the spec names."""

import pytest

from flows.show import terminal
from pipelines.errors import SourceError
from tests.conftest import Workplace


def source(more: str) -> str:
    return 'uri = "data", id = "id", text = "text"' + more


def test_files_of_no_known_format_are_counted_by_suffix(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    workplace.write("a.parquet", {"d0": "a text"})
    for name in ("b.rst", "c.RST", "more/d.rst", "e.tar.gz", "f.parquet.gz", "Makefile", ".hidden.rst", "_tmp/g.rst", "h.png"):
        path = workplace.root / "data" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("text")
    workplace.spec(source=source(""))
    ignored = {".rst": 3, ".tar.gz": 1, ".parquet.gz": 1, "": 1, ".png": 1}
    assert workplace.plan().ignored == workplace.apply().ignored == workplace.apply().ignored == ignored
    terminal.plan(workplace.plan())
    assert "ignored: 3 .rst, 1 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "spec", "reason"),
    [
        ("a.csv", "id,text\n1,x\n", ', metadata = "lang"', r"source\.metadata: .*'lang', found 0 among id, text"),
        ("a.csv", "id,texts\n1,x\n", "", r"source\.text: .*'text', found 0 among id, texts; did you mean 'texts'\?"),
        ("a.csv", "id;text\n1;x\n", "", r"source\.id: .*'id', found 0 among id;text.*; is source\.delimiter ';'\?"),
        ("a.jsonl", '{"id": 1, "text": "x", "meta": {"lang": "de"}}', ', metadata = "meta.lang"', r"'meta\.lang'.* within a column"),
    ],
)
def test_columns_that_no_file_has_are_an_error_that_names_those_that_are_there(
    workplace: Workplace, name: str, content: str, spec: str, reason: str
) -> None:
    (workplace.root / "data").mkdir(exist_ok=True)
    (workplace.root / "data" / name).write_text(content)
    workplace.spec(source=source(spec), rest="gates = { max_failed = 1 }")
    for attempt in (workplace.plan, workplace.apply, workplace.apply):
        with pytest.raises(SourceError, match=f"{reason}.*of 1 files none"):
            attempt()


def test_a_plan_says_why_some_files_cannot_be_used(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    workplace.write("a.parquet", {"d0": "a text"})
    for name in ("b", "c"):
        (workplace.root / f"data/{name}.csv").write_text("id,texts\n1,x\n")
    workplace.spec(source=source(""), rest="gates = { max_failed = 1 }")
    (reason,) = workplace.plan().reasons
    assert (reason.count, "did you mean 'texts'?" in reason.reason) == (2, True)
    terminal.plan(workplace.plan())
    assert "2: source.text: expected one column 'text'" in capsys.readouterr().out
    assert workplace.apply().dead_letters == 2
