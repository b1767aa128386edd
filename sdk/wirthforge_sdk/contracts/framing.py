"""How both ends of the bridge cut what arrives: lines, and the raw bytes that follow some of them.

A line carries bytes if it has at most ``MAX_HEADER_BYTES`` and ``wf/bytes``, written just so, stands in ``_meta`` of
its params or of its result. ``docs/bridge.md``, "Framing", says it for other languages.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from wirthforge_sdk.contracts.bridge import (
    ITEM,
    MAX_CHUNK_BYTES,
    MAX_HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    META_BYTES,
)

INBOX_BYTES = 64 * 1024
"""What is read at once where no bytes are awaited."""

_TOO_LONG = f"a line is over {MAX_MESSAGE_BYTES} bytes"
_MARK = f'"{META_BYTES}"'.encode()


class LineTooLongError(ValueError):
    """The other side broke a bound after which nobody knows where its next line begins."""


class WrongLengthError(LineTooLongError):
    """It said that a number of bytes follow which no line may carry."""


class Chunk(Struct, frozen=True):
    """Raw bytes of a stream. Of the line before them only the types that JSON gives are checked here."""

    request: Any
    seq: Any
    body: bytes
    cost: int
    """What it takes off the sender's credit: the line with its newline, and the bytes."""


class Carried(Struct, frozen=True):
    """A line of anything else, and the raw bytes that came with it."""

    line: bytes
    body: memoryview
    """Read-only. Nobody else has it: it was read from the socket to where it is."""


class _Meta(Struct):
    count: Any = field(name=META_BYTES, default=UNSET)


class _Inner(Struct):
    meta: _Meta | UnsetType = field(name="_meta", default=UNSET)
    request: Any = field(name="requestId", default=None)
    seq: Any = None


class _Header(Struct):
    method: str = ""
    params: _Inner | UnsetType = UNSET
    result: _Inner | UnsetType = UNSET


_decode = msgspec.json.Decoder(_Header).decode

Frame = bytes | Chunk | Carried


class Frames:
    """Cuts a stream into frames. Holds at most one line, or one line's bytes, that are not complete.

    Who reads asks for :meth:`room`, fills some of it and says how much with :meth:`filled`: so bytes after a line go
    from the socket to where they stay.
    """

    def __init__(self) -> None:
        self._inbox = memoryview(bytearray(INBOX_BYTES))
        self._partial = bytearray()
        self._line = b""
        self._header = _Header()
        self._body = memoryview(b"")
        self.missing = 0
        """Raw bytes that a line announced and that have not arrived."""

    @property
    def waits(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._partial) or self.missing > 0

    def room(self) -> memoryview:
        """Where the next bytes are to be put; never empty."""
        return self._body[len(self._body) - self.missing :] if self.missing else self._inbox

    def filled(self, count: int) -> list[Frame]:
        """The frames that the first ``count`` bytes of the :meth:`room` complete; raises as :meth:`feed`."""
        if not self.missing:
            return self.feed(bytes(self._inbox[:count]))
        self.missing -= count
        return [] if self.missing else [self._carried()]

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes, lines without their newlines. Time is linear in the bytes.

        Raises:
            LineTooLongError: A line is over ``MAX_MESSAGE_BYTES``, complete or not.
            WrongLengthError: A line's number of bytes is no integer from 0 to ``MAX_CHUNK_BYTES``.
        """
        if self.missing or self._partial or _MARK in data:
            return self._carefully(data)
        lines = data.split(b"\n")
        if rest := lines.pop():
            self._keep(rest)
        return cast("list[Frame]", lines)

    def _carefully(self, data: bytes) -> list[Frame]:
        """As :meth:`feed`, where bytes may follow a line, or a line began before."""
        frames: list[Frame] = []
        at = 0
        while at < len(data):
            if self.missing:
                at = self._take_bytes(frames, data, at)
            elif (end := data.find(b"\n", at)) < 0:
                self._keep(data[at:])
                break
            else:
                self._end_line(frames, data[at:end])
                at = end + 1
        return frames

    def _take_bytes(self, frames: list[Frame], data: bytes, at: int) -> int:
        room = self.room()
        count = min(len(room), len(data) - at)
        room[:count] = memoryview(data)[at : at + count]
        self.missing -= count
        if not self.missing:
            frames.append(self._carried())
        return at + count

    def _carried(self) -> Frame:
        line, header, body = self._line, self._header, self._body.toreadonly()
        self._line, self._header, self._body = b"", _Header(), memoryview(b"")
        if header.method != ITEM or header.params is UNSET:
            return Carried(line, body)
        return Chunk(header.params.request, header.params.seq, bytes(body), len(line) + 1 + len(body))

    def _end_line(self, frames: list[Frame], last: bytes) -> None:
        line = last
        if self._partial:
            self._keep(last)
            line, self._partial = bytes(self._partial), bytearray()
        elif len(line) > MAX_MESSAGE_BYTES:
            raise LineTooLongError(_TOO_LONG)
        header = _header_of(line) if len(line) <= MAX_HEADER_BYTES and _MARK in line else None
        if header is None:
            frames.append(line)
            return
        self._line, self._header, self.missing = line, header, _count(header)
        self._body = memoryview(bytearray(self.missing))
        if not self.missing:
            frames.append(self._carried())

    def _keep(self, part: bytes) -> None:
        self._partial += part
        if len(self._partial) > MAX_MESSAGE_BYTES:
            raise LineTooLongError(_TOO_LONG)


def _header_of(line: bytes) -> _Header | None:
    """The line, if it says that bytes follow."""
    try:
        header = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if _said(header) is UNSET else header


def _said(header: _Header) -> Any:
    inner = header.params if header.method else header.result
    return UNSET if inner is UNSET or inner.meta is UNSET else inner.meta.count


def _count(header: _Header) -> int:
    count = _said(header)
    if type(count) is not int or not 0 <= count <= MAX_CHUNK_BYTES:
        raise WrongLengthError(f"{META_BYTES} is no number from 0 to {MAX_CHUNK_BYTES}")
    return count
