"""How the object store is reached by both clients, s3fs and Lance's own: addresses, time-outs, retries, and errors of one line.

Both find the credentials by the chain of their AWS SDK; none is passed on. A store that is away for half a minute is waited for.
What a person has to act on (a bucket that is not there, keys that are not good) is told at once.
"""

import functools
import io
import itertools
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

Answer = TypeVar("Answer")
Environment = tuple[tuple[str, str], ...]

PATIENCE = 45.0
"""Seconds for which a request is tried again. Lance's client repeats the whole of it: 4 times for a read, 6 times for a listing."""
SILENCE = 30.0
"""Seconds without an answer after which a request is given up."""
CONNECT = 5.0
"""Seconds to connect in."""
LONGEST_PAUSE = 5.0
"""Seconds between two attempts."""
WORTH_TELLING = 3.0
"""Seconds after which a person is told why nothing happens."""
BLOCK_BYTES = 8 << 20
"""What a source file is read ahead by: s3fs would take 50 MB a file."""

BUSY = {"RequestTimeout", "SlowDown", "TooManyRequests", "RequestLimitExceeded", "ConditionalRequestConflict", "OperationAborted"}
DENIED = {"AccessDenied", "AllAccessDisabled", "403"}
ADVICE = {
    "NoSuchBucket": "create the bucket or correct the URI",
    "ExpiredToken": "renew the credentials",
    "InvalidToken": "renew the credentials",
    "TokenRefreshRequired": "renew the credentials",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "SignatureDoesNotMatch": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "set the clock of this machine",
    "AuthorizationHeaderMalformed": "check AWS_REGION",
    "PermanentRedirect": "check AWS_REGION and AWS_ENDPOINT_URL",
    "301": "check AWS_REGION and AWS_ENDPOINT_URL",
}
FULL = "No space left on device"
NO_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a web or instance identity gives them"

logger = logging.getLogger(__name__)


class StoreAway(ConnectionError):
    """The object store gives no answer, or none that is of use: the same may pass later."""


class StoreDenied(PermissionError):
    """The object store does not let these credentials do that."""


class StoreRefused(OSError):
    """The object store says no, and would say it again: a person must act."""


def endpoint(environ: Mapping[str, str] = os.environ) -> str | None:
    """The address of the object store; None: that of AWS. Raises StoreRefused for what is no address."""
    address = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or None
    if address and not re.fullmatch(r"https?://[^@/\s]+/?", address):
        raise StoreRefused("expected http://host:port or https://host in AWS_ENDPOINT_URL, found something else: correct it")
    return address


def region(environ: Mapping[str, str] = os.environ) -> str | None:
    """The region; None: as either client finds it. Of the two variables botocore reads the second one only.

    A store that is not of AWS may be in any region, but the clients would not agree on one. Raises StoreRefused for a profile that
    is not there.
    """
    named = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    return named or (_region_of_profile() if endpoint(environ) else None)


def _region_of_profile() -> str:
    from botocore.exceptions import ProfileNotFound  # type: ignore[import-untyped]
    from botocore.session import Session  # type: ignore[import-untyped]

    try:
        return str(Session().get_config_variable("region") or "us-east-1")
    except ProfileNotFound:
        raise _refused("the profile that AWS_PROFILE names", "none", "correct it, or the file that AWS_CONFIG_FILE names") from None


def object_store_options(uri: str) -> dict[str, str]:
    """What Lance's own client must be told to reach `uri`, beyond the AWS variables that it reads itself. Nothing for a path."""
    if not uri.startswith("s3://"):
        return {}
    address = endpoint()
    return {
        **({"aws_endpoint": address} if address else {}),
        **({"allow_http": "true"} if address and address.startswith("http://") else {}),
        **({"aws_region": name} if (name := region()) else {}),
        # Until the time is over, however often. The throttle would double, and double again, what a failure takes.
        "client_max_retries": "1000",
        "client_retry_timeout": f"{PATIENCE:.0f}",
        "lance_aimd_max_retries": "0",
        "timeout": f"{SILENCE:.0f}s",
        "connect_timeout": f"{CONNECT:.0f}s",
    }


@functools.lru_cache(maxsize=8)
def _connection(environment: Environment, process: int) -> Any:
    """An s3fs for these variables and this process: fsspec would give the one that it made for others."""
    import s3fs

    made = s3fs.S3FileSystem(
        skip_instance_cache=True,
        use_listings_cache=False,  # it would hide the objects that another process has just put
        endpoint_url=endpoint(dict(environment)),
        client_kwargs={"region_name": name} if (name := region(dict(environment))) else {},
        # botocore repeats a request at once if it may; `patiently` does it for as long as is worth it.
        config_kwargs={"connect_timeout": CONNECT, "read_timeout": SILENCE, "retries": {"mode": "standard", "total_max_attempts": 2}},
        default_block_size=BLOCK_BYTES,
    )
    made.retries = 1
    return made


class S3FileSystem:
    """s3fs as the AWS variables say at this moment; waits for a store that is away.

    Raises FileNotFoundError for an object that is not there, StoreDenied for one that is denied, StoreRefused for what a person must
    act on, StoreAway for a store that stays away: OSErrors of one line, with no secret in it.
    """

    def __init__(self) -> None:
        environment = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
        self._fs = _connection(environment, os.getpid())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._fs, name)
        return lambda *args, **options: patiently(lambda: method(*args, **options))

    def open(self, path: str, mode: str = "rb") -> io.RawIOBase:
        """A file to read, whose reads wait for a store that is away, too. `mode`: only "rb"."""
        return _PatientFile(patiently(lambda: self._fs.open(path, mode)))

    def __reduce__(self) -> tuple[type["S3FileSystem"], tuple[()]]:
        return S3FileSystem, ()


class _PatientFile(io.RawIOBase):
    """An object as a file. A read that breaks off is made again from where it began: it is whole or an error."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def readinto(self, buffer: Any) -> int:
        data = patiently(lambda: self._raw.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return bytes(patiently(self._raw.read))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        return int(self._raw.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def patiently(request: Callable[[], Answer]) -> Answer:
    """What `request`, which must be idempotent, gives; made again until `PATIENCE` is over. Raises OSErrors of one line."""
    begin = time.monotonic()
    warned = False
    for attempt in itertools.count():
        try:
            return request()
        except _troubles() as error:
            failure = _explained(error)
            waited = time.monotonic() - begin
            if not isinstance(failure, StoreAway) or waited > PATIENCE:
                raise failure from error
        if waited > WORTH_TELLING and not warned:
            logger.warning("%s; trying for %.0f s", failure, PATIENCE)
            warned = True
        time.sleep(min(0.1 * 2**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1.0))  # noqa: S311  spreads the clients, hides nothing
    raise AssertionError("unreachable")


@functools.cache
def _troubles() -> tuple[type[Exception], ...]:
    """What comes out of s3fs when a request fails: not all of it is an OSError."""
    from aiohttp import ClientError as HttpError
    from botocore.exceptions import BotoCoreError
    from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

    return (OSError, BotoCoreError, HttpError, ResponseParserError)


def _explained(error: Exception) -> OSError:
    """The error as an OSError of one line; a StoreAway if the same request may pass later."""
    from botocore.exceptions import BotoCoreError, HTTPClientError, NoCredentialsError, SSLError
    from botocore.exceptions import ConnectionError as NotConnected

    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return _refusal(int(status), str(response.get("Error", {}).get("Code", status)))
    name = type(error).__name__
    if isinstance(error, NoCredentialsError):
        return _refused("credentials for the object store", "none", NO_CREDENTIALS)
    if isinstance(error, SSLError):
        return _refused("an answer of use from the object store", name, "check AWS_ENDPOINT_URL and AWS_CA_BUNDLE")
    if isinstance(error, NotConnected | HTTPClientError | ConnectionError | TimeoutError):
        return _away(name)
    if isinstance(error, BotoCoreError):
        return _refused("an answer of use from the object store", name, "check the AWS variables and the URI")
    return error if isinstance(error, OSError) else _away(name)


def _refusal(status: int, code: str) -> OSError:
    """The error that an answer of the store means, by its HTTP status and S3's error code."""
    if status >= 500 or code in BUSY or "Throttl" in code:
        return _away(code)
    if code == "NoSuchKey" or (status == 404 and code != "NoSuchBucket"):
        return FileNotFoundError(f"expected an object, found {code}")
    if status == 412:
        return FileExistsError("expected no object of that name, found one")
    if code in DENIED:
        return StoreDenied(f"expected leave from the object store{_at()}, found {code}: check its policy and the credentials")
    return _refused("an answer of use from the object store", code, ADVICE.get(code, "check the AWS variables and the URI"))


def _away(reason: str) -> StoreAway:
    return StoreAway(f"expected an answer from the object store{_at()}, found {reason}: run again when it is back")


def _refused(expected: str, found: str, advice: str) -> StoreRefused:
    return StoreRefused(f"expected {expected}{_at()}, found {found}: {advice}")


def _at() -> str:
    address = endpoint()
    return f" at {urlsplit(address).netloc}" if address else ""


@contextmanager
def clear_errors() -> Iterator[None]:
    """What Lance raises because of the place of a table becomes an OSError of one line: its own may be ValueErrors, with XML in them."""
    try:
        yield
    except (OSError, ValueError) as error:
        failure = store_failure(error)
        if failure is None or failure is error:
            raise
        raise failure from error


def store_failure(error: Exception) -> OSError | None:
    """The failure of the store that an error, ours or Lance's, tells of, in one line; None if it tells of something else."""
    if isinstance(error, StoreAway | StoreDenied | StoreRefused):
        return error
    text = str(error)
    if FULL in text:
        return OSError(f"expected room in the store, found {FULL!r}: free some, then run again")
    if "Failed to get AWS credentials" in text:
        return _refused("credentials for the object store", "none", NO_CREDENTIALS)
    status, code = re.search(r"status code: (\d{3})", text), re.search(r"<Code>(\w+)</Code>", text)
    if status:
        failure = _refusal(int(status[1]), code[1] if code else status[1])
        return failure if isinstance(failure, StoreAway | StoreDenied | StoreRefused) and status[1] != "409" else None
    return _away("no connection") if "HTTP error: " in text or "Generic S3 error" in text else None
