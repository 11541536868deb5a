"""Marts lie beside the collections, and are none themselves."""

from flows import apply, status
from storage.collection import Collection, collections
from storage.marts.columns import RUNS
from storage.marts.mart_files import read_mart
from storage.store.lance import Store
from tests.conftest import Workplace


def test_a_collection_called_marts_has_its_runs_for_itself(workplace: Workplace) -> None:
    workplace.write("1.parquet", {"a": "one text"})
    workplace.config.write_text(workplace.config.read_text().replace("collections.docs", "collections.marts"))
    first = apply(config=workplace.config)
    store = Store(workplace.store)
    assert list(map(str, collections(store))) == ["marts"]
    assert status("marts", workplace.config)["collections"][0]["last_run"]["run_id"] == first.run_id
    assert read_mart(Collection(store, "marts"), RUNS)["run_id"].to_pylist() == [first.run_id]


def test_marts_are_no_collection(workplace: Workplace) -> None:
    workplace.write("1.parquet", {"a": "one text"})
    workplace.apply()
    assert list(map(str, collections(Store(workplace.store)))) == ["docs"]
