"""The log of a job, line by line while it is written, through connections that break."""

import asyncio
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import aiohttp

RECONNECT_SECONDS = 1.0
QUIET_SECONDS = 120.0
"""After which a connection that says nothing is made again: nobody tells of one that broke without a word."""


class Tail:
    """Follows a log in a thread of its own while it is entered: whoever reads it is never held up by a connection."""

    def __init__(self, client: Any, id: str) -> None:
        """`client`: Ray's JobSubmissionClient."""
        self._client = client
        self._id = id
        self._texts = queue.SimpleQueue[str]()
        self._come = 0
        """Characters that came, on whichever connection: each begins with the first."""
        self._taken = 0
        """Characters that were read off here."""
        self._begun = ""
        """Of a line whose end has not come yet."""
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._pump())
        self._thread = threading.Thread(target=self._run, name="job log", daemon=True)

    def __enter__(self) -> "Tail":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(2.0)

    def lines(self, seconds: float) -> Iterator[str]:
        """Whole lines as they come, until `seconds` are over. What has no end yet waits for the next call."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                text = self._texts.get(timeout=left)
            except queue.Empty:
                return
            yield from self._cut(text)

    def rest(self, whole: str) -> Iterator[str]:
        """What has not been read yet, once the log is complete; `whole`: all of it, or nothing if it is lost."""
        while not self._texts.empty():
            yield from self._cut(self._texts.get())
        yield from self._cut(whole[self._taken :])
        if self._begun:
            yield self._begun

    def _cut(self, text: str) -> Iterator[str]:
        self._taken += len(text)
        *whole, self._begun = (self._begun + text).split("\n")
        yield from whole

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with suppress(asyncio.CancelledError), closing(self._loop):
            self._loop.run_until_complete(self._task)

    async def _pump(self) -> None:
        while True:
            with suppress(RuntimeError, OSError, TimeoutError, aiohttp.ClientError):  # whether the job goes on is asked for elsewhere
                await self._connection()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _connection(self) -> None:
        """Follow one connection to its end. It begins with the first line again: what earlier ones brought is left out."""
        passed = 0
        stream = self._client.tail_job_logs(self._id)
        while True:
            try:
                text = await asyncio.wait_for(anext(stream), QUIET_SECONDS)
            except StopAsyncIteration:
                return
            known = max(0, self._come - passed)
            passed += len(text)
            if len(text) > known:
                self._come += len(text) - known
                self._texts.put(text[known:])
