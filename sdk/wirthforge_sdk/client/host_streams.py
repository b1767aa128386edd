"""Streamed calls, as applications make them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
from pydantic import TypeAdapter, ValidationError

from wirthforge_sdk.client.connection import Connection, Request, Service, given, segment
from wirthforge_sdk.contracts.host_api import CallOut
from wirthforge_sdk.contracts.problem import error_of
from wirthforge_sdk.contracts.streams_api import (
    DEFAULT_TOTAL_S,
    LINES,
    RAW,
    BeginLine,
    ChunkLine,
    EndLine,
    ErrorLine,
    InputOut,
    ItemLine,
    ProgressLine,
    StreamIn,
    StreamLine,
)
from wirthforge_sdk.errors import LimitExceededError, UnavailableError

MAX_LINE_BYTES: Final = 8 * 1024 * 1024
"""Of one line: the result of a call, written twice, is the longest."""
GRACE_S: Final = 10.0

_LINE: TypeAdapter[StreamLine] = TypeAdapter(StreamLine)


class CallStream:
    """One streamed call. Iterate over its items: JSON values, or ``bytes``; a slow taker slows the plugin.

    The iteration raises what ended the call early. A function that ran and failed is no error: see :attr:`answer`.
    """

    def __init__(self, lines: AsyncIterator[StreamLine]) -> None:
        self._lines = lines
        self.progress: ProgressLine | None = None
        """The newest."""
        self.answer: CallOut | None = None
        """What the function answered in the end; None until then."""

    async def happenings(self) -> AsyncIterator[ItemLine | ChunkLine | ProgressLine | EndLine]:
        """Everything in its order, progress and the end included."""
        async for line in self._lines:
            match line:
                case ErrorLine():
                    raise error_of(line.problem)
                case EndLine():
                    self.answer = line.call
                    yield line
                    return
                case BeginLine():
                    continue
                case ProgressLine():
                    self.progress = line
            yield line
        raise UnavailableError("the host ended the stream without a word: look at its log")

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for line in self.happenings():
            if isinstance(line, ItemLine):
                yield line.item
            elif isinstance(line, ChunkLine):
                yield base64.b64decode(line.base64)


class StreamedCalls(Service):
    """Calls whose items come one by one."""

    @asynccontextmanager
    async def stream(
        self,
        plugin: str,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        feed: tuple[str, AsyncIterator[Any]] | None = None,
        timeout_s: float | None = None,
        idle_s: float | None = None,
    ) -> AsyncIterator[CallStream]:
        """Calls a function and gives its items as they come; leaving the context cancels the call.

        Args:
            plugin: Its name.
            function: Its name.
            arguments: All but the one that is fed.
            feed: The name of an argument, and its items: JSON values, or ``bytes``.
            timeout_s: For all of it; an hour by default.
            idle_s: How long the plugin may be silent; the function's own timeout by default.
        """
        with given():
            body = StreamIn(
                plugin=plugin,
                function=function,
                arguments=dict(arguments or {}),
                timeout_s=timeout_s,
                idle_s=idle_s,
                input=None if feed is None else feed[0],
            )
        silence_s = (timeout_s or DEFAULT_TOTAL_S) + GRACE_S
        request = Request(
            "POST", "/v1/calls/stream", body=body, headers={"Accept": LINES}, timeout_s=silence_s
        )
        async with self._connection.opened(request) as response:
            lines = _lines(response)
            feeding: asyncio.Task[InputOut] | None = None
            if feed is not None:
                begin = await anext(lines)
                if isinstance(begin, BeginLine):
                    feeding = asyncio.create_task(_fed(self._connection, begin.id, feed[1], silence_s))
            try:
                yield CallStream(lines)
            finally:
                if feeding is not None:
                    feeding.cancel()
                    await asyncio.wait({feeding})


async def _fed(connection: Connection, call: str, items: AsyncIterator[Any], silence_s: float) -> InputOut:
    first = await anext(items, None)
    is_raw = isinstance(first, bytes)

    async def content() -> AsyncIterator[bytes]:
        if first is None:
            return
        yield _encoded(first)
        async for item in items:
            yield _encoded(item)

    request = Request(
        "POST",
        f"/v1/calls/{segment(call)}/input",
        content=content(),
        headers={"Content-Type": RAW if is_raw else LINES},
        timeout_s=silence_s,
    )
    return await connection.ask(request, InputOut)


def _encoded(item: Any) -> bytes:
    return item if isinstance(item, bytes) else json.dumps(item).encode() + b"\n"


async def _lines(response: httpx.Response) -> AsyncIterator[StreamLine]:
    rest = bytearray()
    async for chunk in response.aiter_bytes():
        *lines, last = chunk.split(b"\n")
        for line in lines:
            rest += line
            yield _read(bytes(rest))
            rest.clear()
        rest += last
        if len(rest) > MAX_LINE_BYTES:
            raise LimitExceededError(f"a line of the stream is over {MAX_LINE_BYTES} bytes")


def _read(line: bytes) -> StreamLine:
    try:
        return _LINE.validate_json(line)
    except ValidationError as error:
        raise UnavailableError(
            "the host sent a line in a form that this version does not know: bring client and host to the same version"
        ) from error
