"""A proxy in front of the object store that fails on demand: errors, lost replies, silence, absence, ignored conditions.

It stands between the clients and the real server, so that what is injected is exactly what a network or a store does to a client,
and what the server has applied is real.
"""

import re
import socket
import struct
import threading
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.objectstore import LOOPBACK, ObjectStore, free_port

Kind = Literal["500", "503", "403", "drop", "drop after", "cut", "hang", "late", "away", "ignore condition"]
PIECE = 1 << 16
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "te", "trailer", "upgrade"}
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of no seconds: closing resets the connection instead of ending it in good order."""


@dataclass(frozen=True)
class Fault:
    """What happens to the requests that it fits."""

    kind: Kind
    """`drop`: closed before anything was applied; `drop after`: applied, then closed without an answer; `cut`: closed in the middle of
    the answer's body; `hang`: no answer for `seconds`; `late`: applied after `seconds`, when the client has given up; `away`: all
    connections are refused for `seconds`."""
    method: str = "[A-Z]+"
    """Regex: PUT, GET, HEAD, DELETE, POST, or LIST, which is a GET of the keys under a prefix."""
    path: str = ""
    """Regex that is searched for in `bucket/key`; in `bucket/prefix` of a LIST."""
    times: int = 1
    """How many of them."""
    skip: int = 0
    """How many of them are let through before."""
    seconds: float = 3600.0
    """How long it hangs or is away."""


class Hit(NamedTuple):
    """A request that came, or that a fault was injected into."""

    method: str
    path: str
    kind: str = ""


@dataclass
class _Planted:
    fault: Fault
    seen: int = 0

    def fits(self, method: str, path: str) -> bool:
        return bool(re.fullmatch(self.fault.method, method) and re.search(self.fault.path, path))

    def strikes(self) -> bool:
        self.seen += 1
        return self.fault.skip < self.seen <= self.fault.skip + self.fault.times


@dataclass
class FaultProxy:
    """A context manager: listens from its beginning to its end, and passes on what no fault fits."""

    store: ObjectStore
    hits: list[Hit] = field(default_factory=list)
    """What was injected, in order."""
    requests: list[Hit] = field(default_factory=list)
    """All that came, in order."""
    _port: int = field(default_factory=free_port)
    _planted: list[_Planted] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)
    _back: threading.Event = field(default_factory=threading.Event)
    _open: set[socket.socket] = field(default_factory=set)

    def __enter__(self) -> Self:
        self._back.set()
        self._listening = self._listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._back.set()
        self._hang_up()

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    def environment(self) -> dict[str, str]:
        """The AWS variables that lead through it."""
        return self.store.environment() | {"AWS_ENDPOINT_URL": self.endpoint}

    def inject(self, *faults: Fault) -> None:
        """From now on. Each counts the requests that it fits; one that several strike meets the first of them."""
        with self._lock:
            self._planted += map(_Planted, faults)

    def clear(self) -> None:
        """Forget the faults, and what came and was injected."""
        with self._lock:
            self._planted.clear()
            self.hits.clear()
            self.requests.clear()

    def struck(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets."""
        with self._lock:
            self.requests.append(Hit(method, path))
            striking = [planted.fault for planted in self._planted if planted.fits(method, path) and planted.strikes()]
            fault = striking[0] if striking else None
            if fault is not None:
                self.hits.append(Hit(method, path, fault.kind))
        return fault

    def leave(self, seconds: float) -> None:
        """Refuse all connections, those that are open included, for so long."""
        self._back.clear()
        self._hang_up()
        threading.Timer(seconds, self._back.set).start()

    def wait(self, seconds: float) -> None:
        """So long, or until the proxy ends."""
        self._ended.wait(seconds)

    def _listen(self) -> socket.socket:
        return socket.create_server((LOOPBACK, self._port), backlog=256)

    def _hang_up(self) -> None:
        with self._lock:
            waiting, self._open = self._open, set()
        # A shutdown wakes the thread that waits in accept(); a close would not.
        _end(self._listening)
        for connection in waiting:
            _end(connection)

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, address = self._listening.accept()
            except OSError:
                self._listening.close()
                self._back.wait()
                if not self._ended.is_set():
                    self._listening = self._listen()
                continue
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection, address), daemon=True).start()

    def _serve(self, connection: socket.socket, address: Any) -> None:
        try:
            _Exchange(connection, address, self)  # type: ignore[arg-type]
        except (OSError, HTTPException):
            pass  # the client left, or we hung up
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


def _end(connection: socket.socket) -> None:
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended already


class _Exchange(BaseHTTPRequestHandler):
    """One connection of a client, with one of its own to the server."""

    protocol_version = "HTTP/1.1"
    server: FaultProxy  # type: ignore[assignment]

    def setup(self) -> None:
        super().setup()
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.upstream = HTTPConnection(LOOPBACK, self.server.store.port)

    def finish(self) -> None:
        self.upstream.close()
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests look at `hits`."""

    def _answer(self) -> None:
        method, path = _described(self.command, self.path)
        fault = self.server.struck(method, path)
        match fault.kind if fault else None:
            case "500" | "503" | "403" as status:
                self._refuse(int(status))
            case "drop":
                self._drop()
            case "hang":
                assert fault
                self.server.wait(fault.seconds)
                self._drop()
            case "away":
                assert fault
                self.server.leave(fault.seconds)
                self._drop()
            case "late":
                assert fault
                pieces = list(self._body())
                self.server.wait(fault.seconds)
                self._forward(dict(self.headers.items()), pieces).read()
                self._drop()
            case "drop after":
                self._forward(dict(self.headers.items())).read()
                self._drop()
            case "ignore condition":
                self._reply(self._forward(self._signed_anew()))
            case kind:
                self._reply(self._forward(dict(self.headers.items())), cut=kind == "cut")

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _answer

    def _drop(self) -> None:
        self.close_connection = True
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

    def _refuse(self, status: int) -> None:
        for _ in self._body():
            pass
        name = {500: "InternalError", 503: "SlowDown", 403: "AccessDenied"}[status]
        text = f"<Error><Code>{name}</Code><Message>injected</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _forward(self, headers: dict[str, str], body: Iterable[bytes] | None = None) -> HTTPResponse:
        """The server's answer. Host and all else that is signed go as they came."""
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.upstream.putheader(name, value)
        if chunked:
            self.upstream.putheader("Transfer-Encoding", "chunked")
        self.upstream.endheaders(self._body() if body is None else iter(body), encode_chunked=chunked)
        return self.upstream.getresponse()

    def _body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self.rfile.read(min(left, PIECE))
            if not piece:
                raise ConnectionResetError("the client left in the middle of its body")
            yield piece
            left -= len(piece)

    def _reply(self, answer: HTTPResponse, cut: bool = False) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        chunked = answer.length is None and self.command != "HEAD"
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if cut:
            self.wfile.write(answer.read((answer.length or 2) // 2))
            self._drop()
            return
        while piece := answer.read(PIECE):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _signed_anew(self) -> dict[str, str]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in {"if-none-match", "authorization"}}
        store = self.server.store
        request = AWSRequest(self.command, f"{store.endpoint}{self.path}", headers=headers)
        _Resigned(Credentials(store.access_key, store.secret_key), "s3", "us-east-1").add_auth(request)
        return dict(request.headers.items())


class _Resigned(S3SigV4Auth):
    """Signs with the hash of the body that the client found: the body is on its way, not here."""

    def payload(self, request: AWSRequest) -> str:
        return str(request.headers["X-Amz-Content-SHA256"])


def _described(command: str, target: str) -> tuple[str, str]:
    """The kind of request, and `bucket/key`."""
    path, _, query = target.partition("?")
    path = urllib.parse.unquote(path).strip("/")
    values = urllib.parse.parse_qs(query)
    if command == "GET" and ("list-type" in values or "delimiter" in values or "prefix" in values):
        return "LIST", f"{path}/{values.get('prefix', [''])[0]}"
    return command, path
