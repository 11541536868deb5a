"""Reports follow a generation from version to version: only what is new is looked at, nothing is made twice, and what is gone is gone."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import orjson
import pyarrow as pa
import pytest

from flows import apply, drop, maintain, report
from pipelines.errors import Conflict, NotFound, SpecError
from storage import open_published
from storage.collection import Collection
from storage.reports.atlas import newest_atlas
from storage.reports.kept_reports import is_whole, kept_reports
from storage.reports.report_table import BESIDE, ReportTable
from storage.store.lance import Store
from storage.upkeep.maintenance import remove_table
from tests.conftest import Workplace
from tests.support.faults import Died, dying, intercepted, small_scale
from workers.reports import beside
from workers.reports.beside import describe
from workers.reports.run_reports import Reported, Wish

MODEL = 'name = "hash", dimensions = 16'


@pytest.fixture(autouse=True)
def _soon() -> Iterator[None]:
    with small_scale(), patch.object(beside, "SHARD_ROWS", 7):
        yield


def documents(*numbers: int, word: str = "text") -> dict[str, str]:
    return {f"d{number}": f"{word} of document {number}" for number in numbers}


def reported(workplace: Workplace, **wish: Any) -> Reported:
    return report("docs", ["map"], workplace.config, wish=Wish(**wish))


def collection(workplace: Workplace) -> Collection:
    return Collection(Store(workplace.store), "docs")


def rows(workplace: Workplace, made: Reported) -> pa.Table:
    """What is kept of the rows of the version that was reported on."""
    atlas = made.reports[0].atlas
    every = kept_reports(collection(workplace), made.generation, "rows")
    [kept] = [kept for kept in every if (kept.version, kept.atlas) == (made.version, atlas)]
    [(table, version)] = kept.tables.items()
    return Store(workplace.store).open(table, version).to_table().sort_by("chunk_id")


def from_scratch(workplace: Workplace, made: Reported) -> pa.Table:
    atlas = newest_atlas(collection(workplace), made.generation)
    assert atlas is not None
    table = Store(workplace.store).open(made.generation, made.version).to_table(["chunk_id", "content_hash", "row_hash", "vector"])
    return describe(table, atlas).sort_by("chunk_id")


def places(workplace: Workplace) -> list[Path]:
    """Everything that reports have left."""
    root = Path(workplace.store)
    kept = [path for kind in ("reports", "atlases") for path in (root / "_revector" / "docs" / kind).rglob("*") if path.is_file()]
    return sorted(kept) + sorted(root.glob("docs.reports.*"))


def test_rows_follow_the_versions_and_each_is_looked_at_once(workplace: Workplace) -> None:
    chance, held = random.Random(1), documents(*range(40))
    seen, before = [], {}
    with patch.object(beside, "describe", lambda part, atlas: seen.append(part) or describe(part, atlas)):
        for step in range(6):
            workplace.write("a.parquet", held)
            workplace.apply()
            seen.clear()
            made = reported(workplace)
            assert rows(workplace, made).equals(from_scratch(workplace, made))
            texts = workplace.texts()
            assert sum(map(len, seen)) == len(texts.items() - before.items())
            assert reported(workplace).made == ()
            before = texts
            for number in chance.sample(sorted(held), 6):
                del held[number]
            held |= documents(*chance.sample(range(60), 8), word=f"edit {step}")


def test_an_older_version_keeps_its_report_and_can_get_one_later(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(*range(20)))
    workplace.apply()
    first = reported(workplace)
    before = rows(workplace, first)
    workplace.write("a.parquet", documents(*range(5, 25)))
    workplace.apply()
    workplace.write("a.parquet", documents(*range(9, 30)))
    workplace.apply()
    third = reported(workplace)
    second = reported(workplace, version=third.version - 2)
    assert [first.version, second.version] == [third.version - 4, third.version - 2]
    for made in (first, second, third):
        assert rows(workplace, made).equals(from_scratch(workplace, made))
    assert rows(workplace, first).equals(before)
    assert reported(workplace, version=first.version).reports == first.reports


def test_a_report_that_dies_at_any_write_is_made_by_the_next_one(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(*range(20)))
    workplace.apply()
    reported(workplace)
    workplace.write("a.parquet", documents(*range(10, 45)))
    workplace.apply()
    with patch.object(beside, "COMMIT_SECONDS", 0.0):
        for landed in (False, True):
            for at in range(1, 40):
                with intercepted(dying(at, landed)) as writes, pytest.raises(Died):
                    reported(workplace, refit=at % 3 == 0)
                    raise Died
                if len(writes) < at:
                    break
                made = reported(workplace)
                assert rows(workplace, made).equals(from_scratch(workplace, made))


def test_two_reports_at_once_do_not_mix(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(*range(20)))
    workplace.apply()
    commit = ReportTable.commit

    def late(table: ReportTable, *rest: Any) -> int:
        with patch.object(ReportTable, "commit", commit):
            reported(workplace)
        return commit(table, *rest)

    with patch.object(ReportTable, "commit", late), pytest.raises(Conflict):
        reported(workplace)
    made = reported(workplace)
    assert rows(workplace, made).equals(from_scratch(workplace, made))


def test_an_atlas_stays_until_a_refit(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(*range(20)))
    workplace.apply()
    first = reported(workplace)
    one = newest_atlas(collection(workplace), first.generation)
    workplace.write("a.parquet", documents(*range(90)))
    workplace.apply()
    reported(workplace)
    same = newest_atlas(collection(workplace), first.generation)
    assert one is not None
    assert same is not None
    assert (one.size, same.ids) == (20, one.ids)
    made = reported(workplace, refit=True)
    other = newest_atlas(collection(workplace), first.generation)
    assert other is not None
    assert (other.number, other.size) == (2, 90)
    assert rows(workplace, made).schema.equals(BESIDE)


def test_reports_go_with_their_versions(workplace: Workplace) -> None:
    workplace.spec(MODEL, rest="retention = { publications = 1, days = 0 }")
    for last in (20, 25, 30):
        workplace.write("a.parquet", documents(*range(last)))
        workplace.apply()
        made = reported(workplace)
    assert len({kept.version for kept in kept_reports(collection(workplace), made.generation)}) == 3
    assert maintain(config=workplace.config).status == "maintained"
    left = {kept.version for kept in kept_reports(collection(workplace), made.generation)}
    here = open_published(workplace.store, "docs").table.version
    assert here in left
    assert len(left) <= 2
    assert reported(workplace).made == ()  # compaction gave the version another number, and its rows are the same
    assert maintain(config=workplace.config).status == "nothing"


def test_an_erasure_and_a_drop_leave_nothing_of_reports(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(*range(20)))
    workplace.apply()
    reported(workplace)
    workplace.write("a.parquet", documents(*range(5, 20)))
    workplace.apply()
    reported(workplace)
    assert places(workplace)
    maintain(config=workplace.config, erase=True)
    assert places(workplace) == []

    old = reported(workplace).generation
    workplace.spec('name = "hash", dimensions = 24')
    workplace.apply()
    new = reported(workplace).generation
    drop("docs", old, workplace.config)
    assert all(old.rpartition(".")[2] not in str(path) for path in places(workplace))
    assert any(new.rpartition(".")[2] in str(path) for path in places(workplace))


def test_what_cannot_be_reported_is_said(workplace: Workplace) -> None:
    with pytest.raises(NotFound):
        reported(workplace)
    workplace.write("a.parquet", documents(*range(20)))
    workplace.apply()
    with pytest.raises(NotFound, match="expected version 99 of"):
        reported(workplace, version=99)
    with pytest.raises(SpecError, match=r"'mop'.*did you mean 'map'"):
        report("docs", ["mop"], workplace.config)


def test_an_empty_collection_and_a_single_row_have_reports(workplace: Workplace) -> None:
    workplace.spec(MODEL, rest="gates = { max_removed = 1 }")
    workplace.write("a.parquet", documents(1))
    workplace.apply()
    assert rows(workplace, reported(workplace))["landmark"].to_pylist() == [0]
    workplace.write("a.parquet", {})
    workplace.apply()
    assert len(rows(workplace, reported(workplace))) == 0
    assert rows(workplace, reported(workplace, refit=True)).schema.equals(BESIDE)


def test_a_run_keeps_its_reports_current(workplace: Workplace) -> None:
    workplace.spec(MODEL, rest='reports = ["map"]')
    workplace.write("a.parquet", documents(*range(20)))
    assert workplace.plan().notes == ["`apply` makes reports after it: map"]
    assert workplace.apply().reports == {"map": "made"}
    assert workplace.plan().notes == []
    assert workplace.apply().reports == {"map": "kept"}
    workplace.write("a.parquet", documents(*range(25)))
    assert workplace.apply().reports == {"map": "made"}
    assert reported(workplace).made == ()


def test_a_report_that_cannot_be_made_costs_no_publication_and_is_tried_again(workplace: Workplace) -> None:
    workplace.spec(MODEL, rest='reports = ["map"]')
    workplace.write("a.parquet", documents(*range(20)))
    with patch.object(ReportTable, "commit", side_effect=Conflict("another report was faster: run again")):
        done = workplace.apply()
    assert (done.status, done.exit_code, done.reports) == ("published", 0, {"map": "another report was faster: run again"})
    assert (again := workplace.apply()).status == "nothing"
    assert again.reports == {"map": "made"}


def test_shards_are_placed_by_tasks_of_a_cluster_as_they_are_here(workplace: Workplace, ray_cluster: Any) -> None:
    workplace.write("a.parquet", documents(*range(40)))
    workplace.apply()
    with patch.object(beside, "describe", side_effect=AssertionError("described in this process")):
        made = reported(workplace)
    assert rows(workplace, made).equals(from_scratch(workplace, made))


def test_reports_on_an_object_store(workplace: Workplace, bucket: str) -> None:
    workplace.spec(MODEL, rest='reports = ["map"]\nretention = { publications = 1, days = 0 }')
    for last in (20, 30):
        workplace.write("a.parquet", documents(*range(last)))
        assert apply(config=workplace.config, store=bucket).reports == {"map": "made"}
    assert report("docs", ["map"], workplace.config, store=bucket).made == ()
    assert maintain(config=workplace.config, store=bucket).status == "maintained"
    assert report("docs", ["map"], workplace.config, store=bucket).made == ()
    assert maintain(config=workplace.config, store=bucket, erase=True).status == "erased"
    assert maintain(config=workplace.config, store=bucket).status == "nothing"
    left = [Store(bucket).objects.walk(place) for place in ("_revector/docs/reports", "_revector/docs/atlases")]
    left += [Store(bucket).objects.walk(f"{table}.lance") for table in Store(bucket).folders("docs.reports")]
    assert [key for kept in left for key, size in kept.items() if size] == []


def test_two_models_are_seen_on_one_map(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(*range(400)))
    workplace.apply()
    one = newest_atlas(collection(workplace), reported(workplace).generation)
    workplace.spec('name = "hash", dimensions = 12')  # the beginning of the same stream: vectors that are somewhat alike
    workplace.apply()
    other = newest_atlas(collection(workplace), reported(workplace).generation)
    assert one is not None
    assert other is not None
    assert one.ids == other.ids
    width = np.ptp(one.places, axis=0).max()
    moved = np.linalg.norm(one.places - other.places, axis=1)
    assert np.median(moved) < 0.2 * width


def test_a_drift_is_of_other_rows_also_after_upkeep_and_after_a_refit(workplace: Workplace) -> None:
    def drift() -> dict[str, Any]:
        [kept] = report("docs", ["drift"], workplace.config).reports
        return kept.summary

    workplace.write("a.parquet", documents(*range(30)))
    workplace.apply()
    first = reported(workplace).version
    workplace.write("a.parquet", documents(*range(10, 60)))
    workplace.apply()
    before = drift()
    assert (before["before"], before["rows"]["came"]) == (first, 30)
    assert maintain(config=workplace.config).published is not None
    assert report("docs", ["drift"], workplace.config).made == ()
    assert drift() == before
    reported(workplace, refit=True)
    tables = Store(workplace.store).tables("docs.reports.")
    assert workplace.plan().pending is False
    assert Store(workplace.store).tables("docs.reports.") == tables
    after = drift()
    assert (after["before"], after["rows"]) == (before["before"], before["rows"])


def test_one_that_cannot_be_made_is_named_and_the_others_are_shown(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(*range(20)))
    workplace.apply()
    made = report("docs", ["map", "labels"], workplace.config)
    assert ([kept.kind for kept in made.reports], list(made.failed), made.exit_code) == (["map"], ["labels"], 1)
    with pytest.raises(SpecError, match="seeds"):
        report("docs", ["labels"], workplace.config)


@pytest.mark.parametrize("part", ["a1", "pairs-a1", "neighbours-a1"])
def test_a_report_whose_table_is_gone_is_made_again(workplace: Workplace, part: str) -> None:
    kinds = ["map", "duplicates", "neighbours", "drift"]
    workplace.write("a.parquet", documents(*range(20)))
    workplace.apply()
    made = report("docs", kinds, workplace.config)
    name = ReportTable(collection(workplace), made.generation, part).name
    remove_table(Store(workplace.store), name)
    assert report("docs", kinds, workplace.config).generation == made.generation
    workplace.write("a.parquet", documents(*range(5, 25)))
    workplace.apply()
    again = report("docs", kinds, workplace.config)
    assert again.failed == {}
    assert rows(workplace, again).equals(from_scratch(workplace, again))
    assert report("docs", kinds, workplace.config).made == ()


def test_a_version_that_is_erased_while_it_is_reported_on_is_said_and_costs_no_publication(workplace: Workplace) -> None:
    place = beside.place_shard

    def late(*rest: Any) -> Any:
        with patch.object(beside, "place_shard", place):
            workplace.spec(MODEL)
            workplace.write("a.parquet", documents(*range(3, 20)))
            workplace.apply()
            maintain(config=workplace.config, erase=True)
        return place(*rest)

    workplace.spec(MODEL, rest='reports = ["map"]')
    workplace.write("a.parquet", documents(*range(20)))
    with patch.object(beside, "place_shard", late):
        done = workplace.apply()
    assert done.status == "published"
    assert "upkeep took it away: run again" in done.reports["map"]


def test_a_record_from_before_commits_were_kept_is_as_good_as_another(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(*range(20)))
    workplace.apply()
    made = reported(workplace)
    for record in (Path(workplace.store) / "_revector/docs/reports").rglob("rows-*.json"):
        said = orjson.loads(record.read_bytes())
        del said["commits"]
        record.write_bytes(orjson.dumps(said))
    [kept] = kept_reports(collection(workplace), made.generation, "rows")
    assert is_whole(collection(workplace), kept)
    remove_table(Store(workplace.store), next(iter(kept.tables)))
    assert not is_whole(collection(workplace), kept)
