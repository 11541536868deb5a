"""The versions of a list: each once, opened once, and never one that is gone; and what stays of them in memory has a limit."""

from unittest.mock import patch

import numpy as np
import pytest

from dashboard.looking import choices as room
from dashboard.looking.choices import Choices
from dashboard.looking.lookout import Lookout
from flows import maintain
from pipelines.errors import NotFound
from storage.collection import Collection
from storage.reading.neighbours import nearest
from storage.reading.versions import version_name
from storage.store.lance import Store
from tests.conftest import Workplace
from tests.support.story import Story


def choices_of(store: str) -> Choices:
    return Choices(Lookout(Store(store)), store)


def test_what_readers_have_comes_first_and_no_version_twice(story: Story) -> None:
    offered = choices_of(story.store).offered(story.docs)
    names = [choice.name for choice in offered]
    assert names[0] == "published"
    assert len(set(names)) == len(names)
    here = story.publications()[-1]
    assert version_name(here.generation, here.version) not in names
    opened = [choices_of(story.store).version(story.docs, name) for name in names]
    assert len({(version.generation, version.number) for version in opened}) >= len({choice.shown for choice in offered}) - 1


def test_a_version_is_opened_once_until_something_is_published(workplace: Workplace) -> None:
    workplace.write("a.parquet", {"d": "a text"})
    workplace.apply()
    choices, collection = choices_of(workplace.store), Collection(Store(workplace.store), "docs")
    first = choices.version(collection, "published")
    assert choices.version(collection, "published") is first
    workplace.write("a.parquet", {"d": "another text"})
    workplace.apply()
    choices._lookout.forget()
    assert choices.version(collection, "published").number > first.number


def test_a_version_that_upkeep_took_away_is_not_found_though_it_was_open(workplace: Workplace) -> None:
    workplace.spec(rest="retention = { publications = 1, days = 0 }")
    choices, collection = choices_of(workplace.store), Collection(Store(workplace.store), "docs")
    for text in ("a text", "another text"):
        workplace.write("a.parquet", {"d": text})
        workplace.apply()
    choices._lookout.forget()
    older = choices.offered(collection)[-1].name
    assert choices.version(collection, older).vectors.count_rows() == 1
    maintain("docs", config=workplace.config)
    choices._lookout.forget()
    with pytest.raises(NotFound):
        choices.version(collection, older)


def test_what_stays_in_memory_has_a_limit(story: Story) -> None:
    limit = 64 << 10
    with patch.object(room, "CACHE_BYTES", limit):
        choices = choices_of(story.store)
    for choice in choices.offered(story.docs):
        vectors = choices.version(story.docs, choice.name).vectors
        width = vectors.schema.field("vector").type.list_size
        for seed in range(20):
            nearest(vectors, np.random.default_rng(seed).normal(size=width).astype(np.float32), 5)
    session = choices._store._session
    assert session is not None
    assert session.size_bytes() <= 2 * limit
