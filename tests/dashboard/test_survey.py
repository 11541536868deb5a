"""What is kept of maps is bounded, made once for all who ask at once, and nobody waits for ever."""

import threading
import time
from unittest.mock import patch

import pytest
from fastapi import HTTPException

from dashboard.looking import survey
from dashboard.looking.survey import Survey


def test_who_asks_at_once_for_the_same_gets_what_was_made_once() -> None:
    kept, made = Survey(), list[int]()

    def make() -> str:
        made.append(1)
        time.sleep(0.05)
        return "map"

    threads = [threading.Thread(target=lambda: kept.keep("a", make, len)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_what_was_not_looked_at_longest_goes_first() -> None:
    kept = Survey()
    with patch.object(survey, "MOST_BYTES", 10):
        for key in ("a", "b", "a", "c"):
            kept.keep(key, lambda key=key: key, lambda _: 5)  # type: ignore[misc]
        assert kept.keep("a", lambda: "new", lambda _: 5) == "a"
        assert kept.keep("b", lambda: "new", lambda _: 5) == "new"


def test_what_is_made_may_stand_on_what_is_kept_and_a_failure_is_tried_again() -> None:
    kept = Survey()
    assert kept.keep("a", lambda: kept.keep("b", lambda: "b", len) + "a", len) == "ba"
    with pytest.raises(ZeroDivisionError):
        kept.keep("c", lambda: 1 // 0, lambda _: 0)
    assert kept.keep("c", lambda: 1, lambda _: 0) == 1


def test_nobody_waits_for_ever() -> None:
    kept, begun, ended = Survey(), threading.Event(), threading.Event()

    def make() -> str:
        begun.set()
        ended.wait(10)
        return "slow"

    thread = threading.Thread(target=lambda: kept.keep("slow", make, len))
    thread.start()
    begun.wait(10)
    with patch.object(survey, "PATIENCE_SECONDS", 0.05), pytest.raises(HTTPException, match="found the server busy"):
        kept.keep("other", lambda: "map", len)
    ended.set()
    thread.join()
    assert kept.keep("slow", lambda: "again", len) == "slow"
