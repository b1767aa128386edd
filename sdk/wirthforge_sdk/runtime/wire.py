"""Lines of JSON-RPC: how they are cut from a stream, read and written; not what any method means."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from wirthforge_sdk.contracts.bridge import (
    MAX_MESSAGE_BYTES,
    META_BODY,
    META_CAPABILITIES,
    META_PROGRESS,
    META_PROTOCOL,
    META_STREAM,
    META_TIMEOUT_MS,
    too_deep,
)
from wirthforge_sdk.contracts.framing import Frame, Frames, LineTooLongError

if TYPE_CHECKING:
    import socket

CHUNK_BYTES = 64 * 1024

Id = int | str


def lines_of(receive: Callable[[int], bytes]) -> Iterator[list[bytes]]:
    """The complete lines of each chunk that ``receive`` gives, without their newlines, until it gives none.

    A last line without newline is dropped: its sender died while writing it. Memory is bounded by one line
    and one chunk, time is linear in the bytes.

    Args:
        receive: Such as ``socket.recv``; returns at most as many bytes as asked, ``b""`` at the end.

    Raises:
        LineTooLongError: A line is longer than ``MAX_MESSAGE_BYTES``.
    """
    partial = bytearray()
    while chunk := receive(CHUNK_BYTES):
        lines = chunk.split(b"\n")
        partial += lines[0]
        if len(partial) > MAX_MESSAGE_BYTES:
            raise LineTooLongError(f"a line is over {MAX_MESSAGE_BYTES} bytes")
        if len(lines) > 1:
            lines[0] = bytes(partial)
            partial = bytearray(lines.pop())
            yield lines


class StreamAsk(Struct):
    """What a caller that takes streams says of them."""

    credit: int = 0
    input: str | None = None
    """The argument that follows as a stream."""


class BodyAsk(Struct):
    """What a caller that takes raw bytes says of them."""

    input: str | None = None
    """The argument that came after the line."""


class Meta(Struct):
    """``params._meta``, as far as the runtime reads it."""

    protocol: Any = field(name=META_PROTOCOL, default=None)
    capabilities: Any = field(name=META_CAPABILITIES, default=None)
    timeout_ms: float | None = field(name=META_TIMEOUT_MS, default=None)
    stream: StreamAsk | None = field(name=META_STREAM, default=None)
    body: BodyAsk | None = field(name=META_BODY, default=None)
    progress_token: Id | None = field(name=META_PROGRESS, default=None)


class Params(Struct, rename="camel"):
    """The parameters of every method the runtime knows; one shape, so that a line is read in one pass."""

    name: str = ""
    arguments: Raw = Raw(b"{}")
    meta: Meta | UnsetType = field(name="_meta", default=UNSET)
    request_id: Id | None = None
    protocol_version: str = ""
    values: Raw = Raw(b"{}")
    names: list[str] = []
    seconds: float = 0.0
    hz: float = 0.0
    item: Raw | UnsetType = UNSET
    bytes: int = 0


class Failure(Struct):
    """A JSON-RPC error object."""

    code: int
    message: str
    data: dict[str, Any] | UnsetType | None = UNSET


class Message(Struct):
    """A line: a request (method and id), a notification (method) or an answer (id)."""

    jsonrpc: Literal["2.0"]
    id: Id | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: Params = field(default_factory=Params)
    result: Raw = Raw()
    error: Failure | UnsetType = UNSET


class _Stamp(Struct):
    """What can still be read of a line that is no message."""

    id: Any = None


class _Answer(Struct):
    id: Id | None
    result: Any
    jsonrpc: str = "2.0"


class _Refusal(Struct):
    id: Id | None
    error: Failure
    jsonrpc: str = "2.0"


class _Request(Struct):
    method: str
    params: Any
    id: Id | UnsetType = UNSET
    jsonrpc: str = "2.0"


_encoder = msgspec.json.Encoder()
encode = _encoder.encode
decode = msgspec.json.decode
decode_message = msgspec.json.Decoder(Message).decode


def id_of(line: bytes) -> Id | None:
    """The id of a line that is valid JSON but no valid message; None if it has none to answer to."""
    try:
        found = msgspec.json.decode(line, type=_Stamp).id
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, int | str) and not isinstance(found, bool) else None


def answer(request: Id, result: Any) -> bytes:
    """The line that answers a request; ``result`` is encoded, or :class:`msgspec.Raw` when it already is."""
    return _encoder.encode(_Answer(request, result))


def refusal(request: Id | None, number: int, message: str, data: dict[str, Any] | None = None) -> bytes:
    """The line that refuses a request."""
    return _encoder.encode(_Refusal(request, Failure(number, message, data or UNSET)))


def request(method: str, params: Any, number: Id | None = None) -> bytes:
    """The line of a request, or without ``number`` of a notification."""
    return _encoder.encode(_Request(method, params, UNSET if number is None else number))


class Connection:
    """A connected stream socket, read by one thread and written by any."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._writing = threading.Lock()

    def batches(self) -> Iterator[list[bytes]]:
        """The lines the other side sends, as many at a time as have arrived; ends when it closes."""
        return lines_of(self._receive)

    def frames(self) -> Iterator[list[Frame]]:
        """The same, where raw bytes may follow a line.

        Raises:
            LineTooLongError: The other side broke the bound of a line, or of the bytes after one.
        """
        frames = Frames()
        while count := self._receive_into(frames.room()):
            if complete := frames.filled(count):
                yield complete

    def word(self, most: int) -> bytes:
        """The next line, with its newline, and no byte more; less when the other side closes, or sends a longer one."""
        line = b""
        while len(line) < most and not line.endswith(b"\n") and (byte := self._receive(1)):
            line += byte
        return line

    def _receive(self, size: int) -> bytes:
        room = memoryview(bytearray(size))
        return bytes(room[: self._receive_into(room)])

    def _receive_into(self, room: memoryview) -> int:
        try:
            return self._stream.recv_into(room)
        except ConnectionError:
            return 0
        except OSError:
            if self._stream.fileno() < 0:
                return 0  # closed by ourselves, in another thread
            raise

    def send(self, line: bytes) -> None:
        """Sends one or more lines, newline after the last excluded; never mixed with another thread's.

        When the other side is gone nothing is sent and nothing raised: the reader learns it as the end.
        """
        with self._writing:
            try:
                self._stream.sendall(line + b"\n")
            except OSError:
                return

    def send_with(self, line: bytes, body: bytes | memoryview) -> None:
        """As :meth:`send` one line, and the raw bytes that it announces."""
        head = line + b"\n"
        with self._writing:
            try:
                sent = self._stream.sendmsg([head, body])
                if sent < len(head):
                    self._stream.sendall(head[sent:])
                    sent = len(head)
                self._stream.sendall(memoryview(body)[sent - len(head) :])
            except OSError:
                return


def fits(line: bytes) -> bool:
    """Whether the other side would take the line: within both bounds of the bridge."""
    return len(line) <= MAX_MESSAGE_BYTES and not too_deep(line)
