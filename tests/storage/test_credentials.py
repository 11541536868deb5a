"""Both clients of the object store find the same credentials, wherever they come from, and say so when there are none."""

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest

from pipelines.errors import NotFound
from storage.store.lance import Store
from storage.store.objects import Objects
from storage.store.s3 import StoreRefused

EMPTY_LISTING = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
ASSUMED = b"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>
<Credentials><AccessKeyId>IDENTITY</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


@dataclass(frozen=True, slots=True)
class Signed:
    """How a request was signed."""

    key: str
    region: str
    with_token: bool


@dataclass
class Cloud:
    """Stands for an object store, the token service and the two metadata services of a cloud."""

    folder: Path
    url: str = ""
    signed: list[Signed] = field(default_factory=list)

    def answer(self, path: str, authorization: str, token: bool, body: bytes) -> bytes:
        if path.startswith("/latest/api/token"):
            return b"token"
        if path.startswith("/latest/meta-data/iam/security-credentials/role"):
            return temporary("INSTANCE")
        if path.startswith("/latest/meta-data/iam"):
            return b"role"
        if path.startswith("/latest/"):
            return b"none"
        if path.startswith("/container"):
            return temporary("CONTAINER")
        if b"AssumeRoleWithWebIdentity" in body:
            return ASSUMED
        found = re.search(r"Credential=([^/]+)/\d+/([^/]+)/", authorization)
        self.signed.append(Signed(found[1], found[2], token) if found else Signed("", "", token))
        return EMPTY_LISTING


def temporary(key: str) -> bytes:
    return orjson.dumps(
        {
            "Code": "Success",
            "AccessKeyId": key,
            "SecretAccessKey": "s",
            "Token": "t",
            "Expiration": "2099-01-01T00:00:00Z",
            "Type": "AWS-HMAC",
        }
        | {"LastUpdated": "2026-01-01T00:00:00Z"}
    )


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """Nothing of this machine's, and no credentials yet."""
    made = Cloud(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            token = "X-Amz-Security-Token" in self.headers
            text = made.answer(self.path, self.headers.get("Authorization", ""), token, body)
            self.send_response(200)
            self.send_header("Content-Type", "text/xml" if text.startswith(b"<") else "text/plain")
            self.send_header("Content-Length", str(len(text)))
            self.send_header("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "600")
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made.url = f"http://127.0.0.1:{server.server_port}"
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION", "DEFAULT_REGION"):
            monkeypatch.delenv(f"AWS_{name}")
        (tmp_path / "credentials").write_text("[other]\naws_access_key_id = PROFILE\naws_secret_access_key = s\naws_session_token = t\n")
        process = orjson.dumps({"Version": 1, "AccessKeyId": "PROCESS", "SecretAccessKey": "s", "SessionToken": "t"}).decode()
        (tmp_path / "process").write_text(process)
        (tmp_path / "config").write_text(f"[profile process]\nregion = eu-west-1\ncredential_process = cat {tmp_path}/process\n")
        (tmp_path / "token").write_text("a web token")
        for name, value in {
            "ENDPOINT_URL": made.url,
            "SHARED_CREDENTIALS_FILE": f"{tmp_path}/credentials",
            "CONFIG_FILE": f"{tmp_path}/config",
            "EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        yield made
        server.shutdown()


KEYS = {"AWS_ACCESS_KEY_ID": "ENVIRONMENT", "AWS_SECRET_ACCESS_KEY": "s"}
IDENTITY = {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/revector", "AWS_ROLE_SESSION_NAME": "tests", "AWS_REGION": "eu-north-1"}
SOURCES: dict[str, tuple[Callable[[Cloud], dict[str, str]], Signed]] = {
    "keys": (lambda _: KEYS, Signed("ENVIRONMENT", "us-east-1", False)),
    "keys and token": (
        lambda _: {**KEYS, "AWS_SESSION_TOKEN": "t", "AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "eu-west-1"},
        Signed("ENVIRONMENT", "eu-north-1", True),
    ),
    "profile": (lambda _: {"AWS_PROFILE": "other", "AWS_DEFAULT_REGION": "eu-west-1"}, Signed("PROFILE", "eu-west-1", True)),
    "process": (lambda _: {"AWS_PROFILE": "process"}, Signed("PROCESS", "eu-west-1", True)),
    "container": (lambda cloud: {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{cloud.url}/container"}, Signed("CONTAINER", "us-east-1", True)),
    "instance": (
        lambda cloud: {"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.url},
        Signed("INSTANCE", "us-east-1", True),
    ),
    "web identity": (
        lambda cloud: {**IDENTITY, "AWS_WEB_IDENTITY_TOKEN_FILE": f"{cloud.folder}/token", "AWS_ENDPOINT_URL_STS": cloud.url},
        Signed("IDENTITY", "eu-north-1", True),
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_both_clients_find_the_same_credentials(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    variables, expected = SOURCES[source]
    for name, value in variables(cloud).items():
        monkeypatch.setenv(name, value)
    assert Objects("s3://bucket/store").names("") == []
    assert set(cloud.signed) == {expected}
    cloud.signed.clear()
    with pytest.raises(NotFound):
        Store("s3://bucket/store").open("t")
    assert set(cloud.signed) == {expected}


@pytest.mark.parametrize("client", [lambda root: Objects(root).names(""), lambda root: Store(root).open("t")], ids=["s3fs", "lance"])
def test_no_credentials_are_told_of(cloud: Cloud, client: Callable[[str], object]) -> None:
    with pytest.raises(StoreRefused, match=r"expected credentials for the object store at 127.*found none: set AWS_ACCESS_KEY_ID"):
        client("s3://bucket/store")
    assert not cloud.signed


@pytest.mark.parametrize("client", [lambda root: Objects(root).names(""), lambda root: Store(root).open("t")], ids=["s3fs", "lance"])
def test_profile_that_is_not_there_is_told_of(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, client: Callable[[str], object]) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreRefused, match="AWS_PROFILE"):
        client("s3://bucket/store")


@pytest.mark.parametrize("address", ["nonsense", "http://name:secret@127.0.0.1:9", "ftp://127.0.0.1"])
def test_address_that_is_none_is_told_of_and_not_repeated(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    for client in (lambda: Objects("s3://b/s").names(""), lambda: Store("s3://b/s").open("t")):
        with pytest.raises(StoreRefused, match="AWS_ENDPOINT_URL") as failure:
            client()
        assert address not in str(failure.value)
