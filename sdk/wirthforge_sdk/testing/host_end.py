"""The host's end of the bridge, as far as a test needs it: calls out, host calls in, one reader thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

import msgspec

from wirthforge_sdk.contracts import bridge
from wirthforge_sdk.contracts.bodies import Bytes, lifted
from wirthforge_sdk.contracts.bridge import (
    BODIES_CAPABILITY,
    INTERNAL_ERROR,
    JSONRPC_NUMBER,
    LEGACY,
    META_BODY,
    META_BYTES,
    META_CAPABILITIES,
    META_CLIENT,
    META_PROGRESS,
    META_PROTOCOL,
    META_STREAM,
    META_TIMEOUT_MS,
    METHOD_NOT_FOUND,
    MODERN,
    REFUSED,
    WINDOW_BYTES,
    ErrorCode,
)
from wirthforge_sdk.contracts.framing import Carried, Chunk, Frame
from wirthforge_sdk.errors import (
    ConflictError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
    WirthForgeError,
)
from wirthforge_sdk.runtime import wire
from wirthforge_sdk.testing.memory_host import MemoryHost
from wirthforge_sdk.testing.streams import PluginStream, is_source

_ENVELOPE = {
    META_PROTOCOL: MODERN,
    META_CAPABILITIES: {},
    META_CLIENT: {"name": "wirthforge-testing", "version": "1"},
}


class CallRefusedError(UnavailableError):
    """The call was answered with a JSON-RPC error. :attr:`reason` is its ``data.code``, an ``ErrorCode``."""

    code = "call_refused"

    @property
    def reason(self) -> str:
        """Such as ``INVALID_PARAMETERS`` or ``PERMISSION_DENIED``."""
        return str(self.details.get("code", ""))

    @property
    def permission(self) -> str:
        """The permission the plugin would have needed; empty unless that is the reason."""
        return str(self.details.get("permission", ""))


class HostEnd:
    """One connection to a plugin.

    Args:
        connection: To the plugin.
        host: Does its host calls.
        timeout_s: How long a request may take.
    """

    def __init__(self, connection: wire.Connection, host: MemoryHost, timeout_s: float) -> None:
        self._connection = connection
        self._host = host
        self._timeout_s = timeout_s
        self._envelope: dict[str, Any] = _ENVELOPE
        self._lock = threading.Lock()
        self._number = 0
        self._waiting: dict[int, Future[Any]] = {}
        self._streams: dict[int, PluginStream] = {}
        self._carries = self._closed = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def greet(self) -> None:
        """Settles the revision of MCP: the newest, or for a server that does not know it, the one before.

        Raises:
            CallRefusedError: It answers neither greeting.
            TimeoutError: It does not answer in time.
        """
        try:
            answer = self.ask("server/discover", {})
        except CallRefusedError:
            self._envelope = {}
            hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": _ENVELOPE[META_CLIENT]}
            answer = self.ask("initialize", hello)
            self._connection.send(wire.request("notifications/initialized", {}))
        self._carries = BODIES_CAPABILITY in answer.get("capabilities", {}).get("experimental", {})

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Sends a request and waits for its result.

        Raises:
            CallRefusedError: It was answered with an error.
            TimeoutError: It was not answered in time.
        """
        answer: dict[str, Any] = self.begin(method, params).result(self._timeout_s)
        return answer

    def stream(self, function: str, arguments: dict[str, Any]) -> PluginStream:
        """Calls a function whose items are wanted as they come; an argument that is an iterator is sent as a stream."""
        streamed = [name for name, value in arguments.items() if is_source(value)]
        if len(streamed) > 1:
            raise ValueError(f"{' and '.join(streamed)}: one argument of a call may be a stream")
        whole = {name: value for name, value in arguments.items() if name not in streamed}
        source = arguments[streamed[0]] if streamed else None
        stream: list[PluginStream] = []

        def join(number: int, future: Future[Any]) -> dict[str, Any]:
            stream.append(PluginStream(self._connection, number, self._timeout_s, future, source))
            self._streams[number] = stream[0]
            ask = {"credit": WINDOW_BYTES, **({"input": streamed[0]} if streamed else {})}
            return {META_STREAM: ask, META_PROGRESS: number}

        self.begin("tools/call", {"name": function, "arguments": whole}, join)
        return stream[0]

    def call(self, function: str, arguments: dict[str, Any]) -> Future[Any]:
        """Calls a function; an argument that is ``bytes`` travels as it is, and so does such a result."""
        raw = lifted(arguments) if self._carries else None
        whole = {"name": function, "arguments": arguments if raw is None else raw.others}
        if not self._carries:
            return self.begin("tools/call", whole)
        more = {META_BODY: {}} if raw is None else {META_BODY: {"input": raw.name}, META_BYTES: len(raw.body)}
        return self.begin(
            "tools/call", whole, lambda _number, _future: more, None if raw is None else raw.body
        )

    def begin(
        self,
        method: str,
        params: dict[str, Any],
        join: Callable[[int, Future[Any]], dict[str, Any]] = lambda _number, _future: {},
        body: Bytes | None = None,
    ) -> Future[Any]:
        """Sends a request; cancelling the future tells the plugin.

        Args:
            method: Of the plugin.
            params: JSON.
            join: Says what more is in its ``_meta``.
            body: The raw bytes that follow.
        """
        future: Future[Any] = Future()
        with self._lock:
            self._number += 1
            number = self._number
            self._waiting[number] = future
            closed = self._closed
        more = join(number, future)
        future.add_done_callback(lambda done: self._ended(number, done))
        if closed:
            _settle(future, _gone())
        meta = {**self._envelope, META_TIMEOUT_MS: int(self._timeout_s * 1000), **more}
        line = wire.request(method, {**params, "_meta": meta}, number)
        self._connection.send(line) if body is None else self._connection.send_with(line, body)
        return future

    def join(self, patience_s: float) -> None:
        """Waits until the plugin has hung up and all it said is read."""
        self._reader.join(patience_s)

    def _ended(self, number: int, future: Future[Any]) -> None:
        with self._lock:
            self._waiting.pop(number, None)
            stream = self._streams.pop(number, None)
        if stream is not None:
            stream.over()
        if future.cancelled():
            self._connection.send(wire.request("notifications/cancelled", {"requestId": number}))

    def _read(self) -> None:
        for frames in self._connection.frames():
            for frame in frames:
                self._take(frame)
        with self._lock:
            self._closed = True
            left = list(self._waiting.values())
        for future in left:
            _settle(future, _gone())

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, Chunk):
            self._streamed(frame.request, lambda stream: stream.items.put(frame.body, frame.cost))
            return
        if isinstance(frame, Carried):
            message = wire.decode(frame.line)
            message["result"]["structuredContent"] = {"result": bytes(frame.body)}
            self._answered(message)
            return
        message = wire.decode(frame)
        params = message.get("params") or {}
        match message.get("method"):
            case None:
                self._answered(message)
            case bridge.ITEM:
                item = msgspec.Raw(wire.encode(params["item"]))
                self._streamed(params["requestId"], lambda stream: stream.items.put(item, len(frame) + 1))
            case bridge.CREDIT:
                self._streamed(params["requestId"], lambda stream: stream.grant(params["bytes"]))
            case bridge.PROGRESS:
                self._streamed(params["progressToken"], lambda stream: stream.progress.append(params))
            case _:
                self._serve(message)

    def _streamed(self, number: int, act: Callable[[PluginStream], None]) -> None:
        """Acts on a stream that is open; of one that is over, nobody wants anything."""
        with self._lock:
            stream = self._streams.get(number)
        if stream is not None:
            act(stream)

    def _answered(self, message: dict[str, Any]) -> None:
        with self._lock:
            future = self._waiting.get(message["id"])
        if future is None:
            return
        failure = message.get("error")
        if failure is None:
            _settle(future, message["result"])
        else:
            data = {key: value for key, value in (failure.get("data") or {}).items() if key != "message"}
            _settle(future, CallRefusedError(failure["message"], **data))

    def _serve(self, message: dict[str, Any]) -> None:
        """A host call. A notification, which has no id, is never answered."""
        number = message.get("id", 0)
        try:
            line = wire.answer(number, self._host.answer(message["method"], message.get("params") or {}))
        except WirthForgeError as error:
            line = _refusal(number, error)
        if "id" in message:
            self._connection.send(line)


def _gone() -> CallRefusedError:
    return CallRefusedError("the plugin ended", code=ErrorCode.PLUGIN_UNAVAILABLE)


def _settle(future: Future[Any], outcome: Any) -> None:
    """Gives a future its outcome, unless its waiter gave it up in the same moment."""
    try:
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
    except (CancelledError, InvalidStateError):
        return


def _refusal(number: wire.Id, error: WirthForgeError) -> bytes:
    """As the host refuses: the kind of the error chooses the code."""
    data = {name: told for name, told in error.details.items() if name in {"permission", "version"}}
    code, rpc = next(
        (codes for kind, codes in _CODES.items() if isinstance(error, kind)),
        (ErrorCode.INTERNAL_ERROR, INTERNAL_ERROR),
    )
    return wire.refusal(number, rpc, error.message, {"code": code, **data})


_CODES: dict[type[WirthForgeError], tuple[ErrorCode, int]] = {
    NotFoundError: (ErrorCode.FUNCTION_NOT_FOUND, METHOD_NOT_FOUND),
    InvalidInputError: (ErrorCode.INVALID_PARAMETERS, JSONRPC_NUMBER[ErrorCode.INVALID_PARAMETERS]),
    PermissionDeniedError: (ErrorCode.PERMISSION_DENIED, REFUSED),
    ConflictError: (ErrorCode.CONFLICT, REFUSED),
    LimitExceededError: (ErrorCode.RESOURCE_EXHAUSTED, REFUSED),
}
