"""Whether jobs may be sent to a cluster: one that is there, that does not take them from anybody, and that takes ours.

Tokens are Ray's own (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token), and go nowhere but into the header of a request.
"""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import requests

from pipelines.errors import WorkerError
from pipelines.spec.places import check_cluster

ANSWER_SECONDS = 20.0
"""For the Jobs API to answer a request."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What a request to a cluster's Jobs API needs, once `admission` has looked whom that lets in."""

    address: str
    version: str
    """Of its Ray."""
    headers: Mapping[str, str] = field(repr=False)
    """Of each request: with the token, if there is one."""


def admission(address: str) -> Admission:
    """Look whether jobs may be sent to `address`.

    Raises SpecError for what is no address; WorkerError if nobody answers, if the cluster takes jobs from anybody, unless it is this
    machine's own, or if it does not take our token.
    """
    check_cluster("--cluster", address)
    address, token = address.rstrip("/"), _token()
    demanded = _demands_token(address)
    if demanded and token is None:
        raise WorkerError(
            f"expected the token of the cluster at {address}, found none: put it into a file that RAY_AUTH_TOKEN_PATH names, "
            "or into ~/.ray/auth_token"
        )
    headers = {"Authorization": f"Bearer {token}"} if demanded else {}  # nobody else needs to see it
    version = _version(address, headers)
    if not demanded and not is_loopback(address):
        raise WorkerError(
            f"expected a cluster that demands a token at {address}, found one that takes jobs from anybody: "
            "start it with RAY_AUTH_MODE=token"
        )
    return Admission(address, version, headers)


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches `address`, judged by what is written there: a name may lead elsewhere tomorrow."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token() -> str | None:
    """As Ray itself looks for it. Raises WorkerError if there is none where the environment says."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return file.read_text().strip() or None
    except OSError as error:
        if named:
            raise WorkerError(f"expected Ray's token in {file} (RAY_AUTH_TOKEN_PATH), found {type(error).__name__}") from None
        return None


def _demands_token(address: str) -> bool:
    return _get(address, "/api/jobs/revector", {}).status_code in (401, 403)


def _version(address: str, headers: Mapping[str, str]) -> str:
    answer = _get(address, "/api/version", headers)
    if answer.status_code in (401, 403):
        raise refused(address)
    try:
        return str(answer.json()["ray_version"])
    except (ValueError, KeyError, TypeError):
        raise WorkerError(f"expected Ray's Jobs API at {address}, found something else (HTTP {answer.status_code})") from None


def _get(address: str, path: str, headers: Mapping[str, str]) -> requests.Response:
    try:
        return requests.get(f"{address}{path}", headers=headers, timeout=ANSWER_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        raise WorkerError(
            f"expected Ray's Jobs API at {address}, found {type(error).__name__}: is the cluster up, and its port open?"
        ) from None


def refused(address: str) -> WorkerError:
    """The error for a cluster that does not take our token. Ray does not say where it had that from, so all places are named."""
    return WorkerError(
        f"expected the token of the cluster at {address}, found another, which it does not take: look at RAY_AUTH_TOKEN, "
        "RAY_AUTH_TOKEN_PATH and ~/.ray/auth_token, in this order"
    )
