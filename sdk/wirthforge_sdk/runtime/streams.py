"""Items of a call that travel one by one, both ways, each as far as its receiver gave credit.

Two sides meet here: the reader of the connection, which never waits, and one thread or task of the author's code
for each direction, which waits where there is nothing to take, or no credit to send with.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
from msgspec import Raw

from wirthforge_sdk.contracts.bridge import (
    CREDIT,
    ITEM,
    MAX_CALL_BYTES,
    MAX_CHUNK_BYTES,
    META_BYTES,
    WINDOW_BYTES,
    too_deep,
)
from wirthforge_sdk.runtime import wire
from wirthforge_sdk.runtime.errors import (
    CallCancelledError,
    HostLimitError,
    HostTimeoutError,
)

if TYPE_CHECKING:
    import asyncio

    from wirthforge_sdk.runtime.calls import Call

T = TypeVar("T")


class InvalidItemError(ValueError):
    """What the caller sends as a stream does not fit the parameter's type; :attr:`field` is the parameter."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class Turn:
    """Where one thread, or one task, waits until the reader has brought what it needs.

    Args:
        call: Whose end ends the waiting.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self.lock = threading.Condition()
        self._task: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None

    def tell(self) -> None:
        """Has who waits look again."""
        with self.lock:
            self.lock.notify_all()
            waiting, self._task = self._task, None
        if waiting is not None and not waiting[0].is_closed():
            waiting[0].call_soon_threadsafe(_release, waiting[1])

    def until(self, ready: Callable[[], bool]) -> None:
        """Blocks until ``ready``.

        Raises:
            CallCancelledError: Nobody waits for the call any more.
            HostTimeoutError: Its deadline has passed.
        """
        with self.lock:
            self._check()
            while not ready():
                self.lock.wait(self._call.remaining_s())
                self._check()

    async def until_async(self, ready: Callable[[], bool]) -> None:
        """As :meth:`until`, for a task; the host cancels it at the deadline."""
        import asyncio  # noqa: PLC0415 - who calls this has it loaded

        loop = asyncio.get_running_loop()
        while True:
            with self.lock:
                self._check()
                if ready():
                    return
                future: asyncio.Future[None] = loop.create_future()
                self._task = loop, future
            await future

    def _check(self) -> None:
        if self._call.cancelled:
            raise CallCancelledError("the call was cancelled")
        if self._call.expired():
            raise HostTimeoutError("the deadline of the call has passed")


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Outgoing:
    """Sends the items of one direction of a call.

    Args:
        connection: To the other side.
        call: Whose items they are.
        credit: Bytes it gave to begin with.
    """

    def __init__(self, connection: wire.Connection, call: Call, credit: int) -> None:
        self._connection = connection
        self._number = call.id
        self._credit = credit
        self._seq = 0
        self.turn = Turn(call)

    def grant(self, count: int) -> None:
        """The other side takes ``count`` bytes more."""
        with self.turn.lock:
            self._credit += count
        self.turn.tell()

    def send(self, item: Raw | bytes) -> None:
        """Sends encoded JSON, or raw bytes in as many chunks as it takes, waiting for credit before each.

        Raises:
            CallCancelledError: Nobody waits for it any more; HostTimeoutError: not in time.
            HostLimitError: The item is longer or deeper than the bridge takes.
        """
        for part in _parts(item):
            self.turn.until(self._may_send)
            self._write(part)

    async def send_async(self, item: Raw | bytes) -> None:
        """As :meth:`send`, for a task."""
        for part in _parts(item):
            await self.turn.until_async(self._may_send)
            self._write(part)

    def _may_send(self) -> bool:
        return self._credit > 0

    def _write(self, part: Raw | memoryview) -> None:
        params: dict[str, Any] = {"requestId": self._number, "seq": self._seq}
        if isinstance(part, memoryview):
            line = wire.request(ITEM, {**params, "_meta": {META_BYTES: len(part)}})
            self._count(len(line) + 1 + len(part))
            self._connection.send_with(line, part)
            return
        line = wire.request(ITEM, {**params, "item": part})
        if len(line) > MAX_CALL_BYTES or too_deep(line):
            raise HostLimitError("an item is longer or deeper than the bridge takes: make more of it")
        self._count(len(line) + 1)
        self._connection.send(line)

    def _count(self, cost: int) -> None:
        self._seq += 1
        with self.turn.lock:
            self._credit -= cost


def _parts(item: Raw | bytes) -> Iterator[Raw | memoryview]:
    if isinstance(item, Raw):
        yield item
        return
    whole = memoryview(item).cast("B")
    for at in range(0, len(whole), MAX_CHUNK_BYTES):
        yield whole[at : at + MAX_CHUNK_BYTES]


class Stream(Generic[T]):
    """An argument whose items come while the function runs: take them with ``for`` or with ``async for``.

    Declare the parameter as ``Stream[T]``, or as an iterator of either kind; ``Stream[bytes]`` gets raw bytes in
    chunks of no particular size. Taking slowly slows the sender. Raises what :class:`Outgoing` does.
    """

    def __init__(self, call: Call, read: Callable[[Any], T], connection: wire.Connection | None) -> None:
        self._turn = Turn(call)
        self._read = read
        self._connection = connection
        self._number = call.id
        self._items: deque[tuple[Any, int]] = deque()
        self._owed = 0
        self._ended = False

    def begin(self) -> None:
        """Gives the sender its first credit."""
        self._grant(WINDOW_BYTES)

    def put(self, item: Any, cost: int = 0) -> None:
        """What came, not read yet."""
        with self._turn.lock:
            self._items.append((item, cost))
        self._turn.tell()

    def end(self) -> None:
        """No more will come."""
        with self._turn.lock:
            self._ended = True
        self._turn.tell()

    def wake(self) -> None:
        """Has who waits find out that the call is over."""
        self._turn.tell()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        self._turn.until(self._has_more)
        if not self._items:
            raise StopIteration
        return self._take()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        await self._turn.until_async(self._has_more)
        if not self._items:
            raise StopAsyncIteration
        return self._take()

    def _has_more(self) -> bool:
        return bool(self._items) or self._ended

    def _take(self) -> T:
        item, cost = self._items.popleft()
        self._owed += cost
        if self._owed >= WINDOW_BYTES // 2 and not self._ended:
            self._grant(self._owed)
            self._owed = 0
        return self._read(item)

    def _grant(self, count: int) -> None:
        if self._connection is not None:
            self._connection.send(wire.request(CREDIT, {"requestId": self._number, "bytes": count}))


def given(call: Call, values: Any) -> Stream[Any]:
    """The stream of an argument that came whole: a list, or bytes as one chunk."""
    stream = Stream[Any](call, lambda item: item, None)
    for value in [values] if isinstance(values, bytes) else values:
        stream.put(value)
    stream.end()
    return stream


def reader(parameter: str, items: Any) -> Callable[[Any], Any]:
    """What makes an item of what came for ``parameter``: raw bytes, or JSON of the type ``items``.

    It raises InvalidItemError for what does not fit. Bytes that come as JSON are base64.
    """
    decode = msgspec.json.Decoder(items).decode

    def read(item: Any) -> Any:
        if not isinstance(item, Raw):
            if items is bytes or items is Any:
                return item
            raise InvalidItemError(f"{parameter}: raw bytes came, not JSON", field=parameter)
        try:
            return decode(item)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidItemError(f"{parameter}: {error}", field=parameter) from error

    return read
