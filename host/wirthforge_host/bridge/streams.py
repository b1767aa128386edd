"""Calls whose items come one by one, and may be sent so: each direction within the credit its receiver gave.

What waits for the application is never more than the credit, whatever the plugin does. An item beyond it, after
the end, out of order, or of a call that was never made is a breach of the protocol; one of a call that we gave up
is dropped, as far as the credit that it still had.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from wirthforge_host.bridge import messages
from wirthforge_host.bridge.calls import Calls, OpenCall
from wirthforge_host.bridge.deadlines import Deadline, Deadlines
from wirthforge_host.bridge.messages import OVER
from wirthforge_host.bridge.outbox import Outbox
from wirthforge_host.errors import CallTimedOutError, PluginFailedError
from wirthforge_sdk.contracts.bridge import (
    CREDIT,
    END,
    ITEM,
    MAX_CALL_BYTES,
    MAX_CALL_ELEMENTS,
    MAX_CHUNK_BYTES,
    MAX_CREDIT_BYTES,
    MAX_STREAMS,
    META_BYTES,
    META_PROGRESS,
    META_STREAM,
    PROGRESS,
    WINDOW_BYTES,
)
from wirthforge_sdk.contracts.framing import Chunk
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError, WirthForgeError

PROGRESS_S = 0.05
"""Between two words of progress that are passed on."""
MAX_TEXT = 300
"""Characters of them."""
NOTIFICATIONS = frozenset({ITEM, CREDIT, PROGRESS})
"""Of a plugin, which :class:`Streams` takes."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a result."""

    value: Any
    """JSON."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a call is, by the plugin's word."""

    progress: float
    total: float | None
    message: str | None


Happening = Item | Progress | bytes
"""What a streamed call gives: bytes are raw ones of its result."""


class _Item(Struct):
    request: int = field(name="requestId")
    seq: int
    item: Raw | UnsetType = UNSET


class _Credit(Struct):
    request: int = field(name="requestId")
    count: int = field(name="bytes")


class _Progress(Struct):
    token: int | str = field(name="progressToken")
    progress: float
    total: float | None = None
    message: str | None = None


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
        while not (self._input_begun or self._call.future.done()):
            await self._fed.wait()
        self._takes_input = False
        if not self._call.future.done():
            self._outbox.write(messages.notification(END, {"requestId": self._call.number}))

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
        if isinstance(item, bytes):
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
        self._outbox.write(line)
        if body:
            self._outbox.write(body)
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


class Streams:
    """The streamed calls of one connection.

    Args:
        calls: Of which they are some.
        outbox: Takes what is sent.
        deadlines: When silence ends a call.
        breach: Told of what is found wrong after it was taken.
    """

    def __init__(
        self, calls: Calls, outbox: Outbox, deadlines: Deadlines, breach: Callable[[str], None]
    ) -> None:
        self._calls = calls
        self._outbox = outbox
        self._deadlines = deadlines
        self._breach = breach
        self._open: dict[int, Stream] = {}
        self._watches: dict[int, Deadline] = {}

    def begin(
        self,
        params: dict[str, Any],
        *,
        timeout_s: float,
        idle_s: float,
        label: str | None,
        ask: dict[str, Any] | None,
    ) -> Stream:
        """Sends a ``tools/call`` that may stream.

        Args:
            params: Of the call, with ``_meta``.
            timeout_s: Until when the reply must be there, from now.
            idle_s: How long the plugin may be silent while nothing keeps it from going on.
            label: As of ``Calls.request``.
            ask: What of ``wf/stream`` besides the credit; None for a plugin that cannot stream.

        Raises:
            LimitExceededError: Too many streams are open; and as ``Calls.request``.
        """
        if len(self._open) >= MAX_STREAMS:
            raise LimitExceededError(f"{MAX_STREAMS} streams of the plugin are open: wait for one to end")
        number = self._calls.next_number
        meta = {**params["_meta"], META_PROGRESS: number}
        if ask is not None:
            meta[META_STREAM] = {"credit": WINDOW_BYTES, **ask}
        whole = {**params, "_meta": meta}
        call = self._calls.begin("tools/call", whole, timeout_s=timeout_s, label=label, cancellable=True)
        stream = self._open[number] = Stream(
            self._calls,
            self._outbox,
            call,
            self._breach,
            takes_input=ask is not None and "input" in ask,
        )
        self._watch(stream, call, idle_s, idle_s)
        call.future.add_done_callback(lambda _: self._over(number))
        return stream

    def take_chunk(self, chunk: Chunk) -> str | None:
        """Takes raw bytes of a plugin. Returns what is wrong with them, or None."""
        if type(chunk.request) is not int or type(chunk.seq) is not int:
            return "an item of a stream has no number"
        return self._put(chunk.request, chunk.seq, chunk.body, chunk.cost)

    def take(self, method: str, params: Raw, size: int) -> str | None:
        """Takes one of :data:`NOTIFICATIONS`, whose line had ``size`` bytes; returns as :meth:`take_chunk`."""
        if params is OVER:
            return f"a line of a stream is over {MAX_CALL_BYTES} bytes"
        try:
            if method == ITEM:
                found = msgspec.json.decode(params, type=_Item)
                if found.item is UNSET:
                    return "an item of a stream has neither JSON nor bytes"
                return self._put(found.request, found.seq, found.item, size)
            if method == CREDIT:
                given = msgspec.json.decode(params, type=_Credit)
                stream = self._open.get(given.request)
                # Late credit of a call that is over does no harm.
                return stream.grant(given.count) if stream is not None else self._known(given.request)
            return self._progressed(msgspec.json.decode(params, type=_Progress))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return f"a {method} is malformed"

    def _put(self, number: int, seq: int, item: Raw | bytes, cost: int) -> str | None:
        stream = self._open.get(number)
        if stream is not None and self._calls.has(number):
            return stream.put(seq, item, cost)
        if not self._calls.forgive(number, cost):
            return "an item is of no stream that is open, or beyond what was its credit"
        return None

    def _known(self, number: int) -> str | None:
        return None if self._calls.was_made(number) else "a credit is for a call that was never made"

    def _progressed(self, told: _Progress) -> str | None:
        stream = self._open.get(told.token) if type(told.token) is int else None
        if stream is not None:
            message = None if told.message is None else _clean(told.message)
            stream.tell(Progress(told.progress, told.total, message))
        return None

    def _watch(self, stream: Stream, call: OpenCall, idle_s: float, wait_s: float) -> None:
        loop = asyncio.get_running_loop()

        def look() -> None:
            if stream.waits_for_caller:
                stream.heard = loop.time()
            left_s = stream.heard + idle_s - loop.time()
            if left_s > 0:
                self._watch(stream, call, idle_s, left_s)
            else:
                error = CallTimedOutError(f"nothing came for {idle_s:g} s")
                self._calls.fail(call, error, "it was silent for too long")

        self._watches[call.number] = self._deadlines.add(wait_s, look)

    def _over(self, number: int) -> None:
        self._deadlines.remove(self._watches.pop(number))
        del self._open[number]


def _clean(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text[:MAX_TEXT])
