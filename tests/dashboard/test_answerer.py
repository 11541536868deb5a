"""The dashboard and the process that has the models: begun when it is needed, begun again when it is gone, never waited for long."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from starlette.exceptions import HTTPException

from dashboard.looking import answerer as room
from dashboard.looking.answerer import AT_ONCE, Answerer
from pipelines.errors import ModelError
from storage.reading.versions import choose_version
from storage.tables.version import Version
from tests.support.story import Story

ECHO = """
import json, os, sys
for number, line in enumerate(sys.stdin, 1):
    asked = json.loads(line)
    {trouble}
    print(json.dumps({{"id": asked["id"], "vectors": [[float(os.getpid())] * {width} for _ in asked["texts"]]}}), flush=True)
"""


@pytest.fixture
def version(story: Story) -> Version:
    return choose_version(story.docs, story.publications())


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def answerer(closing: ExitStack, trouble: str = "pass", seconds: float = 30, width: int = 16) -> Answerer:
    made = Answerer((sys.executable, "-c", ECHO.format(trouble=trouble, width=width)), seconds)
    closing.callback(made.close)
    return made


def who(vectors: np.ndarray) -> float:
    """The process that made them."""
    return float(vectors[0, 0])


def test_one_process_answers_all_and_is_begun_by_the_first(closing: ExitStack, version: Version) -> None:
    made = answerer(closing)
    assert made._child is None
    first, second = made.vectors(version, ["a"]), made.vectors(version, ["b", "c"])
    assert who(first) == who(second)
    assert second.shape == (2, 16)


def test_a_process_that_ended_is_begun_again(closing: ExitStack, version: Version) -> None:
    made = answerer(closing, "if number == 3: sys.exit()")
    first, second, third = (who(made.vectors(version, ["a"])) for _ in range(3))
    assert first == second != third


def test_a_process_that_never_answers_is_told_and_not_begun_for_ever(closing: ExitStack, version: Version) -> None:
    made = answerer(closing, "sys.exit(3)")
    with pytest.raises(ModelError, match="found that it ended"):
        made.vectors(version, ["a"])
    gone = Answerer(("/nowhere/at/all",))
    with pytest.raises(ModelError, match="expected to start"):
        gone.vectors(version, ["a"])


def test_a_process_that_hangs_is_ended_and_the_next_question_gets_another(closing: ExitStack, version: Version) -> None:
    made = answerer(closing, "asked['texts'] == ['hang'] and __import__('time').sleep(60)", seconds=2)
    first = who(made.vectors(version, ["a"]))
    began = time.monotonic()
    with pytest.raises(ModelError, match="within 2 s"):
        made.vectors(version, ["hang"])
    assert time.monotonic() - began < 10
    assert who(made.vectors(version, ["a"])) != first


@pytest.mark.parametrize("answer", ['{"id": 99, "vectors": []}', "no json at all"])
def test_an_answer_that_is_none_is_refused(answer: str, closing: ExitStack, version: Version) -> None:
    made = answerer(closing, f"print({answer!r}, flush=True); continue")
    with pytest.raises(ModelError):
        made.vectors(version, ["a"])


def test_vectors_of_another_width_are_refused(closing: ExitStack, version: Version) -> None:
    with pytest.raises(ModelError, match="of 16 numbers"):
        answerer(closing, width=24).vectors(version, ["a"])


def test_many_ask_at_once_and_each_gets_its_own_answer(closing: ExitStack, version: Version) -> None:
    made = answerer(closing)
    shapes: list[tuple[int, ...]] = []
    threads = [threading.Thread(target=lambda n=n: shapes.append(made.vectors(version, ["a"] * n).shape)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(shapes) == [(n, 16) for n in range(1, 9)]


def test_who_comes_beyond_the_searches_that_go_on_is_told_to_come_again() -> None:
    made = Answerer(())
    with ExitStack() as searching, patch.object(room, "PATIENCE_SECONDS", 0.05):
        for _ in range(AT_ONCE):
            searching.enter_context(made.turn())
        with pytest.raises(HTTPException) as refused, made.turn():
            pass
    assert refused.value.status_code == 429
    with made.turn():
        pass


def test_waking_it_is_not_waited_for_and_its_failure_is_nobodys(closing: ExitStack, version: Version) -> None:
    complaints: list[Any] = []
    with patch.object(threading, "excepthook", complaints.append):
        for trouble in ("pass", "sys.exit(3)"):
            made = answerer(closing, trouble)
            began = time.monotonic()
            made.wake(version)
            assert time.monotonic() - began < 1
            for thread in threading.enumerate():
                if thread.name.endswith("(_wake)"):
                    thread.join(10)
    assert complaints == []
    Answerer(()).wake(version)
