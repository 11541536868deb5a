"""A run's sign of life, and how it learns that it was cancelled."""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from storage.history.ledger import Run
from storage.who import now

HEARTBEAT_SECONDS = 5.0
LOOK_SECONDS = 1.0
"""Between two looks whether the run was cancelled."""
CANCEL = "cancel.json"


def cancel(run: Run, by: str) -> None:
    """Ask a run to stop, wherever its process is: it looks every LOOK_SECONDS."""
    run.write(CANCEL, {"by": by, "at": now()})


def _stop_signal() -> signal.Signals:
    """The command line handles SIGTERM, Python itself SIGINT unless a shell started it in the background."""
    handled = (number for number in (signal.SIGTERM, signal.SIGINT) if callable(signal.getsignal(number)))
    return next(handled, signal.SIGTERM)


class Heartbeat:
    """Shows, while it is entered, that a run's process lives and how far it is: `heartbeat.json`, rewritten every few seconds.

    When it finds that the run was cancelled, it interrupts the main thread, as Ctrl-C and SIGTERM do.
    """

    def __init__(self, run: Run, progress: Callable[[], Any] = lambda: None) -> None:
        """`progress`: what to keep of the present moment, as JSON or a dataclass."""
        self._run = run
        self._progress = progress
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)
        self.cancelled = False
        """Whether somebody asked the run to stop."""

    def __enter__(self) -> "Heartbeat":
        self._beat(0)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        began, beats = time.monotonic(), 0
        while not self._stop.wait(LOOK_SECONDS):
            with suppress(OSError):  # a store that is away for a moment: the next look tells, and the fence guards the commits
                if time.monotonic() - began >= (beats + 1) * HEARTBEAT_SECONDS:
                    beats += 1
                    self._beat(beats)
                if not self.cancelled and self._run.exists(CANCEL):
                    self.cancelled = True
                    signal.pthread_kill(threading.main_thread().ident or 0, _stop_signal())

    def _beat(self, beat: int) -> None:
        self._run.write("heartbeat.json", {"beat": beat, "progress": self._progress()})
