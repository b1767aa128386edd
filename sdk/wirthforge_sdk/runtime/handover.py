"""What lets an MCP server behind the joiner outlive its host: the server goes on, and never learns of the change.

A conversation of MCP is one connection's. The next host begins a new one, of which a server that was greeted already
must not hear; and what was open with the host before is over for both. So the lines between the two are looked at:
their id and method, nothing else, and all but a few go on as they are. Nothing here waits, reads or writes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from wirthforge_sdk.contracts.bridge import MAX_IN_FLIGHT, REFUSED, ErrorCode
from wirthforge_sdk.runtime import wire
from wirthforge_sdk.runtime.wire import Connection, Id

MAX_GREETING_BYTES = 64 * 1024
"""Of a server's answer to ``initialize`` that is kept for the hosts to come; a longer one is not."""
MAX_STALE = 4096
"""Requests that nobody waits for whose late answers are still known to be such."""
MAX_ID_CHARACTERS = 128

CANCEL = "notifications/cancelled"


class _Params(Struct):
    request_id: Id | None = msgspec.field(name="requestId", default=None)


class _Head(Struct):
    """As much of a line as tells what it is."""

    id: Id | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    result: Raw = Raw()


class _Cancel(Struct):
    params: _Params = msgspec.field(default_factory=_Params)


_head_of = msgspec.json.Decoder(_Head).decode
_cancel_of = msgspec.json.Decoder(_Cancel).decode


class Handover:
    """The two ends of a server's conversation. One thread reads from the host, another from the server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._asked: set[Id] = set()
        """By the host of now, and not answered."""
        self._stale: dict[Id, None] = {}
        """Asked, and waited for no more; the oldest first."""
        self._asks: set[Id] = set()
        """By the server, and not answered."""
        self._greeting: Id | None = None
        """The id under which the server was greeted with ``initialize``."""
        self._greeted: Raw | None = None
        """What it answered."""
        self._greets: Id | None = None
        """The id under which the host of now waits for that answer."""
        self._initialized = False

    def begin(self, connection: Connection) -> list[bytes]:
        """From now on the host is at the end of ``connection``.

        Returns:
            What the server is told: that nobody waits for what was asked, and that what it asks has failed.
        """
        with self._lock:
            self._connection = connection
            told = [wire.request(CANCEL, {"requestId": number}) for number in self._asked]
            told += [_gone(number) for number in self._asks]
            self._forget(list(self._asked))
            self._asks, self._greets = set(), None
            return told

    def from_host(self, lines: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
        """What of the host's lines the server gets, and what the host is answered in its place."""
        with self._lock:
            heads = [(line, _read(line)) for line in lines]
            passing = [line for line, head in heads if self._passes_in(line, head)]
            return passing, self._welcome()

    def from_server(self, lines: Iterable[bytes]) -> tuple[Connection | None, list[bytes]]:
        """What of the server's lines the host gets, and where it is."""
        with self._lock:
            passing = [self._outward(line, _read(line)) for line in lines]
            return self._connection, [line for line in passing if line]

    def _passes_in(self, line: bytes, head: _Head) -> bool:
        number = head.id
        if head.method == "initialize" and isinstance(number, int | str):
            return self._greet(number)
        if head.method == "notifications/initialized":
            first, self._initialized = not self._initialized, True
            return first
        if head.method == CANCEL:
            self._forget([each for each in self._asked if each == _cancelled(line)])
        elif isinstance(number, int | str):
            if head.method is UNSET:
                self._asks.discard(number)
            else:
                self._asked.add(number)
                self._stale.pop(number, None)
        return True

    def _greet(self, number: Id) -> bool:
        """Whether the server is to be greeted, which is once."""
        self._greets = number
        if self._greeting is not None:
            return False
        self._greeting = number
        return True

    def _welcome(self) -> list[bytes]:
        """For a host after the first: the answer that the first one got."""
        if self._greets is None or self._greeted is None:
            return []
        number, self._greets = self._greets, None
        return [wire.answer(number, self._greeted)]

    def _outward(self, line: bytes, head: _Head) -> bytes | None:
        number = head.id
        if not isinstance(number, int | str):
            return line
        if head.method is not UNSET:
            if len(self._asks) < MAX_IN_FLIGHT and len(str(number)) <= MAX_ID_CHARACTERS:
                self._asks.add(number)
            return line
        if number == self._greeting and self._greeted is None:
            return self._answered(line, head)
        self._asked.discard(number)
        return None if number in self._stale else line

    def _answered(self, line: bytes, head: _Head) -> bytes | None:
        """The server's answer to its greeting, for the host that waits for it now."""
        first, waits = self._greeting, self._greets
        self._greets = None
        if not head.result:
            self._greeting = None  # it refused: it may be greeted again
        elif len(head.result) <= MAX_GREETING_BYTES:
            self._greeted = head.result.copy()
        if waits == first:
            return line
        return wire.answer(waits, head.result) if waits is not None and head.result else None

    def _forget(self, numbers: Iterable[Id]) -> None:
        for number in numbers:
            self._asked.discard(number)
            self._stale[number] = None
        while len(self._stale) > MAX_STALE:
            del self._stale[next(iter(self._stale))]


def _read(line: bytes) -> _Head:
    """What a line is. One that is no message is nobody's request: it goes on, and the other end refuses it."""
    try:
        return _head_of(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Head()


def _cancelled(line: bytes) -> Id | None:
    try:
        return _cancel_of(line).params.request_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _gone(number: Id) -> bytes:
    data = {"code": ErrorCode.PLUGIN_UNAVAILABLE}
    return wire.refusal(number, REFUSED, "the host that was asked is gone: ask again", data)
