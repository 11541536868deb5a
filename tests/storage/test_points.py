"""Points of a map are the rows of a version, exactly: where they lie, what they have, and what changed, whatever fits in memory."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks import map_points
from flows import report
from pipelines.errors import NotFound, SpecError
from storage.collection import Collection
from storage.reports import point_values as of_values
from storage.reports import points as of_points
from storage.reports.described import Described, describe_version, described_numbers
from storage.reports.point_changes import CAME, CHANGED, FAR, MOVED, SAME, changes_since
from storage.reports.point_values import MISSING, ages_of, values_of
from storage.reports.points import Points, inside, read_points
from storage.reports.terrain import FULL, terrain_of
from storage.store import spill
from storage.store.lance import Store
from storage.upkeep.maintenance import remove_table
from tests.conftest import Workplace
from workers.reports.run_reports import Wish

ROWS = 3_000


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    folder = tmp_path_factory.mktemp("points")
    with patch.multiple(map_points, LANDMARKS=500, PART=700):
        map_points.make(folder, ROWS)
        yield Collection(Store(str(folder)), map_points.NAME)


@pytest.fixture(params=[64 << 20, 2_000], ids=["in memory", "spilled"])
def memory(request: pytest.FixtureRequest) -> Iterator[None]:
    with patch.object(spill, "MEMORY_BYTES", request.param):
        yield


def described(collection: Collection) -> tuple[Described, Described]:
    first, second = described_numbers(collection, map_points.GENERATION, 10)
    return tuple(describe_version(collection, map_points.GENERATION, version) for version in (first, second))  # type: ignore[return-value]


def seen(one: Described) -> Points:
    return read_points(one, terrain_of(one))


def test_points_are_the_rows_where_the_atlas_has_them(collection: Collection, memory: None) -> None:
    _, now = described(collection)
    points = seen(now)
    table = now.rows().to_table()
    assert len(points) == points.rows == table.num_rows
    low, scale = np.array(points.terrain.low), points.terrain.scale
    for axis, units, column in ((0, points.x, "x"), (1, points.y, "y")):
        wanted = ((table[column].to_numpy() - low[axis]) * scale).clip(0, FULL)
        assert np.abs(units - wanted).max() <= 0.51
    names = [one.number for one in points.terrain.islands]
    assert [names[place] for place in points.islands] == table["cluster"].to_pylist()
    some = [0, 17, len(points) - 1]
    assert [row["chunk_id"] for row in points.take(some, ["chunk_id"])] == table["chunk_id"].take(some).to_pylist()
    with pytest.raises(SpecError, match="expected points 0 to"):
        points.take([len(points)], ["chunk_id"])


def test_no_landmark_and_no_row_moves_from_version_to_version(collection: Collection) -> None:
    before, now = (seen(one) for one in described(collection))
    assert before.terrain.islands == now.terrain.islands
    places = [
        {row["chunk_id"]: (int(x), int(y)) for row, x, y in zip(one.take(range(len(one)), ["chunk_id"]), one.x, one.y, strict=True)}
        for one in (before, now)
    ]
    changes = changes_since(before.described, now)
    same = [row["chunk_id"] for row in now.take(np.flatnonzero(changes.codes == SAME).tolist(), ["chunk_id"])]
    assert len(same) > ROWS * 0.9
    assert all(places[0][id] == places[1][id] for id in same)


def test_what_came_changed_and_went_is_what_the_tables_say(collection: Collection, memory: None) -> None:
    before, now = described(collection)
    points = seen(now)
    changes = changes_since(before, points)
    old, new = (dict(zip(*one.vectors().to_table(["chunk_id", "row_hash"]).to_pydict().values(), strict=True)) for one in (before, now))
    ids = [row["chunk_id"] for row in points.take(range(len(points)), ["chunk_id"])]
    wanted = [CAME if id not in old else SAME if old[id] == new[id] else CHANGED for id in ids]
    assert changes.codes.tolist() == wanted
    assert {SAME, CAME, CHANGED} == {*wanted}
    assert changes.went == len(changes.gone) == len(old.keys() - new.keys()) > 0
    then = seen(before)
    place = {row["chunk_id"]: number for number, row in enumerate(then.take(range(len(then)), ["chunk_id"]))}
    moved = [place[id] for id, code in zip(ids, wanted, strict=True) if code == CHANGED]
    assert changes.origins.tolist() == [[int(then.x[one]), int(then.y[one])] for one in moved]


def test_values_are_those_of_the_rows(collection: Collection, memory: None) -> None:
    _, now = described(collection)
    points = seen(now)
    table = now.vectors().to_table(["chunk_id", "metadata"])
    rows = dict(zip(table["chunk_id"].to_pylist(), table["metadata"].to_pylist(), strict=True))
    ids = [row["chunk_id"] for row in points.take(range(len(points)), ["chunk_id"])]
    sections = values_of(points, "section")
    top = sections.labels[:7]
    assert [top[code] if code < 7 else None for code in sections.codes] == [
        value if (value := rows[id]["section"]) in top else None for id in ids
    ]
    counted = pc.value_counts(pc.struct_field(table["metadata"], ["section"])).to_pylist()
    ranked = sorted(counted, key=lambda one: (-one["counts"], one["values"]))
    assert [(one["values"], one["counts"]) for one in ranked[:7]] == [*zip(top, sections.counts, strict=False)]
    years = values_of(points, "year")
    assert (years.scale, sum(years.counts), years.counts[MISSING]) == ("rising", len(points), 0)
    assert years.labels[0].startswith("1990 to ")
    for code, label in enumerate(filter(None, years.labels)):
        low, high = map(int, label.split(" to "))
        assert all(low <= rows[ids[one]]["year"] <= high for one in np.flatnonzero(years.codes == code))
    with pytest.raises(SpecError, match="expected a field of section, year, score, found 'sektion'; did you mean"):
        values_of(points, "sektion")


def test_age_is_the_first_version_that_has_a_row(collection: Collection) -> None:
    before, now = described(collection)
    points = seen(now)
    ages = ages_of(points, [before])
    assert (ages.codes == 0).sum() == (changes_since(before, points).codes == SAME).sum()
    assert ages.labels[:2] == (f"version {before.version} or before", f"since version {now.version}")


def test_of_too_many_rows_every_so_many_is_a_point(collection: Collection, memory: None) -> None:
    before, now = described(collection)
    whole = seen(now)
    with patch.object(of_points, "MOST_POINTS", 1_100):
        some = seen(now)
    assert (some.every, some.rows, len(some)) == (3, len(whole), -(-len(whole) // 3))
    assert some.x.tolist() == whole.x[::3].tolist()
    assert changes_since(before, some).codes.tolist() == changes_since(before, whole).codes[::3].tolist()
    assert values_of(some, "score").codes.max() < MISSING
    with patch.object(of_points, "MOST_ROWS", 1_000), pytest.raises(SpecError, match="expected at most 1,000 rows on a map"):
        seen(now)


def test_a_lasso_holds_what_is_inside_and_an_edge_belongs_to_one_side(collection: Collection) -> None:
    _, now = described(collection)
    points = seen(now)
    left, right = (np.array([[x, 0], [x + 30_000, 0], [x + 30_000, FULL], [x, FULL]]) for x in (5_000, 35_000))
    halves = [{*inside(points.x, points.y, one).tolist()} for one in (left, right)]
    assert not halves[0] & halves[1]
    there = (points.x >= 5_000) & (points.x < 65_000) & (points.y < FULL)
    assert halves[0] | halves[1] == {*np.flatnonzero(there).tolist()}
    star = np.array([[30_000, 60_000], [45_000, 5_000], [5_000, 40_000], [60_000, 40_000], [12_000, 5_000]])
    assert 0 < len(inside(points.x, points.y, star)) < len(points)


def test_a_version_without_a_map_says_how_to_make_one(collection: Collection) -> None:
    with pytest.raises(NotFound, match=r"expected a map of version 1 of .*, found none: `revector report million map` makes one"):
        describe_version(collection, map_points.GENERATION, 1)


def test_two_models_lie_on_one_map_and_what_moved_is_marked(workplace: Workplace) -> None:
    """A map begins from the places that contents have in that of another model; here most rows move all the same."""
    words = [f"word{number % 7} of document {number}" for number in range(60)]
    workplace.write("a.parquet", {f"d{number}": text for number, text in enumerate(words)})
    versions = []
    for prompt in ("", "query: "):
        workplace.spec(model=f'name = "hash", dimensions = 16, prompt = "{prompt}"')
        workplace.apply()
        made = report("docs", ["map"], workplace.config)
        versions.append(describe_version(Collection(Store(workplace.store), "docs"), made.generation, made.version))
    before, now = versions
    assert before.generation != now.generation
    points, then = seen(now), read_points(before, terrain_of(now))
    changes = changes_since(before, points)
    ids = [[row["chunk_id"] for row in one.take(range(len(one)), ["chunk_id"])] for one in (points, then)]
    place = {id: (int(then.x[number]), int(then.y[number])) for number, id in enumerate(ids[1])}
    away = [np.hypot(*(np.array(place[id]) - (int(x), int(y)))) for id, x, y in zip(ids[0], points.x, points.y, strict=True)]
    assert changes.codes.tolist() == [MOVED if far > FAR else SAME for far in away]
    assert MOVED in changes.codes
    assert changes.origins.tolist() == [[*place[id]] for id, far in zip(ids[0], away, strict=True) if far > FAR]
    assert (changes.went, len(changes.gone)) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "values", "label"),
    [
        (pa.date32(), [date(2026, 1, day) for day in range(1, 22)], "2026-01-01 to 2026-01-04"),
        (
            pa.timestamp("us", "UTC"),
            [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 22)],
            "2026-01-01 00:00:00 to 2026-01-04 00:00:00",
        ),
        (pa.bool_(), [True] * 20 + [False], "true"),
        (pa.float32(), [number / 2 for number in range(20)] + [float("nan")], "0 to 1.5"),
        (pa.int64(), [1, 1, 1] * 7, "1"),
        (pa.string(), ["\u202eevil\n\x00 one"] * 21, "evil one"),
    ],
)
def test_values_of_each_type_have_a_legend(kind: pa.DataType, values: list[Any], label: str) -> None:
    made = of_values.made_of(pa.array([*values, None], kind))
    assert made.labels[0] == label
    assert (made.labels[MISSING], sum(made.counts)) == ("no value", 22)
    assert made.codes[-1] == MISSING


def test_a_version_is_seen_by_the_atlas_that_is_asked_for_as_long_as_it_is_there(workplace: Workplace) -> None:
    workplace.write("a.parquet", {f"d{number}": f"word{number % 7} of document {number}" for number in range(60)})
    workplace.apply()
    made = report("docs", ["map"], workplace.config)
    report("docs", ["map"], workplace.config, wish=Wish(refit=True))
    collection = Collection(Store(workplace.store), "docs")
    places = {number: describe_version(collection, made.generation, made.version, number) for number in (0, 1, 2, 3)}
    assert {number: one.atlas for number, one in places.items()} == {0: 2, 1: 1, 2: 2, 3: 2}
    assert places[1].table != places[2].table
    remove_table(collection.store, places[2].table)
    assert describe_version(collection, made.generation, made.version).atlas == 1
