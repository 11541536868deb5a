"""Whatever a person or a document puts into a name or a value, it is compared, and never run or followed."""

import math
import operator
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from flows import commands
from pipelines.content.chunks import vector_schema
from pipelines.errors import RevectorError, SpecError
from pipelines.formats.casts import json_text
from pipelines.spec.parsing import load_spec, parse_spec
from storage.collection import Collection
from storage.history.catalog import Publication, published
from storage.reading.filters import MOST, AnyOf, Condition, _is_number
from storage.reading.published import search_vectors
from storage.store.commit import Change, commit
from storage.store.lance import Store
from tests.conftest import Workplace

PYTHON: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
SIGNS: Any = tuple(PYTHON)
BERLIN = pa.timestamp("us", "Europe/Berlin")
KINDS = {
    "text": pa.string(),
    "whole": pa.int64(),
    "real": pa.float64(),
    "truth": pa.bool_(),
    "day": pa.date32(),
    "moment": pa.timestamp("us"),
    "instant": BERLIN,
}
ODD = [
    "a`b",
    "a'b",
    'a"b',
    "a.b",
    "a b",
    "ü",
    "Upper",
    "_rowaddr",
    "vector",
    "select",
    "new\nline",
    "back\\slash",
    "`",
    "x" * 300,
    "[0]",
    "😀",
]
moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": st.sampled_from(["", "'", "''", "\\'", "\0", "a", "B", "\n", "%", "_", "' OR '1'='1", "🙂"]) | st.text(max_size=5),
    "whole": st.sampled_from([-(1 << 63), (1 << 63) - 1, 0, 1 << 53, (1 << 53) + 1]) | st.integers(-3, 3),
    "real": st.floats() | st.sampled_from([0.0, -0.0, 0.1, math.inf, -math.inf, 5e-324]),
    "truth": st.booleans(),
    "day": st.dates(date(1, 1, 2), date(9999, 1, 1)),
    "moment": moments,
    "instant": moments.map(lambda moment: moment.replace(tzinfo=UTC)),
}
FEW = 6


class Table:
    """A published table of given rows of metadata, and nothing else of a collection."""

    def __init__(self, folder: Path, metadata: pa.StructArray) -> None:
        self.store = Store(str(folder))
        schema = vector_schema(metadata.type, 2, "float32")
        empty = self.store.create("c.vectors.g", schema, {})
        count = len(metadata)
        ids = pa.array([f"d{number}" for number in range(count)])
        columns = {
            "chunk_id": ids,
            "doc_id": ids,
            "text": pa.array([""] * count),
            "metadata": metadata,
            "vector": pa.array([[1.0, float(number)] for number in range(count)], schema.field("vector").type),
        }
        filler = {"ordinal": 0, "start": 0, "end": 0, "content_hash": b"0" * 16, "row_hash": b"0" * 16}
        arrays = [columns[f.name] if f.name in columns else pa.array([filler[f.name]] * count, f.type) for f in schema]
        staged = self.store.stage("c.vectors.g", schema, [pa.RecordBatch.from_arrays(arrays, schema=schema)])
        version = commit(self.store, empty, Change(np.zeros(0, np.uint64), staged), {}).version
        self.publication = Publication("c", 1, "publish", "c.vectors.g", version, "", 0, "", "{}", count, 0, 0, "", "", "", "")

    def search(self, *where: Condition | AnyOf) -> set[str]:
        query = np.ones(2, np.float32)
        return {hit["doc_id"] for hit in search_vectors(self.store, self.publication, query, 1000, where)}


def table_of(folder: Path, rows: dict[str, list[Any]], kinds: dict[str, pa.DataType]) -> Table:
    return Table(folder, pa.StructArray.from_arrays([pa.array(rows[name], kinds[name]) for name in kinds], list(kinds)))


def meets(value: Any, condition: Condition) -> bool:
    """What a person would say."""
    absent = value is None or (isinstance(value, float) and math.isnan(value))
    return not absent and PYTHON[condition.operator](value, condition.value)


def expected(rows: dict[str, list[Any]], *conditions: Condition) -> set[str]:
    count = len(next(iter(rows.values())))
    return {f"d{row}" for row in range(count) if all(meets(rows[each.field][row], each) for each in conditions)}


several = {name: st.lists(st.none() | values, min_size=FEW, max_size=FEW) for name, values in VALUES.items()}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.fixed_dictionaries(several), data=st.data())
def test_a_search_finds_what_the_same_condition_finds_in_python(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, list[Any]], data: st.DataObject
) -> None:
    table = table_of(tmp_path_factory.mktemp("table"), rows, KINDS)
    for name, values in VALUES.items():
        known = [value for value in rows[name] if value is not None and value == value]
        value = data.draw((st.sampled_from(known) | values if known else values).filter(lambda value: value == value))
        for sign in SIGNS:
            condition = Condition(name, value, sign)
            if name == "text" and sign in ("<", "<=", ">", ">=") and _is_number(value):
                with pytest.raises(SpecError, match="where 9 comes after 10"):
                    table.search(condition)
                continue
            assert table.search(condition) == expected(rows, condition), condition
    both = Condition("text", "a", ">="), Condition("whole", 0, "<=")
    assert table.search(*both) == expected(rows, *both)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """Columns of odd names, each with `yes` in the row of its place."""
    rows = {name: ["yes" if place == row else "no" for row in range(len(ODD))] for place, name in enumerate(ODD)}
    return table_of(tmp_path_factory.mktemp("odd"), rows, dict.fromkeys(ODD, pa.string()))


@pytest.mark.parametrize(("place", "name"), enumerate(ODD), ids=lambda value: str(value)[:12].encode("unicode_escape").decode())
def test_a_column_may_have_any_name(odd: Table, place: int, name: str) -> None:
    assert odd.search(Condition(name, "yes")) == {f"d{place}"}


ANYTHING = st.text(st.characters(), max_size=30) | st.sampled_from(
    ["'", "x' OR '1'='1", "\\", "\0", "a" * 100_000, "repeat('a', 300000000)", "\ud800"]
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(field=st.sampled_from(["doc_id", *ODD]) | ANYTHING, value=ANYTHING, sign=st.sampled_from(SIGNS) | ANYTHING)
def test_any_text_is_a_value_or_one_error(odd: Table, field: str, value: str, sign: Any) -> None:
    try:
        found = odd.search(Condition(field, value, sign))
    except SpecError as error:
        assert "\n" not in str(error)
        return
    rows = {"doc_id": [f"d{place}" for place in range(len(ODD))]}
    rows |= {name: ["yes" if place == row else "no" for row in range(len(ODD))] for place, name in enumerate(ODD)}
    assert found == expected(rows, Condition(field, value, sign))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.int64(), "2020.5"),
        (pa.int64(), "9223372036854775808"),
        (pa.int64(), "1 OR 1=1"),
        (pa.float64(), "nan"),
        (pa.float64(), float("nan")),
        (pa.bool_(), "maybe"),
        (pa.date32(), "yesterday"),
        (pa.timestamp("us"), "2026-01-01T00:00:00Z"),
        (BERLIN, "2026-01-01 00:00"),
        (pa.string(), b"\xff"),
        (pa.string(), None),
        (pa.string(), ["a"]),
    ],
)
def test_a_value_that_is_not_of_the_column_is_an_error_that_names_its_type(tmp_path: Path, kind: pa.DataType, value: Any) -> None:
    table = table_of(tmp_path, {"x": [None]}, {"x": kind})
    with pytest.raises(SpecError, match=r"expected (string|int64|double|bool|date32|timestamp).* for x, found"):
        table.search(Condition("x", value))


def test_values_may_be_typed_as_text(tmp_path: Path) -> None:
    noon = datetime(2026, 7, 1, 12, tzinfo=UTC)
    rows = {
        "whole": [3, 4],
        "real": [0.1, 1.0],
        "truth": [True, False],
        "day": [date(2026, 7, 1), date(2026, 7, 2)],
        "instant": [noon, None],
    }
    table = table_of(tmp_path, rows, {name: KINDS[name] for name in rows})
    texts = {"whole": "3", "real": "0.1", "truth": "true", "day": "2026-07-01", "instant": "2026-07-01 14:00+0200"}
    for name, text in texts.items():
        assert table.search(Condition(name, text)) == {"d0"}, name
    assert table.search(Condition("instant", noon.astimezone(timezone(timedelta(hours=5))))) == {"d0"}


LISTS = st.lists(st.sampled_from(["a", "b'", ",", "x", 'a"b', "\\", "ü\n", "", "]", "[", "](", "None"]) | st.text(max_size=3), max_size=3)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(LISTS, min_size=3, max_size=3), data=st.data())
def test_a_list_contains_its_elements_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], data: st.DataObject
) -> None:
    value = data.draw(st.sampled_from([each for row in rows for each in row] or ["a"]) | st.sampled_from(["a", ",", "][", '","']))
    table = table_of(tmp_path_factory.mktemp("lists"), {"tags": [json_text(row) for row in rows]}, {"tags": pa.string()})
    assert table.search(Condition("tags", value, "contains")) == {f"d{place}" for place, row in enumerate(rows) if value in row}


def test_contains_is_asked_of_numbers_in_lists_and_of_plain_texts(tmp_path: Path) -> None:
    rows = {"x": ["[2019,2020.0,true]", "of 2020 and more", None, '["2020"]', "[12020]", '[["2020"]]', "[]"]}
    table = table_of(tmp_path, rows, {"x": pa.string()})
    assert table.search(Condition("x", "2020", "contains")) == {"d0", "d1", "d3", "d5"}
    assert table.search(Condition("x", "true", "contains")) == {"d0"}
    assert table.search(Condition("x", "of", "contains")) == {"d1"}


def test_one_of_several_values_or_conditions_is_enough(tmp_path: Path) -> None:
    rows = {"lang": ["en", "de", "fr", None], "year": [1, 2, 3, 4]}
    table = table_of(tmp_path, rows, {"lang": pa.string(), "year": pa.int64()})
    assert table.search(Condition("lang", ("en", "fr"), "in")) == {"d0", "d2"}
    assert table.search(Condition("year", (2, "3"), "in"), Condition("lang", "de")) == {"d1"}
    either = AnyOf((Condition("lang", "en"), Condition("year", 3, ">=")))
    assert table.search(either) == {"d0", "d2", "d3"}
    assert table.search(either, Condition("year", 3, "<")) == {"d0"}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (Condition("year", "1", "contains"), "expected an operator of = != < <= > >= in for year, which is int64, found 'contains'"),
        (Condition("year", ("1", "x"), "in"), "expected int64 for year, found 'x'"),
        (Condition("year", (), "in"), "expected a condition or a value, found none"),
        (AnyOf(()), "expected a condition or a value, found none"),
        (AnyOf((Condition("lang", "a"), Condition("yeer", "1"))), "expected a field of lang, year, doc_id, found 'yeer'"),
        (Condition("lang", range(5), "in"), "expected string for lang"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_can_be(tmp_path: Path, where: Condition | AnyOf, said: str) -> None:
    table = table_of(tmp_path, {"lang": ["a"], "year": [1]}, {"lang": pa.string(), "year": pa.int64()})
    with pytest.raises(SpecError, match=re.escape(said)):
        table.search(where)


def test_conditions_are_few(odd: Table) -> None:
    with pytest.raises(SpecError, match=f"expected at most {MOST} conditions and values of `in`, found 100000"):
        odd.search(*[Condition("doc_id", "d0")] * 100_000)


@pytest.fixture
def filled(workplace: Workplace) -> Workplace:
    workplace.write("a.parquet", {f"d{number}": f"text {number}" for number in range(4)}, kind=["a", "b", "b", "a=b"])
    workplace.apply()
    return workplace


def test_the_command_line_takes_all_operators(filled: Workplace) -> None:
    from flows.cli.conditions import parse_condition

    def found(*texts: str) -> set[str]:
        return {hit["doc_id"] for hit in commands.search("docs", "text", filled.config, where=map(parse_condition, texts))}

    assert found("kind=a") == {"d0"}
    assert found("kind!=a") == {"d1", "d2", "d3"}
    assert found("kind>a", "doc_id<=d2") == {"d1", "d2"}
    assert found("kind=a=b") == {"d3"}
    assert found("kind<=") == set()
    assert found("kind in a, b") == {"d0", "d1", "d2"}
    assert found('kind IN ("a=b")', "doc_id contains 3") == {"d3"}
    assert found("kind=a or doc_id >= d3") == {"d0", "d3"}
    assert found('kind="a" OR doc_id=d1', "doc_id != d0") == {"d1"}
    assert found("kind=a or b") == found('kind="a or doc_id=d1"') == set()


NAMES = st.sampled_from(
    [
        "..",
        "../../etc",
        "/etc",
        "a/b",
        "a\\b",
        "%2e%2e%2f",
        "a%00b",
        "docs/../docs",
        "x" * 300,
        "docs.vectors",
        "",
        ".",
        "~",
        "s3://x",
        "docs ",
    ]
) | st.text(max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=NAMES, generation=NAMES)
@example("docs", "\0")
def test_no_name_leads_out_of_the_store(filled: Workplace, name: str, generation: str) -> None:
    """Nor anywhere else than to what has that name: whoever is asked says so in one line, and nothing is there that was not before."""
    own = published(Collection(Store(filled.store), "docs")).generation
    assume(not generation or not own.rpartition(".")[2].startswith(generation))
    before = sorted(path for path in filled.root.rglob("*"))
    config = filled.config
    calls: list[Callable[[], Any]] = [
        lambda: commands.promote("docs", generation, config),
        lambda: commands.drop("docs", generation, config),
        lambda: commands.evaluate("docs", generation, config),
        lambda: commands.compare("docs", generation, generation, config),
    ]
    if name != "docs":
        calls += [
            lambda: commands.search(name, "x", config),
            lambda: commands.promote(name, generation, config),
            lambda: commands.diff(name, 1, 2, config),
            lambda: commands.plan(name, config),
            lambda: commands.rollback(name, config),
            lambda: commands.history(name, config),
        ]
    for call in calls:
        try:
            call()
        except RevectorError as error:
            assert "\n" not in str(error)
        else:
            pytest.fail(f"{name!r}, {generation!r}: found something")
    assert sorted(path for path in filled.root.rglob("*")) == before


def places() -> Iterator[str]:
    yield from (
        "s3://b/../c",
        "s3://bucket/a/../b",
        "s3://bucket/a/./b",
        "s3://bucket//a",
        "s3://bucket/a//b",
        "s3://../a",
        "s3://bucket/a%2e%2e%2fb",
    )
    yield from (
        "s3://bucket/a?b",
        "s3://bucket/a#b",
        "s3://bucket/a\\b",
        "s3:///a",
        "s3://",
        "S3://bucket",
        "file:///etc",
        "https://host/a",
    )
    yield from ("simplecache::s3://bucket/a", "s3://bucket/\0", "a\0b", "a\nb", "\ud800", "s3://key:secret@bucket/a")


@pytest.mark.parametrize("store", places())
def test_a_store_that_would_be_two_places_or_none_is_refused(store: str) -> None:
    with pytest.raises(SpecError, match="store: expected a") as raised:
        parse_spec({"store": store, "collections": {"a": {"source": {"uri": "data"}}}}, Path("/base"))
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@settings(max_examples=100, deadline=None)
@given(text=NAMES)
@example("\0")
@example("/dev/null")
@example("/")
def test_any_config_is_a_spec_or_one_error(text: str) -> None:
    with pytest.raises(SpecError):
        load_spec(text, environ={})


@pytest.mark.parametrize("names", [[""], ["a", "a"], ["a\0b"]])
def test_names_of_metadata_that_no_table_can_have_are_refused(names: list[str]) -> None:
    with pytest.raises(SpecError, match=r"source\.metadata.*expected"):
        parse_spec({"collections": {"a": {"source": {"uri": "data", "metadata": names}}}}, Path("/base"))
