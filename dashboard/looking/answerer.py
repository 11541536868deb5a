"""Vectors of questions, from a process of its own that has the models: it is started when somebody asks, and ends when nobody does."""

import os
import select
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from dashboard.settings import Argv
from pipelines.errors import ModelError
from storage.tables.version import Version

AT_ONCE = 2
"""Live searches; who comes beyond them waits for a moment, and is then told to come again."""
PATIENCE_SECONDS = 5.0
MOST_WAITING = 50
"""For a turn: each holds a thread, and other pages need some, too."""
ANSWER_SECONDS = 120.0
"""For an answer: a model that has to be loaded first takes seconds, on a busy machine many."""


class Answerer:
    """One for a server. The process has one question at a time, of all viewers together."""

    def __init__(self, argv: Argv, seconds: float = ANSWER_SECONDS) -> None:
        """`argv`: the process, which speaks as `workers.answering` does; empty: texts cannot be searched by. `seconds`: for an answer."""
        self.offered = bool(argv)
        self._argv = argv
        self._seconds = seconds
        self._child: _Child | None = None
        self._asking = threading.Lock()
        self._turns = threading.Semaphore(AT_ONCE)
        self._places = threading.Semaphore(AT_ONCE + MOST_WAITING)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Whatever searches does it within one. Raises HTTPException 429 where too many do."""
        if not self._places.acquire(blocking=False):
            raise HTTPException(429, f"expected at most {MOST_WAITING} searches that wait for others, found more: try again")
        try:
            if not self._turns.acquire(timeout=PATIENCE_SECONDS):
                raise HTTPException(429, f"expected at most {AT_ONCE} searches at once, found more for {PATIENCE_SECONDS:.0f} s: try again")
            try:
                yield
            finally:
                self._turns.release()
        finally:
            self._places.release()

    def vectors(self, version: Version, texts: Sequence[str]) -> NDArray[np.float32]:
        """Of questions in the space of `version`: (n, d). Raises ModelError if its model is not at hand, or says nothing in time."""
        vectors = np.array(self._ask(version, texts), np.float32)
        wanted = len(texts), int(version.space["dimension"])
        if vectors.shape != wanted or not np.isfinite(vectors).all():
            raise ModelError(f"expected {wanted[0]} vectors of {wanted[1]} numbers, found others")
        return vectors

    def wake(self, version: Version) -> None:
        """Have its model loaded, for a question that is likely to come; nobody waits for that."""
        if self.offered and not self._asking.locked() and (self._child is None or not self._child.lives):
            threading.Thread(target=self._wake, args=(version,), daemon=True).start()

    def close(self) -> None:
        """End the process."""
        with self._asking:
            self._end()

    def _wake(self, version: Version) -> None:
        try:
            self._ask(version, [])
        except ModelError:
            return  # who asks in earnest is told

    def _ask(self, version: Version, texts: Sequence[str]) -> list[list[float]]:
        question = {"model": version.recorded.model_dump(mode="json"), "space": version.space["id"], "texts": list(texts)}
        answer = self._answer(question)
        if "error" in answer:
            raise ModelError(str(answer["error"]))
        vectors: list[list[float]] = answer["vectors"]
        return vectors

    def _answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """A process that ended since it answered last, for being idle or otherwise, is started again; one that never answered is not."""
        until = time.monotonic() + self._seconds
        if not self._asking.acquire(timeout=self._seconds):
            raise ModelError(f"expected a vector within {self._seconds:.0f} s, found others waiting for the model: try again")
        try:
            for _ in range(2):
                if self._child is None or not self._child.lives:
                    self._end()
                    self._child = _Child.started(self._argv)
                proven = self._child.answered > 0
                answer = self._child.ask(question, until)
                if answer is not None:
                    return answer
                self._end()
                if not proven:
                    break
            raise ModelError("expected a vector from the process that has the model, found that it ended: the server's log says why")
        except ModelError:
            self._end()  # what it says next may be the answer to something else
            raise
        except TimeoutError:
            self._end()
            raise ModelError(f"expected a vector within {self._seconds:.0f} s, found none: try again") from None
        finally:
            self._asking.release()

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


@dataclass
class _Child:
    process: subprocess.Popen[bytes]
    answered: int = 0
    _rest: bytearray = field(default_factory=bytearray)

    @classmethod
    def started(cls, argv: Argv) -> "_Child":
        try:
            return cls(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0))
        except OSError as error:
            raise ModelError(f"expected to start {argv[0]}, found {type(error).__name__}") from error

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def ask(self, question: Mapping[str, Any], until: float) -> dict[str, Any] | None:
        """The answer; None if the process has ended. Raises TimeoutError."""
        number = self.answered + 1
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(orjson.dumps({"id": number, **question}) + b"\n")
        except BrokenPipeError:
            return None
        line = self._line(until)
        if line is None:
            return None
        answer = _read(line)
        if answer.get("id") != number or not answer.keys() & {"vectors", "error"}:
            raise ModelError(f"expected the answer to question {number}, found something else: try again")
        self.answered = number
        return answer

    def _line(self, until: float) -> bytes | None:
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        while (end := self._rest.find(b"\n")) < 0:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError
            part = os.read(descriptor, 1 << 16)
            if not part:
                return None
            self._rest += part
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return line

    def end(self) -> None:
        """It keeps nothing: it may go at any time."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def _read(line: bytes) -> dict[str, Any]:
    """Nothing, of a line that is no object."""
    try:
        answer = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}
