"""Host calls: what a plugin asks of its host, from any thread, over the same connection it is called on."""

from __future__ import annotations

import builtins
import itertools
import threading
from queue import Empty, SimpleQueue
from typing import Any

import msgspec
from msgspec import Struct

from wirthforge_sdk.contracts.bridge import MAX_IN_FLIGHT, MAX_LOG_BYTES, META_CALL, ErrorCode
from wirthforge_sdk.runtime import wire
from wirthforge_sdk.runtime.calls import CURRENT
from wirthforge_sdk.runtime.errors import (
    CallCancelledError,
    HostLimitError,
    HostTimeoutError,
    HostUnavailableError,
    InvalidHostCallError,
    refused,
)

PATIENCE_S = 30.0
"""How long a host call waits when no deadline of a call is nearer."""


class Host:
    """The host at the other end of one connection."""

    def __init__(self, connection: wire.Connection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._waiting: dict[wire.Id, SimpleQueue[wire.Message]] = {}
        self._closed = False
        self._reader = threading.get_ident()

    def call(self, method: str, patience_s: float = PATIENCE_S, /, **params: Any) -> Any:
        """Asks the host and waits for its answer, at most ``patience_s`` seconds and no longer than the caller of ours.

        Returns:
            The answer's ``result``, decoded JSON.

        Raises:
            HostRefusedError: One below it says why.
            RuntimeError: It is called from the thread that would read the answer.
        """
        patience_s = self._patience_s(patience_s)
        number = next(self._numbers)
        line = _line(method, params, number)
        answer: SimpleQueue[wire.Message] = SimpleQueue()
        if len(self._waiting) >= MAX_IN_FLIGHT:
            raise HostLimitError(f"{MAX_IN_FLIGHT} host calls are already open")
        self._waiting[number] = answer
        try:
            if self._closed:
                raise HostUnavailableError("the bridge is closed")
            self._connection.send(line)
            return _result(method, answer.get(timeout=patience_s))
        except Empty:
            self.notify("notifications/cancelled", requestId=number)
            raise HostTimeoutError(f"{method} was not answered within {patience_s:.3g} s") from None
        finally:
            del self._waiting[number]

    def notify(self, method: str, **params: Any) -> None:
        """Tells the host something it does not answer."""
        self._connection.send(_line(method, params, None))

    def answered(self, message: wire.Message) -> None:
        """Hands an answer to the thread that waits for it; nobody does after its deadline."""
        if message.id is None or message.id is msgspec.UNSET:
            return
        waiting = self._waiting.get(message.id)
        if waiting is not None:
            waiting.put(message)

    def close(self) -> None:
        """Wakes every waiting thread with HostUnavailableError."""
        self._closed = True
        gone = wire.Failure(0, "the bridge closed", {"code": ErrorCode.PLUGIN_UNAVAILABLE})
        for waiting in builtins.list(self._waiting.values()):
            waiting.put(wire.Message(jsonrpc="2.0", error=gone))

    def _patience_s(self, most_s: float) -> float:
        if threading.get_ident() == self._reader:
            raise RuntimeError("an inline function cannot make host calls: remove inline=True")
        call = CURRENT.get()
        if call is None:
            return most_s
        if call.cancelled:
            raise CallCancelledError("the call was cancelled")
        remaining_s = call.remaining_s()
        if remaining_s is None:
            return most_s
        if remaining_s <= 0:
            raise HostTimeoutError("the deadline of the call has passed")
        return min(most_s, remaining_s)


def _line(method: str, params: dict[str, Any], number: int | None) -> bytes:
    call = CURRENT.get()
    # One that nobody waits for may be of a connection before this, where its number was another call's.
    if call is not None and not call.cancelled:
        params["_meta"] = {META_CALL: call.id}
    try:
        line = wire.request(method, params, number)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidHostCallError(f"{method}: not JSON: {error}") from error
    if not wire.fits(line):
        raise HostLimitError(f"{method}: the message is longer or deeper than the bridge takes")
    return line


def _result(method: str, answer: wire.Message) -> Any:
    if answer.error is msgspec.UNSET:
        return msgspec.json.decode(answer.result)
    data = answer.error.data
    raise refused(f"{method}: {answer.error.message}", data if isinstance(data, dict) else {})


class Permissions(Struct, frozen=True):
    """What the operator decided, as rules such as ``storage`` or ``events.publish:weather.*``."""

    granted: frozenset[str]
    denied: frozenset[str]


class Line:
    """A plugin's way to the host: bound to a connection while it serves, the same object before and after."""

    def __init__(self, host: Host | None = None) -> None:
        self.host = host

    def call(self, method: str, patience_s: float = PATIENCE_S, /, **params: Any) -> Any:
        """As :meth:`Host.call`."""
        if self.host is None:
            raise HostUnavailableError(
                "the plugin has no host just now: host calls work inside its functions, once they are called"
            )
        return self.host.call(method, patience_s, **params)

    def notify(self, method: str, **params: Any) -> None:
        """As :meth:`Host.notify`; without a host the words are lost."""
        if self.host is not None:
            self.host.notify(method, **params)


class Log:
    """The plugin's log, which the operator reads. It never raises; the host drops what comes too fast."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def debug(self, message: str, **fields: Any) -> None:
        """Says what only helps to find a fault."""
        self.write("debug", message, fields)

    def info(self, message: str, **fields: Any) -> None:
        """Says what happened."""
        self.write("info", message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        """Says what may become a problem."""
        self.write("warning", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        """Says what went wrong."""
        self.write("error", message, fields)

    def write(self, level: str, message: str, fields: dict[str, Any]) -> None:
        """One record; the message is cut to 8 KiB, its end kept: a traceback ends with its reason."""
        text = str(message).encode(errors="replace")[-MAX_LOG_BYTES:].decode(errors="ignore")
        plain = msgspec.json.encode(fields, enc_hook=repr)
        extra = {"fields": msgspec.Raw(plain)} if fields and len(plain) <= MAX_LOG_BYTES else {}
        self._line.notify("host/log", level=level, message=text, **extra)
