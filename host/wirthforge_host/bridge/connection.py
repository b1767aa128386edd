"""One connection to an instance: what it sends is read, bounded, and answered.

Nothing here waits for the plugin without a deadline, and nothing grows with what the plugin sends: lines,
open calls both ways, host calls at work, unread replies and breaches of the protocol have bounds, and so has
the rate of what it asks. A breach is answered where JSON-RPC has an answer, counted, and past a bound ends
the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, cast

from msgspec import UNSET, Raw

from wirthforge_host.bridge import messages
from wirthforge_host.bridge.calls import Calls
from wirthforge_host.bridge.deadlines import Deadline, Deadlines
from wirthforge_host.bridge.dispatcher import Dispatcher
from wirthforge_host.bridge.host_calls.log import LOG
from wirthforge_host.bridge.messages import MalformedLineError, Message
from wirthforge_host.bridge.outbox import Outbox
from wirthforge_host.bridge.serving import Serving
from wirthforge_host.bridge.streams import NOTIFICATIONS, Streams
from wirthforge_host.errors import CallTimedOutError
from wirthforge_host.rates import TokenBucket
from wirthforge_sdk.contracts.bridge import ITEM, MAX_CALL_ELEMENTS, REPAIRED
from wirthforge_sdk.contracts.framing import Carried, Frame, Frames, LineTooLongError
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError

MAX_BREACHES = 16
"""Breaches of the protocol after which the connection is closed."""
LINE_S = 30.0
"""How long a line may take from its first byte to its last."""
ASKS_PER_S = 2_000.0
"""Requests and notifications a second, each 4 KiB of them counting as one more; past it, we read later."""
ASK_BYTES = 4 * 1024
ASKS_OF_A_LOG_LINE = 4
"""What it counts for: a flood of lines, most of which are dropped, shall be slower than what is worth an answer."""
DEBT_S = 0.02
"""How much over the rate is let pass before it is waited for, so that one wait pays for many."""
MAX_ID_CHARACTERS = 128
ENDINGS = range(-64, 256)
"""How a process can end: by a signal, where below 0, or with an exit code."""
TOOLS_CHANGED = "notifications/tools/list_changed"


class Report(Protocol):
    """Told of each breach of the protocol."""

    def __call__(self, reason: str, *, ended: bool) -> None:
        """``ended``: it was one too many, and the connection is closed."""


class Connection(asyncio.BufferedProtocol):
    """The host's end. Its owner uses :attr:`calls` and :meth:`close`; asyncio calls the rest."""

    def __init__(
        self, dispatcher: Dispatcher, deadlines: Deadlines, *, report: Report, on_lost: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._dispatcher = dispatcher
        self._deadlines = deadlines
        self._report = report
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._outbox = Outbox(lambda: self._end("it does not read the replies to what it asks"))
        self.calls = Calls(self._outbox, deadlines)
        self._lost = asyncio.Event()
        self._frames = Frames()
        self._backlog: deque[Frame] = deque()
        self._line_deadline: Deadline | None = None
        self._asks = TokenBucket(ASKS_PER_S, 2 * ASKS_PER_S, self._loop.time())
        self._throttle: asyncio.TimerHandle | None = None
        self._breaches = 0
        self.was_cut = False
        """The host ended it, for what the plugin did."""
        self.crash: int | None = None
        """How the process ended whose place the plugin's took, if it says that it did: a code, or -n for signal n."""
        self._serving = Serving(dispatcher, self.calls, self._outbox, self._steer)
        self._reads = True
        self.heard_at = self._loop.time()
        """When it sent something last, in monotonic seconds."""
        self.rouse: Callable[[], Awaitable[None]] | None = None
        """Wakes the instance; None while it is awake."""
        self._tools_changed = False
        self._on_tools_changed: Callable[[], None] | None = None
        self.streams = Streams(self.calls, self._outbox, deadlines, self._breach)

    def follow(self, before: Connection) -> None:
        """It is of an instance that had one before: breaches stay counted, and what was used up of a rate stays so."""
        self._asks, self._breaches = before._asks, before._breaches
        self._dispatcher.follow(before._dispatcher)

    async def close(self) -> None:
        """Ends the connection, fails open calls, cancels host calls at work; returns when that is over."""
        if self._transport is not None:
            self._transport.abort()
            await self._lost.wait()
        await self._serving.ended()

    async def awake(self, timeout_s: float) -> float:
        """Wakes the instance if it sleeps; what is left of ``timeout_s``. Whoever asks in the same turn finds it awake.

        Raises:
            CallTimedOutError: It did not wake in time.
            UnavailableError: It cannot be woken; says why.
        """
        deadline = self._loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                while self.rouse is not None:
                    await self.rouse()
        except TimeoutError:
            raise CallTimedOutError("the plugin slept, and did not wake in time") from None
        return deadline - self._loop.time()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is open in either direction, nor half said."""
        return not (
            len(self.calls)
            or len(self._serving)
            or self._backlog
            or self._frames.waits
            or self._throttle is not None
        )

    def when_tools_change(self, told: Callable[[], None]) -> None:
        """Calls ``told`` for each notice that the functions changed, also for one that came before."""
        self._on_tools_changed = told
        if self._tools_changed:
            told()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._outbox.open(self._transport)
        self._dispatcher.open()

    def get_buffer(self, _: int) -> memoryview:
        """Where what arrives is to be put: raw bytes where they stay, anything else where lines are cut."""
        return self._frames.room()

    def buffer_updated(self, count: int) -> None:
        """Takes what has arrived, line by line."""
        self.heard_at = self._loop.time()
        try:
            frames = self._frames.filled(count)
        except LineTooLongError as error:
            self._end(str(error))
            return
        self._watch_line(progress=bool(frames))
        self._backlog.extend(frames)
        self._steer()

    def pause_writing(self) -> None:
        """The plugin does not read as fast as we write."""
        self._outbox.pause()
        self._steer()

    def resume_writing(self) -> None:
        """It caught up."""
        self._outbox.resume()
        self._steer()

    def connection_lost(self, _: Exception | None) -> None:
        """Fails every call that waits, at once."""
        self._outbox.close()
        self.calls.fail_all()
        self._backlog.clear()
        self._frames = Frames()
        self._watch_line(progress=True)
        if self._throttle is not None:
            self._throttle.cancel()
        self._serving.stop()
        self._dispatcher.close()
        self._lost.set()
        self._on_lost()

    def _watch_line(self, *, progress: bool) -> None:
        """Sees to it that a line that has begun also ends."""
        if progress and self._line_deadline is not None:
            self._deadlines.remove(self._line_deadline)
            self._line_deadline = None
        if self._frames.waits and self._line_deadline is None:
            stalled = f"a line was not complete after {LINE_S:.0f} s"
            self._line_deadline = self._deadlines.add(LINE_S, lambda: self._end(stalled))

    @property
    def _holds(self) -> bool:
        """Whether no more is taken from the plugin now: of what it asks, too much is open, or unread.

        Replies that are awaited are read also from who does not read: it may write before it reads on.
        """
        unread = self._outbox.is_full and not len(self.calls)
        return self._throttle is not None or self._serving.is_full or unread

    def _steer(self) -> None:
        """Takes what has arrived as far as it may, and then reads on or not."""
        while self._backlog and not self._holds:
            frame = self._backlog.popleft()
            wrong = self._take_frame(frame)
            if wrong is not None:
                self._breach(wrong)
        transport, reads = self._transport, not self._holds
        if reads is not self._reads and transport is not None and not transport.is_closing():
            self._reads = reads
            transport.resume_reading() if reads else transport.pause_reading()

    def _take_frame(self, frame: Frame) -> str | None:
        """Acts on a line, and on what came with it. Returns how it breaks the protocol, or None."""
        if isinstance(frame, bytes):
            return self._take_line(frame)
        if isinstance(frame, Carried):
            return self._take_line(frame.line, frame.body)
        return self.streams.take_chunk(frame)

    def _take_line(self, line: bytes, body: memoryview | None = None) -> str | None:
        try:
            message = messages.read(line)
        except MalformedLineError as error:
            self._charge(line)
            self._outbox.write(messages.malformed(error))
            return error.reason
        if message.method is UNSET:
            return self.calls.settle(message, body)
        if body is not None:
            self._charge(line, 1 + len(body) // ASK_BYTES)
            return "raw bytes came with what takes none"
        method = str(message.method)
        if method in NOTIFICATIONS and message.id is UNSET:
            # Items are bounded by their credit; all else is asked of us.
            if method != ITEM:
                self._charge(line)
            return self.streams.take(method, message.params, len(line) + 1)
        self._charge(line, ASKS_OF_A_LOG_LINE if method == LOG else 1)
        self._take(message, method, len(line))
        return None

    def _charge(self, line: bytes, asks: int = 1) -> None:
        """Counts an ask; past the rate, reading stops until it is paid for, and the plugin has to wait."""

        def paid() -> None:
            self._throttle = None
            self._steer()

        debt_s = self._asks.owe(asks + len(line) / ASK_BYTES, self._loop.time())
        if debt_s > DEBT_S and self._transport is not None and not self._transport.is_closing():
            self._throttle = self._loop.call_later(debt_s, paid)

    def _take(self, message: Message, method: str, size: int) -> None:
        if message.id is UNSET:
            self._take_notification(method, message.params)
        elif message.id is None or (isinstance(message.id, str) and len(message.id) > MAX_ID_CHARACTERS):
            self._breach("a request has an id that is null or too long")
        elif message.id in self._serving:
            self._breach("a request has the id of one that is open")
        else:
            self._serving.begin(message.id, method, message.params, size)

    def _take_notification(self, method: str, params: Raw) -> None:
        if method == LOG:
            try:
                self._dispatcher.log(params)
            except (InvalidInputError, LimitExceededError):
                self._breach("a log line is malformed")
        elif method == "notifications/cancelled":
            with suppress(InvalidInputError, LimitExceededError):
                self._serving.cancel(messages.decoded(params, MAX_CALL_ELEMENTS).get("requestId"))
        elif method == TOOLS_CHANGED:
            self._tools_changed = True
            if self._on_tools_changed is not None:
                self._on_tools_changed()
        elif method == REPAIRED:
            self._take_crash(params)
        elif method.startswith("host/"):
            self._breach("a host call that needs an answer has no id")
        # Others (progress, log messages, other lists) are MCP's, and nothing here depends on them.

    def _take_crash(self, params: Raw) -> None:
        with suppress(InvalidInputError, LimitExceededError):
            code = messages.decoded(params, MAX_CALL_ELEMENTS).get("code")
            if type(code) is int and code in ENDINGS:
                self.crash = code
                return
        self._breach("how its process ended is told in another form")

    def _breach(self, reason: str) -> None:
        self._breaches += 1
        if self._breaches >= MAX_BREACHES:
            self._end(f"{reason}, and it broke the protocol {MAX_BREACHES} times")
        else:
            self._report(reason, ended=False)

    def _end(self, reason: str) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self.was_cut = True
            self._report(reason, ended=True)
            self._backlog.clear()
            self._transport.abort()
