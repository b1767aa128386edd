"""Reads a stream of server-sent events (WHATWG HTML, section 9.2) within bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from wirthforge_sdk.errors import LimitExceededError

MAX_EVENT_BYTES: Final = 1024 * 1024
"""Of one event, and so of one line."""


class ServerEvent(NamedTuple):
    """One event of a stream."""

    event: str
    data: str
    id: str


async def read_events(
    chunks: AsyncIterator[bytes], max_bytes: int = MAX_EVENT_BYTES
) -> AsyncIterator[ServerEvent]:
    """The events in ``chunks``, as they become complete; comments and events without data are skipped.

    Raises:
        LimitExceededError: A line or an event is over ``max_bytes``.
    """
    name, data, identity, size = "", list[str](), "", 0
    async for line in _lines(chunks, max_bytes):
        size += len(line)
        _bounded(size, max_bytes)
        if not line:
            if data:
                yield ServerEvent(name or "message", "\n".join(data), identity)
            name, data, size = "", [], 0
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "id":
            identity = value


async def _lines(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[str]:
    rest = b""
    async for chunk in chunks:
        # Our servers end lines with LF or CRLF, never with the lone CR that the specification also knows.
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode(errors="replace")
        _bounded(len(rest), max_bytes)


def _bounded(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise LimitExceededError(
            f"the stream holds an event of more than {max_bytes} bytes: read it in pages instead",
            limit=max_bytes,
        )
