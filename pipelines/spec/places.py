"""Paths and URIs as a person types them: where they cannot lead, and what must not be written into them."""

import re

from pipelines.errors import SpecError

_BUCKET = r"[A-Za-z0-9][A-Za-z0-9._-]{2,254}"
_SEGMENT = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9!_.*'()=+@,:&~-]+"
_S3 = re.compile(rf"s3://{_BUCKET}(?:/{_SEGMENT})*/?")
"""Lance and s3fs read others in two ways: escapes, `?`, `#`, `..` and double slashes would be two places."""
_CLUSTER = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?/?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_CREDENTIALS = re.compile(r"://[^/]*@|[?&](?:x-amz-|aws_|access_key|secret|sig=|signature=|token=|password=)", re.IGNORECASE)


def check_uri(key: str, uri: str) -> None:
    """Raise SpecError if the `uri` under `key` of the spec holds credentials, which it does not repeat, or characters that no path has."""
    if _CREDENTIALS.search(uri):
        raise SpecError(f"{key}: expected a URI without credentials, found some: use the AWS variables, a profile or a role")
    if _CONTROL.search(uri):
        raise SpecError(f"{key}: expected a path of printable characters, found {uri[:80]!r}")


def check_store(key: str, uri: str) -> None:
    """Raise SpecError unless `uri` is a path, or an S3 prefix that is the same to everybody who reads it."""
    check_uri(key, uri)
    if "://" in uri and not _S3.fullmatch(uri):
        raise SpecError(f"{key}: expected a path or s3://bucket/prefix, of letters, digits and !_.*'()=+@,:&~-, found {uri[:200]!r}")


def check_cluster(key: str, address: str) -> None:
    """Raise SpecError unless `address` can be that of a Ray cluster's Jobs API. Credentials are not repeated."""
    if _CREDENTIALS.search(address):
        raise SpecError(f"{key}: expected an address without credentials, found some: a token comes from RAY_AUTH_TOKEN or its file")
    if not _CLUSTER.fullmatch(address):
        raise SpecError(f"{key}: expected the address of a Ray cluster's Jobs API, http://host:8265, found {address[:200]!r}")
