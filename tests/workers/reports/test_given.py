"""Files that reports are given: what is read, and what is refused without a word of what is in them."""

import pytest

from pipelines.errors import SpecError
from workers.reports.given import given_labels, given_rows, number

SECRET = "a text that nobody may keep"


def test_csv_and_json_lines_say_the_same() -> None:
    expected = [("d1", "a, b"), ("2", 'say "c"')]
    assert given_rows("key", b'\xef\xbb\xbfid,more,label\nd1,x,"a, b"\n2,y,"say ""c"""\n', ("id", "label")) == expected
    assert given_rows("key", b'{"id": "d1", "label": "a, b"}\n\n{"label": "say \\"c\\"", "id": 2}\n', ("id", "label")) == expected


@pytest.mark.parametrize(
    "content",
    [
        f"id,text\nd1,{SECRET}\n",
        f'{{"id": "d1", "label": ["{SECRET}"]}}',
        f'{{"id": "d1", "label": "{SECRET}"',
        f"id,label\nd1,{SECRET}\nd1,b\n",
        f"id,label\n,{SECRET}\n",
        f"{SECRET}\xe4",
    ],
)
def test_what_is_not_right_is_refused_and_not_repeated(content: str) -> None:
    with pytest.raises(SpecError, match="key: expected") as refused:
        given_labels("key", content.encode("latin-1"))
    assert SECRET not in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", [SECRET, "nan", "inf", ""])
def test_a_score_is_a_number(text: str) -> None:
    with pytest.raises(SpecError, match="expected numbers") as refused:
        number("key", text)
    assert SECRET not in str(refused.value)
