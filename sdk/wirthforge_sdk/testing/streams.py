"""A streamed call of a plugin under test, as its caller sees it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from typing import Any, Self

import msgspec
from msgspec import Raw

from wirthforge_sdk.contracts.bridge import END
from wirthforge_sdk.runtime import wire
from wirthforge_sdk.runtime.calls import Call
from wirthforge_sdk.runtime.errors import FunctionFailedError, HostRefusedError
from wirthforge_sdk.runtime.streams import Outgoing, Stream


def is_source(value: Any) -> bool:
    """Whether an argument is one that is sent item by item."""
    return isinstance(value, Iterator | AsyncIterator)


class PluginStream:
    """The items of one call: take them with ``for`` or ``async for``; a slow taker slows the plugin.

    Both end when the function returns, and raise what ``PluginHarness.call`` raises when it fails. Use it as a
    context manager to leave early: the plugin is told that nobody waits.
    """

    def __init__(
        self, connection: wire.Connection, number: int, timeout_s: float, reply: Future[Any], source: Any
    ) -> None:
        self._connection = connection
        self._call = Call(number, timeout_s * 1000)
        self._reply = reply
        self._source = source
        self._output = Outgoing(connection, self._call, 0)
        self._call.output = self._output
        self.items = self._call.input = Stream[Any](self._call, _read, connection)
        self.progress: list[dict[str, Any]] = []
        """What ``plugin.progress`` told: ``progress``, ``total`` and maybe ``message``."""

    def grant(self, count: int) -> None:
        """The plugin takes more of the argument; its first word starts the sending."""
        self._output.grant(count)
        if self._source is not None:
            source, self._source = self._source, None
            threading.Thread(target=self._feed, args=(source,), daemon=True).start()

    def over(self) -> None:
        """The reply is there."""
        self.items.end()
        if self._reply.cancelled():
            self._call.cancel()
        else:
            self._output.turn.tell()

    def result(self) -> dict[str, Any]:
        """The whole MCP result that ended the call; raises what ended it instead."""
        found: dict[str, Any] = self._reply.result(self._call.remaining_s())
        return found

    def leave(self) -> None:
        """Nobody waits any more."""
        self._reply.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def __iter__(self) -> Iterator[Any]:
        yield from self.items
        _raise_failure(self.result())

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for item in self.items:
            yield item
        _raise_failure(await asyncio.to_thread(self.result))

    def _feed(self, source: Any) -> None:
        try:
            if isinstance(source, AsyncIterator):
                asyncio.run(self._feed_async(source))
            else:
                for item in source:
                    self._output.send(_encoded(item))
        except HostRefusedError:
            return  # the call is over, which its taker learns
        self._connection.send(wire.request(END, {"requestId": self._call.id}))

    async def _feed_async(self, source: AsyncIterator[Any]) -> None:
        async for item in source:
            await self._output.send_async(_encoded(item))


def _encoded(item: Any) -> Raw | bytes:
    return item if isinstance(item, bytes) else Raw(wire.encode(item))


def _read(item: Any) -> Any:
    return msgspec.json.decode(item) if isinstance(item, Raw) else item


def _raise_failure(result: dict[str, Any]) -> None:
    if result["isError"]:
        raise FunctionFailedError(result["content"][0]["text"])
