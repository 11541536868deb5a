"""A value is kept exactly, or costs itself: it never becomes another value, and never costs what is beside it."""

import datetime
import decimal
import json
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.spec.declared import LimitsSpec, SourceSpec
from storage.sources.opening import DEFAULT_LIMITS, open_source

BIG = 98765432109876543210987


def read(folder: Path, limits: LimitsSpec = DEFAULT_LIMITS, **options: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Of all files: id -> (text, metadata) and id or place -> reason."""
    corpus = open_source(SourceSpec(uri=str(folder), **({"id": "id", "text": "text"} | options)), limits)
    files = corpus.files()
    kept = corpus.metadata_type(files)
    documents, dead = {}, {}
    for shard in corpus.shards(files, 1 << 20):
        for batch in corpus.read(shard, kept):
            documents |= {row["doc_id"]: (row["text"], row.get("metadata")) for row in batch.documents.to_pylist()}
            dead |= {letter.id: letter.reason for letter in batch.dead}
    return documents, dead


def test_a_whole_number_of_json_keeps_its_digits(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"id": 1, "text": "one", "s": "x", "i": 1, "f": 0.5, "h": {BIG}}}\n')
    (tmp_path / "b.jsonl").write_text(
        f'{{"id": {BIG}, "text": {BIG}, "s": {{"n": [{BIG}, 1e30]}}, "i": 2, "f": 1e30, "h": 1}}\n'
        f'{{"id": 2, "text": "two", "s": "x", "i": {BIG}, "f": 1}}\n'
        f'{{"id": 3, "text": "three", "s": "x", "i": 3, "f": {(1 << 53) + 1}}}\n'
        f'{{"id": 4, "text": {"9" * 5000}}}\n'
    )
    documents, dead = read(tmp_path, metadata=["s", "i", "f", "h"])
    assert documents == {
        "1": ("one", {"s": "x", "i": 1, "f": 0.5, "h": str(BIG)}),
        str(BIG): (str(BIG), {"s": f'{{"n":[{BIG},1e+30]}}', "i": 2, "f": 1e30, "h": "1"}),
        "2": ("two", {"s": "x", "i": None, "f": 1.0, "h": None}),
        "3": ("three", {"s": "x", "i": 3, "f": None, "h": None}),
    }
    assert ("'i'" in dead["2"], "'f'" in dead["3"], dead.keys()) == (True, True, {"2", "3", "line 4"})


def test_int96_timestamps_keep_their_value(tmp_path: Path) -> None:
    when = [datetime.datetime(2024, 1, 1, 1, 2, 3, 456789), datetime.datetime(9999, 12, 31), datetime.datetime(1200, 1, 1)]
    table = pa.table({"id": ["a", "b", "c"], "text": ["x"] * 3, "when": pa.array(when, pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    documents, dead = read(tmp_path, metadata="when")
    assert ([kept["when"] for _, kept in documents.values()], dead) == (when, {})


def test_bytes_in_a_list_are_text_or_cost_the_list(tmp_path: Path) -> None:
    tags = pa.array([[b"one", "zwölf".encode()], [b"\xff"]], pa.list_(pa.binary()))
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["x", "y"], "tags": tags}), tmp_path / "a.parquet")
    documents, dead = read(tmp_path, metadata="tags")
    assert documents == {"a": ("x", {"tags": '["one","zwölf"]'}), "b": ("y", {"tags": None})}
    assert dead.keys() == {"b"}


def test_an_invalid_record_of_a_csv_file_costs_itself_whatever_bytes_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,text,note\n1,eins,n\n2,caf" + b"\xe9,n,EXTRA\n3,caf\xe9,n\n4,vier,\xe9\n")
    documents, dead = read(tmp_path)
    assert documents == {"1": ("eins", None), "4": ("vier", None)}
    assert {"fields" in dead["row 2"], "UTF-8" in dead["3"]} == {True}


@pytest.mark.parametrize("limit", range(40, 60))
def test_a_line_break_within_quotes_stays_whole_wherever_a_block_ends(tmp_path: Path, limit: int) -> None:
    (tmp_path / "a.csv").write_bytes(b'id,text\r\na,"' + b"o\r\n" * 12 + '"\r\nb,"zwö\r\nlf"\r\n'.encode())
    documents, dead = read(tmp_path, limits=LimitsSpec(document_bytes=limit))
    assert (documents, dead) == ({"a": ("o\r\n" * 12, None), "b": ("zwö\r\nlf", None)}, {})


@pytest.mark.parametrize(("delimiter", "encoding"), [(";", "cp1252"), ("\t", "utf-16"), (",", "latin-1")])
def test_csv_of_another_dialect(tmp_path: Path, delimiter: str, encoding: str) -> None:
    rows = [["id", "text"], ["ä", "für\u00a0alle, 12\r\nÄpfel"], ["b", "x;y"]]
    lines = [delimiter.join(f'"{field}"' for field in row) for row in rows]
    (tmp_path / "a.csv").write_bytes("\r\n".join(lines).encode(encoding))
    (tmp_path / "b.csv").write_bytes(b"\x00\xd8id,text\nc,x\n" if encoding == "utf-16" else b"id\nc\n")
    documents, dead = read(tmp_path, delimiter=delimiter, encoding=encoding)
    assert (documents, dead.keys()) == ({row[0]: (row[1], None) for row in rows[1:]}, {""})


def test_a_point_in_time_beyond_the_calendar_costs_its_row(tmp_path: Path) -> None:
    last = 253402300799  # the last second of the year 9999
    when = pa.array([0, last, last + 1, -(1 << 40)], pa.timestamp("s"))
    columns = {
        "zoned": pa.array([0, last, 0, 0], pa.timestamp("s", "Europe/Berlin")),
        "nested": pa.array([[0], [0], [last], [last + 1]], pa.list_(pa.timestamp("s"))),
        "day": pa.array([0, 0, 0, 1 << 30], pa.date32()),
    }
    for name, column in {"when": when, **columns}.items():
        table = pa.table({"id": [f"{name}-{n}" for n in range(4)], "text": ["x"] * 4, "value": column})
        (tmp_path / name).mkdir()
        pq.write_table(table, tmp_path / name / "a.parquet")
    dead = {name: read(tmp_path / name, metadata="value")[1].keys() for name in ("when", *columns)}
    assert dead == {"when": {"when-2", "when-3"}, "zoned": {"zoned-1"}, "nested": {"nested-3"}, "day": {"day-3"}}


def test_a_time_zone_that_nobody_knows_is_utc_and_costs_the_list_that_it_is_in(tmp_path: Path) -> None:
    when = pa.array([0, 1], pa.timestamp("s", "Mars/Olympus"))
    nested = pa.array([[], [1]], pa.list_(when.type))
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["x"] * 2, "when": when, "list": nested}), tmp_path / "a.parquet")
    (documents, dead), epoch = read(tmp_path, metadata=["when", "list"]), datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert documents["a"] == ("x", {"when": epoch, "list": "[]"})
    assert (documents["b"][1]["when"] - epoch, documents["b"][1]["list"], dead.keys()) == (datetime.timedelta(seconds=1), None, {"b"})


TYPES = {"i": "int", "f": "float", "b": "bool", "t": "timestamp", "d": "date", "s": "string"}
ODD = {"i": ["20.5", "x"], "f": ["true", "x"], "b": ["2", "x"], "t": ["12", "soon"], "d": ["1", "2024-13-01"], "s": []}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_metadata_has_the_types_that_are_declared_in_every_format(tmp_path: Path, suffix: str) -> None:
    day = datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC)
    expected = {"i": 20, "f": 3.0, "b": True, "t": day, "d": day.date(), "s": "007"}
    values = {"i": "20", "f": "3", "b": "true", "t": "2024-02-29", "d": "2024-02-29", "s": "007"}
    rows = [{"id": "good", "text": "x", **values}, {"id": "null", "text": "x", **dict.fromkeys(values, "")}]
    rows += [{"id": f"{name}{n}", "text": "x", **values, name: odd} for name, odds in ODD.items() for n, odd in enumerate(odds)]
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    elif suffix == "csv":
        (tmp_path / "a.csv").write_text("\n".join(",".join(row) for row in [list(rows[0]), *(list(row.values()) for row in rows)]))
    else:
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    documents, dead = read(tmp_path, metadata=TYPES)
    kept = {f"{name}{n}": ("x", {**expected, name: None}) for name, odds in ODD.items() for n in range(len(odds))}
    assert documents == {"good": ("x", expected), "null": ("x", {**dict.fromkeys(expected), "s": ""}), **kept}
    assert dead.keys() == kept.keys()


def test_a_value_of_another_kind_is_no_number_and_no_time(tmp_path: Path) -> None:
    rows = [{"i": True}, {"f": False}, {"b": 1}, {"t": 1_700_000_000}, {"d": 19_000}]
    lines = [{"id": f"bad-{n}", "text": "x", **row} for n, row in enumerate(rows)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [*lines, {"id": "good", "text": "x", "i": 7, "f": 7, "b": False, "s": 7}])))
    when = pa.array([datetime.datetime(2024, 1, 1, 12)], pa.timestamp("ns"))
    pq.write_table(
        pa.table({"id": ["p"], "text": ["x"], "t": when, "d": when, "i": [2.0], "f": [2]} | {"b": [None], "s": [1.5]}),
        tmp_path / "b.parquet",
    )
    documents, dead = read(tmp_path, metadata=TYPES)
    assert dead.keys() == {line["id"] for line in lines}
    assert documents["good"][1] == {"i": 7, "f": 7.0, "b": False, "t": None, "d": None, "s": "7"}
    noon = datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.UTC)
    assert documents["p"][1] == {"i": 2, "f": 2.0, "b": None, "t": noon, "d": noon.date(), "s": "1.5"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "txt"])
def test_columns_that_folders_are_named_by_are_metadata(tmp_path: Path, suffix: str) -> None:
    for n, folder in enumerate(["lang=de/year=2024", "lang=a%20b/year=2025", "lang=__HIVE_DEFAULT_PARTITION__/year=soon"]):
        path = tmp_path / folder / f"{n}.{suffix}"
        path.parent.mkdir(parents=True)
        if suffix == "parquet":
            pq.write_table(pa.table({"id": [str(n)], "text": ["x"]}), path)
        else:
            path.write_text({"csv": f"id,text\n{n},x\n", "jsonl": f'{{"id": {n}, "text": "x"}}', "txt": "x"}[suffix])
    documents, dead = read(tmp_path, metadata={"lang": "auto", "year": "int"})
    expected = [{"lang": None, "year": None}, {"lang": "a b", "year": 2025}, {"lang": "de", "year": 2024}]
    assert [kept for _, kept in documents.values()] == expected
    assert ["'year'" in reason for reason in dead.values()] == [True]


def test_a_column_of_the_file_goes_before_the_folder_it_is_in(tmp_path: Path) -> None:
    (tmp_path / "text=a").mkdir()
    (tmp_path / "text=a" / "a.csv").write_text("id,text\n1,x\n")
    assert read(tmp_path, metadata=["text"])[0] == {"1": ("x", {"text": "x"})}


def test_uuids_decimals_bytes_and_unsigned_numbers_are_ids(tmp_path: Path) -> None:
    raw = bytes(range(16))
    columns = {
        "00010203-0405-0607-0809-0a0b0c0d0e0f": pa.array([uuid.UUID(bytes=raw)], pa.uuid()),
        "000102030405060708090a0b0c0d0e0f": pa.array([raw], pa.binary(16)),
        str(BIG): pa.array([decimal.Decimal(BIG)], pa.decimal128(38, 0)),
        "18446744073709551615": pa.array([(1 << 64) - 1], pa.uint64()),
    }
    for n, column in enumerate(columns.values()):
        pq.write_table(pa.table({"id": column, "text": ["x"], "kept": column}), tmp_path / f"{n}.parquet")
    documents, dead = read(tmp_path, metadata="kept")
    assert (documents, dead) == ({id: ("x", {"kept": id}) for id in columns}, {})
