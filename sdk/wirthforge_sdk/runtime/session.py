"""One connection's conversation: an MCP server of both eras, whose tools are the plugin's functions.

The reader thread runs everything here but the author's functions. Which era a connection serves is settled by
its first request that is answered without error, as MCP 2026-07-28 asks of servers that speak both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from wirthforge_sdk.contracts import bridge
from wirthforge_sdk.contracts.bridge import (
    DELIVER,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LEGACY,
    META_SERVER,
    METHOD_NOT_FOUND,
    MODERN,
    PARSE_ERROR,
    PROFILE,
    UNSUPPORTED_VERSION,
    too_deep,
)
from wirthforge_sdk.contracts.framing import Carried, Frame
from wirthforge_sdk.runtime import wire
from wirthforge_sdk.runtime.execution import Execution
from wirthforge_sdk.runtime.functions import Function
from wirthforge_sdk.runtime.host import Host
from wirthforge_sdk.runtime.settings import METHODS as CHANGES

HANDSHAKE_REVISIONS = frozenset({"2024-11-05", "2025-03-26", "2025-06-18", LEGACY})
FLUSH_BYTES = 64 * 1024
"""Answers of the reader thread are sent together, until there are this many bytes of them."""


_CAPABILITIES = {
    "tools": {"listChanged": False},
    "experimental": {bridge.STREAMS_CAPABILITY: {}, bridge.BODIES_CAPABILITY: {}},
}


class About(Struct, frozen=True):
    """What the server says it is."""

    name: str = "plugin"
    version: str = ""


Answer = bytes | Carried | None
"""A line, perhaps with raw bytes after it; None: there is none yet, or never."""
Accept = Callable[[wire.Id, wire.Params], Answer]


class Work(Struct, frozen=True):
    """Who does what one connection brings."""

    calls: Execution
    deliveries: Execution
    """Of events."""
    changed: Callable[[str], Accept]
    """Of a change, by its method."""
    profile: Accept

    def acceptors(self) -> dict[str, Accept]:
        """Who takes a request, by its method; an answer is returned only if there is one already."""
        changes = {method: self.changed(method) for method in CHANGES}
        own = {DELIVER: self.deliveries.accept, PROFILE: self.profile}
        return {"tools/call": self.calls.accept, **own, **changes}


class Session:
    """Answers for the functions of a plugin on one connection, until the other side closes it."""

    def __init__(
        self,
        functions: Mapping[str, Function],
        about: About,
        connection: wire.Connection,
        host: Host,
        work: Work,
    ) -> None:
        self._functions = functions
        self._about = about
        self._connection = connection
        self._host = host
        self._work = work
        self._acceptors = work.acceptors()
        self._era: str | None = None

    def serve(self) -> None:
        """Reads until the end.

        Raises:
            LineTooLongError: The other side broke the bound of a line; nothing after it can be trusted.
        """
        try:
            for frames in self._connection.frames():
                self._send(filter(None, map(self._take, frames)))
        finally:
            self._host.close()
            self._work.calls.abandon()
            self._work.deliveries.abandon()

    def _send(self, answers: Iterator[bytes | Carried]) -> None:
        """Sends the answers of one batch in few writes: a write costs more than a short call."""
        waiting: list[bytes] = []
        size = 0
        for answer in answers:
            if isinstance(answer, Carried):
                self._connection.send_with(b"\n".join([*waiting, answer.line]), answer.body)
                waiting, size = [], 0
                continue
            waiting.append(answer)
            size += len(answer)
            if size >= FLUSH_BYTES:
                self._connection.send(b"\n".join(waiting))
                waiting, size = [], 0
        if waiting:
            self._connection.send(b"\n".join(waiting))

    def _take(self, frame: Frame) -> Answer:
        if isinstance(frame, bytes):
            return self.receive(frame)
        if isinstance(frame, Carried):
            return self.receive(frame.line, frame.body)
        self._work.calls.item(frame.request, frame.body, frame.cost)
        return None

    def receive(self, line: bytes, body: memoryview | None = None) -> Answer:
        """Acts on one line, and the bytes after it; returns what is to be answered at once, if anything."""
        if too_deep(line):
            return wire.refusal(None, INVALID_REQUEST, "the message nests too deep")
        try:
            message = wire.decode_message(line)
        except msgspec.ValidationError as error:
            number = INVALID_PARAMS if "`$.params" in str(error) else INVALID_REQUEST
            return wire.refusal(wire.id_of(line), number, str(error))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return wire.refusal(None, PARSE_ERROR, "the line is not JSON")
        if message.method is UNSET:
            self._host.answered(message)
            return None
        if message.id is UNSET:
            if message.params.request_id is not None:
                self._notified(message.method, message.params.request_id, message.params, len(line) + 1)
            return None
        if message.id is None:
            return wire.refusal(None, INVALID_REQUEST, "a request's id cannot be null")
        return self._requested(message.id, message.method, message.params, body)

    def _notified(self, method: str, number: wire.Id, params: wire.Params, cost: int) -> None:
        """Acts on what the host says of one of its calls; other notifications are of no concern."""
        match method:
            case "notifications/cancelled":
                for work in (self._work.calls, self._work.deliveries):
                    work.cancel(number)
            case bridge.ITEM if params.item is not UNSET:
                self._work.calls.item(number, params.item, cost)
            case bridge.CREDIT:
                self._work.calls.grant(number, params.bytes)
            case bridge.END:
                self._work.calls.end_input(number)

    def _requested(
        self, number: wire.Id, method: str, params: wire.Params, body: memoryview | None
    ) -> Answer:
        refused = self._refused_by_era(number, method, params)
        if refused is not None:
            return refused
        if body is not None and method == "tools/call":
            return self._work.calls.accept(number, params, body)
        accept = self._acceptors.get(method)
        if accept is not None:
            return accept(number, params)
        match method:
            case "tools/list":
                tools = [self._functions[name].tool() for name in sorted(self._functions)]
                return wire.answer(number, {"tools": tools, **self._cacheable()})
            case "server/discover" if self._era == MODERN:
                return wire.answer(number, self._discovery())
            case "initialize" if self._era == LEGACY:
                return wire.answer(number, self._welcome(params.protocol_version))
            case "ping" if self._era == LEGACY:
                return wire.answer(number, {})
        return wire.refusal(number, METHOD_NOT_FOUND, f"there is no method {method[:100]!r}")

    def _refused_by_era(self, number: wire.Id, method: str, params: wire.Params) -> bytes | None:
        """Settles the era by the first good request, and refuses what belongs to the other one."""
        meta = params.meta
        modern = meta is not UNSET and meta.protocol is not None
        if method == "initialize" and self._era != MODERN and not modern:
            self._era = LEGACY
        if self._era == LEGACY:
            wrong = "this connection serves the handshake era: send no 2026-07-28 envelope"
            return wire.refusal(number, INVALID_REQUEST, wrong) if modern else None
        if method == "initialize":
            return self._unsupported(number, params.protocol_version)
        if meta is UNSET or meta.protocol is None or not isinstance(meta.capabilities, dict):
            wrong = "params._meta needs io.modelcontextprotocol/protocolVersion and …/clientCapabilities"
            return wire.refusal(number, INVALID_PARAMS, wrong)
        if meta.protocol != MODERN:
            return self._unsupported(number, meta.protocol)
        self._era = MODERN
        return None

    def _unsupported(self, number: wire.Id, requested: Any) -> bytes:
        message = f"this connection serves MCP {MODERN}"
        data = {"supported": [MODERN], "requested": str(requested)[:100]}
        return wire.refusal(number, UNSUPPORTED_VERSION, message, data)

    def _cacheable(self) -> dict[str, Any]:
        """What a modern result carries on top of a legacy one."""
        return {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if self._era == MODERN else {}

    def _discovery(self) -> dict[str, Any]:
        return {
            "supportedVersions": [MODERN],
            "capabilities": _CAPABILITIES,
            **self._cacheable(),
            "_meta": {META_SERVER: self._about},
        }

    def _welcome(self, requested: str) -> dict[str, Any]:
        return {
            "protocolVersion": requested if requested in HANDSHAKE_REVISIONS else LEGACY,
            "capabilities": _CAPABILITIES,
            "serverInfo": self._about,
        }
