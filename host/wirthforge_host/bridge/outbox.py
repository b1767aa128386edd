"""What goes out: all lines of one turn of the event loop in one write, and a bound on what waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from wirthforge_sdk.contracts.bodies import Bytes
from wirthforge_sdk.contracts.bridge import MAX_MESSAGE_BYTES
from wirthforge_sdk.errors import LimitExceededError

WRITE_BUFFER_BYTES = 1024 * 1024
"""What may wait in the transport before we stop handing it more."""
UNREAD_BYTES = 4 * MAX_MESSAGE_BYTES
"""What may wait besides, of requests and of replies."""


class Outbox:
    """The writing half of a connection.

    Args:
        overflow: Called when the other side lets more than ``UNREAD_BYTES`` of replies pile up.
    """

    def __init__(self, overflow: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._overflow = overflow
        self._transport: asyncio.Transport | None = None
        self._turn: list[Bytes] = []
        self._turn_bytes = 0
        self._queue: deque[tuple[tuple[Bytes, ...], Callable[[], bool]]] = deque()
        self._queue_bytes = 0
        self._writable = asyncio.Event()
        self._writable.set()

    def open(self, transport: asyncio.Transport) -> None:
        """Writes to ``transport`` from now on."""
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    @property
    def is_open(self) -> bool:
        """Whether what is written has a chance to arrive."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_full(self) -> bool:
        """Whether the other side has to catch up."""
        return not self._writable.is_set()

    def write(self, *parts: Bytes) -> None:
        """Sends ``parts``, a line and perhaps the bytes that it announces, with the others of this turn of the loop."""
        if not self._turn:
            self._loop.call_soon(self._flush)
        self._turn += parts
        self._turn_bytes += sum(map(len, parts))
        if self._turn_bytes > WRITE_BUFFER_BYTES:
            self._flush()

    def post(self, parts: tuple[Bytes, ...], wanted: Callable[[], bool]) -> None:
        """Sends ``parts`` now, or when the other side has caught up and they are still ``wanted``.

        Raises:
            LimitExceededError: Too much waits already.
        """
        if self._writable.is_set():
            self.write(*parts)
            return
        size = sum(map(len, parts))
        if self._queue_bytes + size > UNREAD_BYTES:
            raise LimitExceededError("the plugin does not read its calls: try again later")
        self._queue.append((parts, wanted))
        self._queue_bytes += size

    async def until_writable(self) -> None:
        """Returns when the other side has caught up, or is gone."""
        await self._writable.wait()

    def pause(self) -> None:
        """The transport is full."""
        self._writable.clear()

    def resume(self) -> None:
        """The transport has room."""
        self._writable.set()
        while self._queue and self._writable.is_set():
            parts, wanted = self._queue.popleft()
            self._queue_bytes -= sum(map(len, parts))
            if wanted():
                self.write(*parts)

    def close(self) -> None:
        """Forgets what was not sent, and lets go of who waits."""
        self._transport = None
        self._turn.clear()
        self._queue.clear()
        self._writable.set()

    def _flush(self) -> None:
        turn, self._turn, self._turn_bytes = self._turn, [], 0
        if not turn or self._transport is None or self._transport.is_closing():
            return
        self._transport.writelines(turn)
        if self._transport.get_write_buffer_size() > UNREAD_BYTES:
            self._overflow()
