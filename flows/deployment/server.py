"""The Prefect server: whether it is there, and a client of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL

from pipelines.errors import RevectorError

START = "`prefect server start` starts one, `prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api` names it"


@contextmanager
def server() -> Iterator[SyncPrefectClient]:
    """A client of the server at PREFECT_API_URL. Raises RevectorError if none is named, or none answers."""
    address = PREFECT_API_URL.value()
    if not address:
        raise RevectorError(f"expected a Prefect server at PREFECT_API_URL, found no address: {START}")
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            raise RevectorError(f"expected a Prefect server at {address}, found {_reason(error)}: {START}")
        yield client


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code}"
    return "no answer" if isinstance(error, httpx.TransportError) else type(error).__name__
