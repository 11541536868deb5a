"""A real S3 server on loopback, for tests and benchmarks: `weed server`, whose conditional writes hold."""

import json
import random
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import botocore.session
from botocore.client import BaseClient, Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "revector"
LOOPBACK = "127.0.0.1"
STARTS = 3
STARTS_WITHIN = 60.0
"""Seconds."""
PORTS = range(20_000, 32_000)
"""Below those that the system gives to outgoing connections."""


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)):
                return port


@dataclass(frozen=True)
class ObjectStore:
    """Where the server listens, and whom it lets in."""

    port: int = field(default_factory=free_port)
    access_key: str = "revector-tests"
    secret_key: str = "not-a-secret-of-anyone"

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def environment(self) -> dict[str, str]:
        """The AWS variables that lead to it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self) -> BaseClient:
        """A plain client, for what a test does behind the product's back."""
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
        )


@contextmanager
def serve(folder: Path, store: ObjectStore | None = None, identities: str | None = None) -> Iterator[ObjectStore]:
    """The server with its files in `folder`, the bucket made, until the end of the block. Raises RuntimeError if it does not come up.

    `identities`: a configuration of who may do what, in which `store` must be; else that may do all.
    """
    store = store or ObjectStore()
    (folder / "files").mkdir(parents=True, exist_ok=True)
    (folder / "s3.json").write_text(identities or json.dumps({"identities": [_identity(store)]}))
    process = _started(folder, store)
    try:
        yield store
    finally:
        process.kill()
        process.wait()


def _started(folder: Path, store: ObjectStore) -> subprocess.Popen[bytes]:
    """The server, ready. One that ends at once is started again with other inner ports: somebody was quicker."""
    for _ in range(STARTS):
        with (folder / "log").open("wb") as log:
            # Its own home: no configuration of this machine's. Relative socket names: a long folder name does not fit into an address.
            process = subprocess.Popen(_command(store.port), cwd=folder, env={"HOME": str(folder)}, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(process, store)
            return process
        except (BotoCoreError, ClientError) as error:
            failure = error
            process.kill()
            process.wait()
    tail = "\n".join((folder / "log").read_text(errors="replace").splitlines()[-30:])
    raise RuntimeError(f"expected an S3 server on {store.endpoint}, found {failure}:\n{tail}")


def _identity(store: ObjectStore) -> Mapping[str, object]:
    keys = {"accessKey": store.access_key, "secretKey": store.secret_key}
    return {"name": "tests", "credentials": [keys], "actions": ["Admin", "Read", "List", "Tagging", "Write"]}


def _command(port: int) -> list[str]:
    inner = [f"-{part}.port{kind}={free_port()}" for part in ("master", "volume", "filer") for kind in ("", ".grpc")]
    return [
        str(Path(sysconfig.get_path("scripts")) / "weed"),
        "server",
        *("-dir=files", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}"),
        *("-master.telemetry=false", "-master.volumeSizeLimitMB=1024", "-master.electionTimeout=1s", "-volume.max=64"),
        *("-filer", "-filer.localSocket=filer.sock", *inner),
        *("-s3", f"-s3.port={port}", f"-s3.port.grpc={free_port()}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-s3.config=s3.json", "-s3.localSocket=s3.sock"),
    ]


def _wait(process: subprocess.Popen[bytes], store: ObjectStore) -> None:
    """Until it has made the bucket and taken an object: it answers before it can do either."""
    client, deadline = store.client(), time.monotonic() + STARTS_WITHIN
    while True:
        try:
            if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
            return
        except (BotoCoreError, ClientError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
