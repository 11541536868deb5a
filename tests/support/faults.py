"""What can happen to a run at one of its writes, in this process: death, an error, a lost reply, another run that takes over."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import current_thread, main_thread
from typing import Any
from unittest.mock import patch

from lance import LanceDataset
from lance.dataset import Tags
from lance.optimize import Compaction

from storage.store.objects import Objects
from storage.tables import index
from storage.upkeep import maintenance
from storage.who import Holder
from workers.runs.filling import Filling
from workers.upkeep import maintaining

Write = Callable[[], Any]
WRITES: list[tuple[Any, str]] = [
    (Objects, "put"),
    (Objects, "put_if_absent"),
    (Objects, "delete"),
    (LanceDataset, "commit"),
    (LanceDataset, "commit_existing_index_segments"),
    (Tags, "create"),
    (Tags, "delete"),
]
"""All ways in which the product changes a store, but for staged files, which nobody sees."""


class Died(BaseException):
    """As after kill -9: nothing is written any more."""


@contextmanager
def intercepted(on_write: Callable[[int, str, Write], Any]) -> Iterator[list[str]]:
    """Every write goes through `on_write(number, name, write)`, from 1. Gives the names of those that were tried.

    Writes of other threads (the heartbeat) and those of `on_write` itself pass.
    """
    names: list[str] = []
    inside = False

    def through(owner: Any, name: str) -> Callable[..., Any]:
        real = getattr(owner, name)

        def attempt(*args: Any, **options: Any) -> Any:
            nonlocal inside
            if inside or current_thread() is not main_thread():
                return real(*args, **options)
            key = next((each for each in args if isinstance(each, str)), "")
            names.append(f"{name} {key}".strip())
            inside = True
            try:
                return on_write(len(names), names[-1], lambda: real(*args, **options))
            finally:
                inside = False

        return attempt

    with patch.object(Holder, "dead", lambda _: True), patch.object(Filling, "_may_run_here", lambda _: True):
        patches = [patch.object(owner, name, _like(owner, name, through(owner, name))) for owner, name in WRITES]
        # Of the native module: its attributes cannot be set.
        compaction = type("Compaction", (), {"plan": staticmethod(Compaction.plan), "commit": staticmethod(through(Compaction, "commit"))})
        patches.append(patch.object(maintenance, "Compaction", compaction))
        for each in patches:
            each.start()
        try:
            yield names
        finally:
            for each in patches:
                each.stop()


@contextmanager
def small_scale() -> Iterator[None]:
    """An index over 30 rows, two fragments are worth joining, and no version is too young to go."""
    parts = patch.multiple(index, INDEX_ROWS=30, PARTITION_ROWS=12, SMALL_PARTS=2)
    with parts, patch.object(maintenance, "SMALL_FRAGMENTS", 2), patch.object(maintaining, "YOUNG", timedelta(0)):
        yield


def _like(owner: Any, name: str, function: Callable[..., Any]) -> Any:
    return staticmethod(function) if isinstance(vars(owner)[name], staticmethod) else function


def dying(at: int, landed: bool) -> Callable[[int, str, Write], Any]:
    """The process dies at write `at`, before it or when it has `landed`."""

    def on_write(number: int, _: str, write: Write) -> Any:
        if number > at or (number == at and not landed):
            raise Died
        result = write()
        if number == at:
            raise Died
        return result

    return on_write


def failing(at: int, landed: bool) -> Callable[[int, str, Write], Any]:
    """Write `at` is answered with an error: it was refused, or it has `landed` and the reply was lost."""

    def on_write(number: int, _: str, write: Write) -> Any:
        if number != at:
            return write()
        if landed:
            write()
        raise OSError("the store is away")

    return on_write


def overtaken(at: int, meanwhile: Callable[[], object]) -> Callable[[int, str, Write], Any]:
    """The process is stopped right before write `at`; `meanwhile` happens, as in another process; then it goes on."""

    def on_write(number: int, _: str, write: Write) -> Any:
        if number == at:
            meanwhile()
        return write()

    return on_write
