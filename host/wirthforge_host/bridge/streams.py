"""The streamed calls of one connection: what arrives is given to the one that it belongs to, or is a breach.

An item beyond the credit, after the end, out of order, or of a call that was never made is a breach of the protocol;
one of a call that we gave up is dropped, as far as the credit that it still had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from wirthforge_host.bridge.calls import Calls, OpenCall, Progress
from wirthforge_host.bridge.deadlines import Deadline, Deadlines
from wirthforge_host.bridge.messages import OVER
from wirthforge_host.bridge.outbox import Outbox
from wirthforge_host.bridge.stream import Stream
from wirthforge_host.errors import CallTimedOutError
from wirthforge_sdk.contracts.bridge import (
    CREDIT,
    ITEM,
    MAX_CALL_BYTES,
    MAX_STREAMS,
    META_PROGRESS,
    META_STREAM,
    PROGRESS,
    WINDOW_BYTES,
)
from wirthforge_sdk.contracts.framing import Chunk
from wirthforge_sdk.errors import LimitExceededError

MAX_TEXT = 300
"""Characters of a word of progress."""
NOTIFICATIONS = frozenset({ITEM, CREDIT, PROGRESS})
"""Of a plugin, which :class:`Streams` takes."""


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
        if type(told.token) is int:
            message = None if told.message is None else _clean(told.message)
            self._calls.progressed(told.token, Progress(told.progress, told.total, message))
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
