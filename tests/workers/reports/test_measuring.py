"""What reports measure of a version: groups, associations, tasks, drift and labels; and the gates that their limits set.

The stand-in's vectors depend on the text alone: documents of one text are one point, those of different texts lie anywhere.
"""

import csv
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import apply, evaluate, plan, report
from pipelines.errors import SpecError
from storage.reports.atlas import Atlas
from storage.store.lance import Store
from tests.conftest import Workplace
from workers.reports import beside, held_out
from workers.reports.analyses import labels
from workers.reports.atlas import fitting
from workers.reports.run_reports import Reported

SOURCE = 'uri = "data/*.parquet", id = "id", text = "text", metadata = ["topic", "lang"]'
TOPICS = 6
COUNT = 600


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with patch.multiple(held_out, TRAIN=300, TEST=150), patch.object(beside, "SHARD_ROWS", 97), patch.object(labels, "SHARD_ROWS", 97):
        yield


def corpus(count: int = COUNT, lost: str = "") -> dict[str, list[Any]]:
    """Documents of six topics, each with 5 texts; in the language `lost` the topics do not show."""
    chance, rows = random.Random(1), {"id": [], "text": [], "topic": [], "lang": []}
    for number in range(count):
        topic, lang = chance.randrange(TOPICS), chance.choice(["de", "en", "en", "en", None])
        text = f"nothing to tell {number}" if lang == lost else f"topic {topic} text {chance.randrange(5)}"
        for name, value in zip(rows, (f"d{number}", text, f"t{topic}", lang), strict=True):
            rows[name].append(value)
    return rows


def write(workplace: Workplace, rows: Mapping[str, Sequence[Any]], name: str = "a.parquet") -> None:
    pq.write_table(pa.table(rows), workplace.root / "data" / name)


def declare(workplace: Workplace, rest: str = "", dimensions: int = 16) -> None:
    workplace.spec(model=f'name = "hash", dimensions = {dimensions}', source=SOURCE, rest=rest)


def summary(workplace: Workplace, kind: str) -> dict[str, Any]:
    return found(workplace, kind).reports[0].summary


def found(workplace: Workplace, kind: str) -> Reported:
    return report("docs", [kind], workplace.config)


def lines(workplace: Workplace, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    (workplace.root / name).write_bytes(b"\n".join(map(orjson.dumps, rows)))


def table(workplace: Workplace, name: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with (workplace.root / name).open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def test_groups_are_told_with_their_share_and_place(workplace: Workplace) -> None:
    declare(workplace)
    write(workplace, corpus())
    workplace.apply()
    made = summary(workplace, "balance")
    groups = {(group["field"], group["value"]): group for group in made["groups"]}
    assert {field for field, _ in groups} == {"topic", "lang"}
    assert sum(group["rows"] for (field, _), group in groups.items() if field == "lang") == COUNT
    assert groups["lang", "(no value)"]["share"] == pytest.approx(0.2, abs=0.05)
    assert 0 < groups["lang", "en"]["distance"] < groups["topic", "t1"]["distance"]
    assert made["imbalance"] is None


def test_of_many_values_the_most_frequent_are_groups(workplace: Workplace) -> None:
    workplace.spec(source=SOURCE.replace('"lang"]', '"id2"]'), rest='reports = { balance = { fields = ["id2"] } }')
    rows = corpus(200)
    write(workplace, {**rows, "id2": [f"v{number}" if number > 40 else "often" for number in range(200)]})
    workplace.apply()
    groups = summary(workplace, "balance")["groups"]
    assert [group["rows"] for group in groups] == [41, *[1] * 49, 110]
    assert (groups[0]["value"], groups[-1]["value"]) == ("often", "(others)")


def test_a_group_that_is_served_worse_is_found_and_held_against_the_limit(workplace: Workplace) -> None:
    declare(workplace, 'reports = { balance = { fields = ["lang"], label = "topic" } }\ngates = { max_imbalance = 0.1 }')
    write(workplace, corpus())
    assert workplace.apply().status == "published"
    clean = found(workplace, "balance")
    assert clean.exit_code == 0 and clean.reports[0].summary["imbalance"] <= 0.1
    write(workplace, corpus(lost="de"))
    done = workplace.apply()
    [gate] = [gate for gate in done.gates if gate.name == "balance"]
    assert (done.status, gate.passed) == ("built", False)
    assert gate.detail.startswith("knn error of one group of lang is") and "de'" not in gate.detail
    assert gate.value is not None and gate.value > 0.3


def test_labelled_queries_are_counted_by_the_group_of_what_answers_them(workplace: Workplace) -> None:
    rows = corpus()
    rows["text"] = [f"{text} of {name}" for text, name in zip(rows["text"], rows["id"], strict=True)]
    asked = [
        {"query": text if lang != "de" else f"other {text}", "relevant": [name]}
        for name, text, lang in zip(rows["id"][:400], rows["text"], rows["lang"], strict=False)
    ]
    lines(workplace, "queries.jsonl", asked)
    declare(workplace, 'gates = { queries = "queries.jsonl", max_ndcg_drop = 1, max_imbalance = 0.3 }')
    write(workplace, rows)
    assert workplace.apply().status == "built"
    evaluation = evaluate("docs", plan(config=workplace.config).generation, workplace.config)
    [gate] = [gate for gate in evaluation.gates if gate.name == "balance"]
    assert gate.value is not None and gate.value > 0.5 and gate.detail.startswith("missed of one group of lang is")


def test_associations_are_of_the_models_own_vectors(workplace: Workplace) -> None:
    tests = '[mine]\ntargets = { x = ["a", "b", "c"], y = ["d", "e", "f"] }\nattributes = { p = ["g", "h"], q = ["i", "j"] }'
    (workplace.root / "words.toml").write_text(tests)
    declare(workplace, 'reports = { bias = { words = "words.toml", sentence = "{}" } }\ngates = { max_bias = 2 }')
    write(workplace, corpus(30))
    done = workplace.apply()
    assert [gate.passed for gate in done.gates if gate.name == "bias"] == [True]
    made = summary(workplace, "bias")
    assert [(one["name"], one["exact"], one["missing"]) for one in made["tests"]] == [("mine", True, 0)]
    (workplace.root / "words.toml").write_text("[mine]\ntargets = 1")
    with pytest.raises(SpecError, match=r"reports.bias.words: mine.targets: expected two lists"):
        found(workplace, "bias")


def test_labels_of_a_field_or_a_file_are_told_from_those_of_other_documents(workplace: Workplace) -> None:
    rows = corpus()
    declare(workplace, 'reports = { tasks = { label = "topic" } }\ngates = { min_accuracy = 0.9 }')
    write(workplace, rows)
    done = workplace.apply()
    assert [(gate.name, gate.passed) for gate in done.gates][-1] == ("accuracy", True)
    by_field = summary(workplace, "tasks")["labels"]
    assert (by_field["labels"], by_field["rows"], by_field["held_out"]) == (TOPICS, COUNT, 150)
    assert by_field["majority"] < 0.4 < 0.7 < by_field["linear"]["accuracy"] <= by_field["nearest"]["accuracy"]
    table(workplace, "labels.csv", ["id", "label"], list(zip(rows["id"], rows["topic"], strict=True)))
    declare(workplace, 'reports = { tasks = { label_file = "labels.csv" } }')
    assert summary(workplace, "tasks")["labels"]["nearest"] == by_field["nearest"]


def test_what_is_held_out_stays_held_out_while_documents_come_and_go(workplace: Workplace) -> None:
    def side(count: int) -> tuple[set[Any], set[Any]]:
        write(workplace, corpus(count))
        workplace.apply()
        dataset = Store(workplace.store).open(workplace.apply().generation)
        known = held_out.known_rows(dataset, "id", lambda rows: {"id": rows["doc_id"].combine_chunks()})
        assert known is not None
        return set(known.train.columns["id"].to_pylist()), set(known.test.columns["id"].to_pylist())

    declare(workplace)
    train, test = side(COUNT)
    more_train, more_test = side(COUNT + 60)
    assert not train & test and not (train | more_train) & (test | more_test)
    assert len(test & more_test) > 0.8 * len(test)


def test_pairs_and_analogies_are_of_the_models_own_vectors(workplace: Workplace) -> None:
    lines(workplace, "pairs.jsonl", [{"a": "one", "b": "one", "score": 5}, *({"a": "one", "b": f"b{n}", "score": 1} for n in range(30))])
    lines(workplace, "analogies.jsonl", [{"a": "x", "b": "y", "c": "x", "d": "y"}, {"a": "x", "b": "y", "c": "z", "d": "x"}])
    declare(
        workplace,
        'reports = { tasks = { pairs = "pairs.jsonl", analogies = "analogies.jsonl" } }\ngates = { min_spearman = 0.9, max_failed = 1 }',
    )
    write(workplace, corpus(30))
    done = workplace.apply()
    assert done.status == "built"
    [gate] = [gate for gate in done.gates if gate.name == "spearman"]
    assert 0 < gate.value < 0.9 and "31 pairs" in gate.detail
    lines(workplace, "pairs.jsonl", [{"a": "one", "score": 5}])
    with pytest.raises(SpecError, match=r"reports.tasks.pairs: expected a text or a number under 'b' in line 1"):
        workplace.apply()


def test_gates_without_limits_are_neither_measured_nor_told(workplace: Workplace) -> None:
    declare(workplace)
    write(workplace, corpus(30))
    told = {gate.name for gate in workplace.apply().gates}
    assert not told & {"bias", "balance", "accuracy", "spearman"}
    assert not workplace.plan().pending


def test_a_file_of_a_gate_that_is_not_there_is_missed_before_anything_is_embedded(workplace: Workplace) -> None:
    declare(workplace, 'reports = { bias = { words = "words.toml" } }\ngates = { max_bias = 1 }')
    write(workplace, corpus(30))
    with pytest.raises(SpecError, match=r"reports.bias.words: expected a file"):
        apply(config=workplace.config)


@pytest.fixture
def ten_clusters() -> Iterator[None]:
    make = fitting.make_atlas

    def made(*arguments: Any, **named: Any) -> Atlas:
        atlas = make(*arguments, **named)
        return replace(atlas, clusters=np.arange(len(atlas.ids), dtype=np.int32) % 10, names={number: f"n{number}" for number in range(10)})

    with patch.object(fitting, "make_atlas", made):
        yield


@pytest.mark.usefixtures("ten_clusters")
def test_a_topic_that_comes_is_an_alarm_and_clean_nights_are_none(workplace: Workplace) -> None:
    """Landmarks are dealt to ten clusters: which ones decides nothing here."""
    declare(workplace)
    chance, rows = random.Random(2), corpus()
    rows["text"] = [f"text {chance.randrange(300)}" for _ in rows["id"]]
    write(workplace, rows)
    workplace.apply()
    assert summary(workplace, "drift")["before"] is None
    for night in range(3):
        for place in chance.sample(range(COUNT), 30):
            rows["id"][place], rows["text"][place] = f"n{night}-{place}", f"text {chance.randrange(300)}"
        write(workplace, rows)
        workplace.apply()
        made = found(workplace, "drift")
        assert made.exit_code == 0
        assert made.reports[0].summary["rows"]["came"] == pytest.approx(30, abs=8)
    topic = [f"p{number}" for number in range(60)]
    new = {"id": topic, "text": ["text 7"] * 60, "topic": ["t0"] * 60, "lang": ["en"] * 60}
    write(workplace, new, "b.parquet")
    workplace.apply()
    made = found(workplace, "drift")
    told = made.reports[0].summary
    assert made.exit_code == 3 and told["alarm"] and told["p"] == 0.001
    assert told["clusters"][0]["how"] in {"grew", "new"} and told["clusters"][0]["z"] > 4
    assert {name.partition("#")[0] for name in told["clusters"][0]["examples"]} < set(topic)
    assert "text" not in orjson.dumps(told).decode()
    assert found(workplace, "drift").made == ()


def test_a_few_labels_are_suggested_to_all_and_only_new_rows_are_looked_at(workplace: Workplace) -> None:
    rows = corpus()
    declare(workplace, 'reports = { labels = { seeds = "seeds.csv", min_confidence = 0.4 } }', 256)
    write(workplace, rows)
    workplace.apply()
    table(workplace, "seeds.csv", ["id", "label"], list(zip(rows["id"][:150], rows["topic"], strict=False)))
    made = found(workplace, "labels").reports[0]
    [(name, version)] = made.tables.items()
    kept = Store(workplace.store).open(name, version).to_table().to_pylist()
    truth = dict(zip((f"{one}#0" for one in rows["id"]), rows["topic"], strict=True))
    assert len(kept) == COUNT == made.summary["rows"]
    assert all(row["label"] == truth[row["chunk_id"]] and row["confidence"] == 1 for row in kept if int(row["chunk_id"][1:-2]) < 150)
    suggested = [row for row in kept if row["label"] is not None and int(row["chunk_id"][1:-2]) >= 150]
    assert len(suggested) > 200
    assert sum(row["label"] == truth[row["chunk_id"]] for row in suggested) > 0.85 * len(suggested)
    assert all(row["confidence"] < 0.4 for row in kept if row["label"] is None)
    looked_at = []
    with patch.object(labels.Hand, "label", lambda hand, some, label=labels.Hand.label: looked_at.append(len(some)) or label(hand, some)):
        write(workplace, corpus(COUNT + 20))
        workplace.apply()
        again = found(workplace, "labels").reports[0]
    assert sum(looked_at) == 20
    assert (again.summary["rows"], again.tables.keys()) == (COUNT + 20, made.tables.keys())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "expected a CSV header or JSON lines with id, label"),
        ("id,label\n", "expected lines with id, label, found none"),
        ("id,label\nd1,a\nd1,b\n", "expected one label for each id, found two for 'd1'"),
        ('{"id": "d1"}', "expected a text or a number under 'label' in line 1"),
        ("id,label\nnowhere,a\n", "expected ids of documents or chunks of"),
    ],
)
def test_a_file_of_labels_that_is_not_right_is_refused(workplace: Workplace, content: str, said: str) -> None:
    declare(workplace, 'reports = { labels = { seeds = "seeds.csv" } }')
    write(workplace, corpus(20))
    (workplace.root / "seeds.csv").write_text(content)
    workplace.apply()
    with pytest.raises(SpecError, match=said):
        found(workplace, "labels")


def test_a_candidate_is_judged_anew_when_what_a_limit_looks_at_changes(workplace: Workplace) -> None:
    def spec(limit: str, field: str) -> None:
        candidate = '[[collections.docs.candidates]]\nname = "hash"\ndimensions = 24'
        declare(workplace, f'reports = {{ tasks = {{ label = "{field}" }} }}\ngates = {{ min_overlap_changed = 0{limit} }}\n{candidate}')

    spec("", "topic")
    write(workplace, corpus(60))
    workplace.apply()
    spec("", "lang")
    assert workplace.plan().change == "none"
    spec(", min_accuracy = 0.1", "lang")
    assert workplace.apply().change == "metadata"
    assert workplace.plan().change == "none"
    spec(", min_accuracy = 0.1", "topic")
    assert workplace.plan().change == "metadata"
