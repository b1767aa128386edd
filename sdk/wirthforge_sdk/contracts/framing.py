"""How both ends of the bridge cut what arrives: lines, and the raw bytes that follow some of them.

A line carries bytes if its method is ``wf/item``, it has at most ``MAX_HEADER_BYTES``, and ``params._meta`` has
``wf/bytes``, written just so. ``docs/bridge.md``, "Framing", says it for other languages.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from wirthforge_sdk.contracts.bridge import MAX_CHUNK_BYTES, MAX_HEADER_BYTES, MAX_MESSAGE_BYTES, META_BYTES

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


class _Meta(Struct):
    count: Any = field(name=META_BYTES, default=UNSET)


class _Params(Struct):
    meta: _Meta | UnsetType = field(name="_meta", default=UNSET)
    request: Any = field(name="requestId", default=None)
    seq: Any = None


class _Header(Struct):
    method: Literal["wf/item"]
    params: _Params


_decode = msgspec.json.Decoder(_Header).decode

Frame = bytes | Chunk


class Frames:
    """Cuts a stream into frames. Holds at most one line, or one line's bytes, that are not complete."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._header: _Header | None = None
        self._header_bytes = 0
        self._body = bytearray()
        self.missing = 0
        """Raw bytes that a line announced and that have not arrived."""

    @property
    def waits(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._partial) or self.missing > 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes, lines without their newlines. Time is linear in the bytes.

        Raises:
            LineTooLongError: A line is over ``MAX_MESSAGE_BYTES``, complete or not.
            WrongLengthError: A line's number of bytes is no integer from 1 to ``MAX_CHUNK_BYTES``.
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
        end = min(at + self.missing, len(data))
        self._body += memoryview(data)[at:end]
        self.missing -= end - at
        if not self.missing and self._header is not None:
            params, body = self._header.params, bytes(self._body)
            frames.append(Chunk(params.request, params.seq, body, self._header_bytes + len(body)))
            self._header, self._body = None, bytearray()
        return end

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
        else:
            self._header, self._header_bytes, self.missing = header, len(line) + 1, _count(header)

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
    return None if header.params.meta is UNSET or header.params.meta.count is UNSET else header


def _count(header: _Header) -> int:
    count = UNSET if header.params.meta is UNSET else header.params.meta.count
    if type(count) is not int or not 0 < count <= MAX_CHUNK_BYTES:
        raise WrongLengthError(f"{META_BYTES} is no number from 1 to {MAX_CHUNK_BYTES}")
    return count
