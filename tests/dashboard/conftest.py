"""One story a session, which all tests of the dashboard look at; a browser for each file of tests."""

from collections.abc import Iterator

import pytest

from tests.support.story import Story, told
from tests.support.window import Window, serving, window


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """For reading alone: whoever changes it copies its folder first."""
    with told(tmp_path_factory.mktemp("story")) as made:
        yield made


@pytest.fixture(scope="session")
def address(story: Story) -> Iterator[str]:
    """Of a dashboard of the story, which shows texts and offers no acts."""
    with serving(story.store) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Window]:
    with window() as made:
        yield made
