"""Which parameters and results of an author's function are streams, and how a result's items are encoded."""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from typing import Any

import msgspec
from msgspec import Raw

from wirthforge_sdk.contracts.bridge import MAX_MESSAGE_BYTES
from wirthforge_sdk.runtime.errors import HostLimitError
from wirthforge_sdk.runtime.streams import Outgoing, Stream
from wirthforge_sdk.runtime.wire import encode

_STREAMS = {
    Stream,
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
}


def items_of(annotation: Any) -> tuple[Any] | None:
    """The type of the items where ``annotation`` is that of a stream, in a tuple; else None."""
    origin = typing.get_origin(annotation) or annotation
    try:
        if origin not in _STREAMS:
            return None
    except TypeError:  # not hashable, so none of these
        return None
    return (*typing.get_args(annotation), Any)[:1]


def result_items(body: Callable[..., Any], returns: Any) -> tuple[Any] | None:
    """As :func:`items_of` for what a function returns.

    A generator without a declared type streams anything; bytes are a stream of themselves, cut where it must be.
    """
    if returns is bytes:
        return (bytes,)
    makes = inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body)
    return items_of(returns) or ((Any,) if makes else None)


def whole(items: Any) -> Any:
    """The type of a stream that travels in one piece."""
    return bytes if items is bytes else list[items]


class Encoding:
    """Encodes the items of a function's result.

    Args:
        name: Of the function.
        items: Their type.
    """

    def __init__(self, name: str, items: Any) -> None:
        self._name = name
        self._bytes = items is bytes
        self._check = None if items is Any else msgspec.json.Decoder(items)

    def item(self, value: Any) -> Raw | bytes:
        """One item as it travels: raw bytes as they are, anything else as JSON.

        Raises:
            TypeError: It is no JSON, or not what the function says it yields.
            ValueError: The same.
        """
        if isinstance(value, bytes | bytearray | memoryview) and (self._bytes or self._check is None):
            return bytes(value)
        text = encode(value)
        if self._check is not None:
            try:
                self._check.decode(text)
            except msgspec.DecodeError as error:
                raise TypeError(f"{self._name} yielded what it does not declare: {error}") from error
        return Raw(text)

    def drive(self, value: Any, output: Outgoing | None) -> list[Any] | bytes | None:
        """Sends all items of what a function returned, or gives them in one piece to a caller that takes no stream.

        However it ends, a generator of the author's is closed.

        Raises:
            HostLimitError: One piece is longer than a message may be.
            CallCancelledError: Nobody waits for more; HostTimeoutError: not in time.
        """
        if isinstance(value, bytes):
            value = (value,)
        parts = _Parts(self._name)
        try:
            for each in value:
                parts.add(self.item(each)) if output is None else output.send(self.item(each))
        finally:
            if isinstance(value, Generator):
                value.close()
        return None if output is not None else parts.joined(as_bytes=self._bytes)

    async def drive_async(self, value: Any, output: Outgoing | None) -> list[Any] | bytes | None:
        """As :meth:`drive`, for what an ``async def`` returned."""
        if not isinstance(value, AsyncIterable):
            value = _each((value,) if isinstance(value, bytes) else value)
        parts = _Parts(self._name)
        try:
            async for each in value:
                item = self.item(each)
                parts.add(item) if output is None else await output.send_async(item)
        finally:
            if isinstance(value, AsyncGenerator):
                await value.aclose()
        return None if output is not None else parts.joined(as_bytes=self._bytes)


async def _each(values: Iterable[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value


class _Parts:
    """The items of a result that travels in one piece."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._parts: list[Raw | bytes] = []
        self._size = 0

    def add(self, part: Raw | bytes) -> None:
        self._parts.append(part)
        self._size += len(memoryview(part)) + 1
        if self._size > MAX_MESSAGE_BYTES:
            raise HostLimitError(
                f"the result of {self._name} is longer than a message may be: call it as a stream"
            )

    def joined(self, *, as_bytes: bool) -> list[Any] | bytes:
        return b"".join(bytes(part) for part in self._parts) if as_bytes else self._parts
