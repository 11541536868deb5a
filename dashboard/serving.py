"""The server of a dashboard, until it is stopped."""

import socket
from collections.abc import Callable

import uvicorn

from dashboard.access.patience import Impatient
from dashboard.app import make_app
from dashboard.settings import Settings

MOST_CONNECTIONS = 500
"""At once; beyond, an answer says so. Who holds one open and says nothing costs a socket and no thread."""
IDLE_SECONDS = 10


def serve(settings: Settings, host: str, port: int, told: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. `told` gets the address as soon as it answers. `port` 0: any that is free.

    Raises OSError where the port is taken.
    """
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    found = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    told(f"http://{shown}:{found}/")
    server_of(settings).run(sockets=[listening])


def server_of(settings: Settings) -> uvicorn.Server:
    """Bounded in what it holds for whom."""
    config = uvicorn.Config(
        make_app(settings),
        http=Impatient,
        log_level="warning",
        server_header=False,
        access_log=False,  # addresses have questions in them
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=3,
        limit_concurrency=MOST_CONNECTIONS,
        ws="none",
    )
    return uvicorn.Server(config)
