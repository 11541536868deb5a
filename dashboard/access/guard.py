"""The guard of every request: which host it was sent to, who sent it, from which page, how long it is; and what a browser may do with the
answer. Pure ASGI, before any route."""

import asyncio
import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, urlencode, urlsplit

from starlette.exceptions import HTTPException

from dashboard.settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]

COOKIE = "revector"
ENTRANCE = "/enter"
SIGN_OF_LIFE, STATIC_FILES = "/healthz", "/static/"
"""Open without a token: they say nothing of the store."""
MOST_BODY = 64 << 10
MOST_TARGET = 16 << 10
"""Bytes of the path and what follows it."""
BODY_SECONDS = 10.0
"""Within which all of a body must have come."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # with "no-referrer" a browser sends `Origin: null` along with our own forms, too
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Refused(HTTPException):
    """A request that gets no further, with the status of the answer and a line for a person; the application may have begun."""


class Guard:
    """Wraps the application.

    What it lets through has `scope["viewer"]`: who it is, as far as a proxy says so, else ""; and `scope["known"]`: False if it is
    anybody, who may see nothing of the store.
    """

    def __init__(self, app: Callable[..., Any], settings: Settings, door: Callable[[int, str, str], bytes]) -> None:
        """`door` makes the page that a refusal shows, of its status, its line, and where the viewer wanted to go."""
        self._app = app
        self._settings = settings
        self._door = door
        self._pass = pass_of(settings.token)

    async def __call__(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no sockets are spoken here
        answer = _Answer(send, private=not scope["path"].startswith(STATIC_FILES))
        try:
            headers = _headers(scope, (self._settings.header or "").lower())
            self._check_host(headers)
            _check_length(scope, headers)
            if scope["method"] not in ("GET", "HEAD"):
                _check_origin(scope, headers)
            scope["known"] = self._knows(scope, headers)
            if (scope["known"] or _is_open(scope["path"])) and not self._enters(scope):
                await self._app(scope, _limited(receive), answer)
            else:
                await self._at_the_door(scope, headers, _limited(receive), answer)
        except Refused as refusal:
            await answer.whole(refusal.status_code, self._door(refusal.status_code, refusal.detail, ""))

    def _check_host(self, headers: dict[str, str]) -> None:
        """A name that an attacker's server resolves to this machine is none of ours: a browser sends it along (DNS rebinding)."""
        host = headers.get("host", "")
        name = _parts(f"//{host}").hostname or ""
        if name not in ("localhost", *self._settings.names) and not _is_address(name):
            raise Refused(400, f"expected the name of this server, found {name[:100]!r}: `revector dashboard --name` allows one")

    def _knows(self, scope: Scope, headers: dict[str, str]) -> bool:
        scope["viewer"] = headers.get(self._settings.header.lower(), "").strip()[:100] if self._settings.header else ""
        return bool(scope["viewer"]) if self._settings.header else self._has_pass(headers)

    def _has_pass(self, headers: dict[str, str]) -> bool:
        """Whatever cookies other servers of this machine have left beside ours: browsers send them all, of every port."""
        cookies = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        bearer = headers.get("authorization", "").removeprefix("Bearer ").strip()
        shown = [value for name, _, value in cookies if name == COOKIE]
        return any(_same(value, self._pass) for value in shown) or _same(bearer, self._settings.token)

    def _enters(self, scope: Scope) -> bool:
        """Whether a token is shown, also by who is known already: it must not stay in the address."""
        shown = scope["method"] == "GET" and "token" in parse_qs(scope["query_string"].decode("latin-1"))
        return not self._settings.header and (shown or scope["path"] == ENTRANCE)

    async def _at_the_door(self, scope: Scope, headers: dict[str, str], receive: Callable[..., Any], answer: "_Answer") -> None:
        """Take the token, once: from the address that the server printed, or from the form. It stays in no address and no history."""
        if self._settings.header:
            raise Refused(401, f"expected a viewer whom a proxy names in {self._settings.header}, found none")
        asked = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["path"] == ENTRANCE and scope["method"] == "POST":
            form = parse_qs((await read_body(receive)).decode("utf-8", "replace"))
            token, wanted = form.get("token", [""])[0], form.get("to", ["/"])[0]
        else:
            token = asked.pop("token", [""])[0]
            wanted = quote(scope["path"]) + (f"?{urlencode(asked, doseq=True)}" if asked else "")
        wanted = wanted if _OWN.fullmatch(wanted) and not wanted.startswith(ENTRANCE) else "/"
        if scope["known"] or _same(token, self._settings.token):
            secure = "; Secure" if scope.get("scheme") == "https" else ""
            # Lax, for an address that a colleague sends must open; nothing is done by a GET, and a POST must come from our own page.
            cookie = f"{COOKIE}={self._pass}; Path=/; HttpOnly; SameSite=Lax; Max-Age=604800{secure}"
            await answer.whole(303, b"", [(b"location", wanted.encode()), (b"set-cookie", cookie.encode())])
            return
        why = "expected the token of this dashboard, found another" if token else "this dashboard asks for its token"
        await answer.whole(401, self._door(401, why, wanted))


def pass_of(token: str) -> str:
    """What a cookie has in place of the token: whoever reads one cannot make the other."""
    return hmac.new(token.encode(), b"pass", hashlib.sha256).hexdigest()


def form_token(token: str) -> str:
    """What a form of ours has, and a page elsewhere cannot know."""
    return hmac.new(token.encode(), b"form", hashlib.sha256).hexdigest()


async def read_body(receive: Callable[..., Any]) -> bytes:
    """All of a request's body, as far as `receive` lets it."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


class _Answer:
    """Sends, with the headers that every answer has."""

    def __init__(self, send: Callable[..., Any], private: bool) -> None:
        self._send = send
        self._caching = (b"cache-control", b"no-store" if private else b"max-age=3600")

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            given = [pair for pair in message["headers"] if pair[0].lower() not in (b"server", b"cache-control")]
            message = {**message, "headers": [*given, *HEADERS, self._caching]}
        await self._send(message)

    async def whole(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        kind = (b"content-type", b"text/html; charset=utf-8")
        await self({"type": "http.response.start", "status": status, "headers": [kind, *headers]})
        await self._send({"type": "http.response.body", "body": body})


_OWN = re.compile(r"/(?![/\\])[!-~]*")
"""An address of ours as we write them. Browsers leave out tabs and ends of lines, and take // or /\\ for the name of another server."""


def _headers(scope: Scope, viewer: str) -> dict[str, str]:
    """By lower-case name. Two of a kind would be read differently by a proxy and by us."""
    found: dict[str, str] = {}
    for key, value in scope["headers"]:
        name = key.decode("latin-1")
        if name in found and name in ("host", "origin", "content-length", "authorization", viewer):
            raise Refused(400, f"expected one header {name}, found two")
        found[name] = value.decode("latin-1")
    return found


def _check_length(scope: Scope, headers: dict[str, str]) -> None:
    if len(scope["raw_path"]) + len(scope["query_string"]) > MOST_TARGET:
        raise Refused(414, f"expected an address of at most {MOST_TARGET:,} bytes")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MOST_BODY:
        raise Refused(413, f"expected at most {MOST_BODY:,} bytes")


def _check_origin(scope: Scope, headers: dict[str, str]) -> None:
    """A form on another site can send a POST here, with the viewer's cookie; its browser says where from."""
    if scope["method"] != "POST":
        raise Refused(405, "expected GET or POST")
    origin = _parts(headers.get("origin", ""))
    if origin.netloc.lower() != headers.get("host", "").lower() or headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise Refused(403, "expected a form of this dashboard, found a request from elsewhere")


def _parts(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        raise Refused(400, "expected an address, found what is none") from None


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _is_open(path: str) -> bool:
    return path == SIGN_OF_LIFE or path.startswith(STATIC_FILES)


def _same(shown: str, right: str) -> bool:
    return hmac.compare_digest(shown.encode(), right.encode())


def _limited(receive: Callable[..., Any]) -> Callable[..., Any]:
    """`receive`, which refuses a body that is too long, whatever its header said, or that trickles in."""
    size, whole, began = 0, False, time.monotonic()

    async def limited() -> Message:
        nonlocal size, whole
        if whole:
            waited: Message = await receive()  # for the viewer to go away
            return waited
        try:
            message: Message = await asyncio.wait_for(receive(), began + BODY_SECONDS - time.monotonic())
        except TimeoutError:
            raise Refused(408, f"expected all of the request within {BODY_SECONDS:.0f} s") from None
        size += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if size > MOST_BODY:
            raise Refused(413, f"expected at most {MOST_BODY:,} bytes")
        return message

    return limited
