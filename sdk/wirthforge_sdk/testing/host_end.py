"""The host's end of the bridge, as far as a test needs it: calls out, host calls in, one reader thread."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

from wirthforge_sdk.contracts.bridge import (
    INTERNAL_ERROR,
    JSONRPC_NUMBER,
    LEGACY,
    META_CAPABILITIES,
    META_CLIENT,
    META_PROTOCOL,
    META_TIMEOUT_MS,
    METHOD_NOT_FOUND,
    MODERN,
    REFUSED,
    ErrorCode,
)
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
        self._closed = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def greet(self) -> None:
        """Settles the revision of MCP: the newest, or for a server that does not know it, the one before.

        Raises:
            CallRefusedError: It answers neither greeting.
            TimeoutError: It does not answer in time.
        """
        try:
            self.ask("server/discover", {})
        except CallRefusedError:
            self._envelope = {}
            hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": _ENVELOPE[META_CLIENT]}
            self.ask("initialize", hello)
            self._connection.send(wire.request("notifications/initialized", {}))

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Sends a request and waits for its result.

        Raises:
            CallRefusedError: It was answered with an error.
            TimeoutError: It was not answered in time.
        """
        answer: dict[str, Any] = self.begin(method, params).result(self._timeout_s)
        return answer

    def begin(self, method: str, params: dict[str, Any]) -> Future[Any]:
        """Sends a request; cancelling the future tells the plugin."""
        future: Future[Any] = Future()
        with self._lock:
            self._number += 1
            number = self._number
            self._waiting[number] = future
            closed = self._closed
        future.add_done_callback(lambda done: self._ended(number, done))
        if closed:
            _settle(future, _gone())
        meta = {**self._envelope, META_TIMEOUT_MS: int(self._timeout_s * 1000)}
        self._connection.send(wire.request(method, {**params, "_meta": meta}, number))
        return future

    def join(self, patience_s: float) -> None:
        """Waits until the plugin has hung up and all it said is read."""
        self._reader.join(patience_s)

    def _ended(self, number: int, future: Future[Any]) -> None:
        with self._lock:
            self._waiting.pop(number, None)
        if future.cancelled():
            self._connection.send(wire.request("notifications/cancelled", {"requestId": number}))

    def _read(self) -> None:
        for lines in self._connection.batches():
            for line in lines:
                message = wire.decode(line)
                if "method" in message:
                    self._serve(message)
                else:
                    self._answered(message)
        with self._lock:
            self._closed = True
            left = list(self._waiting.values())
        for future in left:
            _settle(future, _gone())

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
