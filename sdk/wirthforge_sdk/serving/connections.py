"""How many connections a server keeps, and how long one may take to say what it wants.

Without bounds, whoever can reach the port could use up the descriptors that the server needs for its work.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_CONNECTIONS: Final = 512
"""At a time; another is closed at once."""
HEAD_S: Final = 10.0
"""From a connection, or from the first byte after an answer, to the end of a request's head."""
KEEP_ALIVE_S: Final = 75
"""A connection without a request stays that long: longer than clients keep theirs, so that none sends a request into
a connection that is being closed. (Five seconds, as uvicorn has it, is exactly what httpx has.)"""


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol within these bounds."""

    _deadline: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Takes a connection on, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._deadline = self.loop.call_later(HEAD_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._head_ended()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on; with the first byte after an answer, the time of the next head begins."""
        if self._deadline is None and self.cycle is not None and self.cycle.response_complete:
            self._deadline = self.loop.call_later(HEAD_S, self.transport.close)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Starts the request."""
        self._head_ended()
        super().on_headers_complete()

    def _head_ended(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
