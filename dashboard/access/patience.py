"""How long a connection may keep the server waiting: one that sends its request byte by byte would hold its place for ever."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE_SECONDS = 10.0
"""Within which a request's line and headers must have come, counted from the connection or the request before."""


class Impatient(H11Protocol):
    """Closes connections on which nothing is asked."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def _wait(self) -> None:
        self._answered = self.cycle
        self.loop.call_later(PATIENCE_SECONDS, self._look)

    def _look(self) -> None:
        """Go on waiting if there was a request since the last look, or one is being answered."""
        if self.transport.is_closing():
            return
        at_work = self.cycle is not None and not self.cycle.response_complete
        if at_work or self.cycle is not self._answered:
            self._wait()
        else:
            self.transport.close()
