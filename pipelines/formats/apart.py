"""Decoders in a process of their own, which sees nothing but the bytes of one file: what ends that process costs the file alone.

Arrow ends its process over Parquet files with encrypted columns, and over some footers that are damaged.
"""

import contextlib
import io
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.formats.limits import Unreadable

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
Part = TypeVar("Part")
Decode = Callable[..., Iterator[Part]]

WHOLE_BYTES = 1 << 20
"""Of a file that goes over at once: to ask for its parts would take longer."""

DYING_SECONDS = 5.0
"""That a process may take from the end of its pipe to its own."""

_START = "import sys; sys.path[:] = sys.argv[2:]; from pipelines.formats.apart import serve; serve(int(sys.argv[1]))"


def decoded_apart(decode: Decode[Part], stream: Any, *arguments: Any) -> Iterator[Part]:
    """What `decode(stream, *arguments)` gives, one by one. `stream` is read here; all else goes there and back as pickles.

    Raises Unreadable for all that `decode` raises, and if the process dies of it. What `stream` raises passes.
    """
    process = _idle_process() or _Process()
    try:
        problem = yield from process.run(decode, stream, arguments)
    except BaseException:  # also where nobody wants the rest: it is in the midst of a file
        process.end()
        raise
    _idle.append(process)
    if problem is not None:
        raise Unreadable(problem)


class _Process:
    """Reads one file after another. Ends when its pipe does: with this process."""

    def __init__(self) -> None:
        from multiprocessing import Pipe  # takes time where no file is read

        self._pipe, theirs = Pipe()
        with theirs:
            self._running = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs.fileno()), *sys.path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        if self._message() is None:
            raise ChildProcessError(f"expected a process that decodes files, found that it ends by {self._death()} when it is started")

    @property
    def alive(self) -> bool:
        return self._running.poll() is None

    def run(self, decode: Decode[Part], stream: Any, arguments: tuple[Any, ...]) -> Generator[Part, None, str | None]:
        """Yields what `decode` does. Returns what is wrong with the file, if anything is."""
        size = stream.seek(0, io.SEEK_END)
        self._send((decode, size, _part(stream, 0, size) if size <= WHOLE_BYTES else None, arguments))
        while True:
            match self._message():
                case "read", offset, count:
                    self._send(_part(stream, offset, count))
                case "part", part:
                    yield part
                case "end", str() | None as problem:
                    return problem
                case _:
                    raise Unreadable(f"incomplete: expected a whole and valid file, found one that ends what decodes it by {self._death()}")

    def end(self) -> None:
        """At once, whatever it does."""
        self._pipe.close()
        self._running.kill()
        self._running.wait()

    def _death(self) -> str:
        """By what it ended, of one that closed its end of the pipe."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._running.wait(DYING_SECONDS)
        self.end()
        code = self._running.returncode
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    def _send(self, message: object) -> None:
        with contextlib.suppress(ConnectionError):  # it died: the next message says so
            self._pipe.send(message)

    def _message(self) -> Any:
        """The next one; None if it died."""
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionError):
            return None


def _part(stream: Any, offset: int, count: int) -> bytes:
    stream.seek(offset)
    data: bytes = stream.read(count)
    return data


_idle: list[_Process] = []


def _idle_process() -> _Process | None:
    while _idle:
        process = _idle.pop()
        if process.alive:
            return process
        process.end()
    return None


def serve(descriptor: int) -> None:
    """Decode what the pipe at `descriptor` asks for, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person stops the one that asks
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # of other people's documents, and a second's work
    from multiprocessing.connection import Connection

    with contextlib.suppress(EOFError, ConnectionError), Connection(descriptor) as pipe:
        pipe.send("started")
        while True:
            decode, size, whole, arguments = pipe.recv()
            stream = _RemoteBytes(pipe, size) if whole is None else io.BytesIO(whole)
            pipe.send(("end", _problem(pipe, decode, stream, arguments)))


def _problem(pipe: "Connection", decode: Decode[Any], stream: io.IOBase, arguments: tuple[Any, ...]) -> str | None:
    try:
        for part in decode(stream, *arguments):
            pipe.send(("part", part))
    except (EOFError, ConnectionError):
        raise
    except Unreadable as error:
        return str(error)
    except Exception as error:  # noqa: BLE001
        # The outermost edge of this process, which has nothing but the file: whatever a decoder does not cope with, is wrong with it.
        return f"incomplete: expected a whole and valid file, found it broken ({type(error).__name__})"
    return None


class _RemoteBytes(io.RawIOBase):
    """The stream of whoever asks, in this process."""

    def __init__(self, pipe: "Connection", size: int) -> None:
        self._pipe = pipe
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, count: int = -1) -> bytes:
        """At most `count` bytes, up to the end; without a count, all."""
        rest = max(0, self._size - self._at)
        self._pipe.send(("read", self._at, rest if count is None or count < 0 else min(count, rest)))
        data: bytes = self._pipe.recv()
        self._at += len(data)
        return data
