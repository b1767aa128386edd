"""One call with streams, as its caller has it: what comes, what is fed, and how it ends.

What waits for the application is never more than the credit that the plugin was given, whatever the plugin does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from msgspec import Raw

from wirthforge_host.bridge import messages
from wirthforge_host.bridge.calls import Calls, OpenCall, Progress
from wirthforge_host.bridge.outbox import Outbox
from wirthforge_host.errors import PluginFailedError
from wirthforge_sdk.contracts.bridge import (
    CREDIT,
    END,
    ITEM,
    MAX_CALL_BYTES,
    MAX_CALL_ELEMENTS,
    MAX_CHUNK_BYTES,
    MAX_CREDIT_BYTES,
    META_BYTES,
    WINDOW_BYTES,
)
from wirthforge_sdk.errors import InvalidInputError, WirthForgeError

PROGRESS_S = 0.05
"""Between two words of progress that are passed on."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a result."""

    value: Any
    """JSON."""


Happening = Item | Progress | bytes
"""What a streamed call gives: bytes are raw ones of its result."""


class Stream:
    """One call with streams: iterate over what happens, feed what it takes, then ask for its :meth:`answer`.

    An asynchronous context manager: leaving it early tells the plugin that nobody waits.
    """

    def __init__(
        self,
        calls: Calls,
        outbox: Outbox,
        call: OpenCall,
        breach: Callable[[str], None],
        *,
        takes_input: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls = calls
        self._outbox = outbox
        self._call = call
        self._breach = breach
        self._items: deque[tuple[Raw | bytes, int]] = deque()
        self._credit = WINDOW_BYTES
        self._owed = 0
        self._next_seq = 0
        self._progress: Progress | None = None
        self._progressed = float("-inf")
        self._wake: asyncio.Future[None] | None = None
        self._takes_input = takes_input
        self._input_begun = False
        self._input_credit = 0
        self._input_seq = 0
        self._fed = asyncio.Event()
        self.heard = self._loop.time()
        self.taken = self.sent = 0
        """Items that the caller took, and sent."""
        call.credit_left = lambda: self._credit
        call.on_progress = self.tell
        call.future.add_done_callback(self._ended)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._calls.leave(self._call)
        self._items.clear()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Happening:
        """What happened next.

        Raises:
            StopAsyncIteration: Nothing will: ask for the :meth:`answer`.
            PluginFailedError: An item cannot be read; the call is over.
        """
        while True:
            if self._progress is not None:
                told, self._progress = self._progress, None
                return told
            if self._items:
                return self._take()
            if self._call.future.done():
                raise StopAsyncIteration
            self._wake = self._loop.create_future()
            await self._wake

    async def answer(self) -> Any:
        """The result of the reply; raises as ``Calls.request``."""
        return await asyncio.shield(self._call.future)

    def abort(self, error: WirthForgeError) -> None:
        """Ends the call with ``error``; the plugin is told that nobody waits."""
        self._calls.fail(self._call, error, "its caller gave it up")

    @property
    def takes_input(self) -> bool:
        """Whether an argument follows that is not complete."""
        return self._takes_input

    async def feed(self, item: Any) -> bool:
        """Sends an item of the argument that follows, JSON or ``bytes``, once the plugin has room for it.

        Returns:
            False when the call is over, and nothing is taken any more.

        Raises:
            InvalidInputError: It is not JSON that can be sent, or too long.
        """
        parts: list[Any] = [item]
        if isinstance(item, bytes):
            parts = [item[at : at + MAX_CHUNK_BYTES] for at in range(0, len(item), MAX_CHUNK_BYTES)]
        for part in parts:
            if not await self._may_feed():
                return False
            params: dict[str, Any] = {"requestId": self._call.number, "seq": self._input_seq}
            if isinstance(part, bytes):
                line = messages.notification(ITEM, {**params, "_meta": {META_BYTES: len(part)}})
                self._send(line, part)
            else:
                line = messages.notification(ITEM, {**params, "item": part})
                if len(line) > MAX_CALL_BYTES:
                    raise InvalidInputError(f"an item is over {MAX_CALL_BYTES} bytes as JSON", field="item")
                self._send(line)
        return True

    async def finish(self) -> None:
        """The argument that follows is complete."""
        # Not before the plugin's first credit: until then, the request itself may wait to be sent.
        while not self._is_known():
            await self._fed.wait()
        self._takes_input = False
        if not self._call.future.done():
            self._outbox.write(messages.notification(END, {"requestId": self._call.number}))

    def _is_known(self) -> bool:
        return self._input_begun or self._call.future.done()

    @property
    def waits_for_caller(self) -> bool:
        """Whether the plugin cannot go on before its caller takes, or feeds."""
        return self._credit <= 0 or (self._takes_input and self._input_credit > 0)

    def put(self, seq: int, item: Raw | bytes, cost: int) -> str | None:
        """Takes an item of the plugin. Returns what is wrong with it, or None."""
        if seq != self._next_seq:
            return self._broken("an item of a stream is out of order")
        if self._credit <= 0:
            return self._broken("an item of a stream is beyond its credit")
        self._next_seq += 1
        self._credit -= cost
        self._items.append((item, cost))
        self._hear()
        return None

    def grant(self, count: int) -> str | None:
        """The plugin takes ``count`` bytes more; returns as :meth:`put`."""
        if not (self._takes_input or self._input_begun):
            return self._broken("a credit is for a call that sends nothing")
        if not 0 < count <= MAX_CREDIT_BYTES - max(0, self._input_credit):
            return self._broken("a credit is below 1, or leads over the bound")
        self._input_begun = True
        self._input_credit += count
        self.heard = self._loop.time()
        self._fed.set()
        return None

    def tell(self, told: Progress) -> None:
        """Passes progress on, the newest alone, and not too often."""
        now = self._loop.time()
        self.heard = now
        if now - self._progressed >= PROGRESS_S or told.progress == told.total:
            self._progressed = now
            self._progress = told
            self._hear()

    def _take(self) -> Item | bytes:
        item, cost = self._items.popleft()
        self._owed += cost
        self.taken += 1
        if self._owed >= WINDOW_BYTES // 2 and not self._call.future.done():
            self._credit += self._owed
            params = {"requestId": self._call.number, "bytes": self._owed}
            self._outbox.write(messages.notification(CREDIT, params))
            self._owed = 0
            self.heard = self._loop.time()
        if not isinstance(item, Raw):
            return item
        try:
            return Item(messages.decoded(item, MAX_CALL_ELEMENTS, Any))
        except WirthForgeError as error:
            self._breach("an item of a stream cannot be read")
            broken = PluginFailedError(f"an item cannot be read: {error.message}")
            self._calls.fail(self._call, broken, "an item cannot be read")
            raise broken from None

    async def _may_feed(self) -> bool:
        while not self._call.future.done():
            if self._outbox.is_full:
                await self._outbox.until_writable()
            elif self._input_credit <= 0:
                self._fed.clear()
                await self._fed.wait()
            else:
                return True
        return False

    def _send(self, line: bytes, body: bytes = b"") -> None:
        self._outbox.write(*((line, body) if body else (line,)))
        self._input_seq += 1
        self.sent += 1
        self._input_credit -= len(line) + len(body)
        self.heard = self._loop.time()

    def _broken(self, reason: str) -> str:
        self._calls.fail(self._call, PluginFailedError(f"the plugin broke the protocol: {reason}"), reason)
        return reason

    def _hear(self) -> None:
        self.heard = self._loop.time()
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _ended(self, future: asyncio.Future[Any]) -> None:
        future.exception() if not future.cancelled() else None  # looked at, whoever leaves without asking
        self._fed.set()
        self._hear()
