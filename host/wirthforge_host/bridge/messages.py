"""Lines of JSON-RPC as values: read and written. No meaning of any method lives here."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from wirthforge_sdk.contracts.bodies import Bytes
from wirthforge_sdk.contracts.bridge import (
    INVALID_REQUEST,
    JSONRPC_NUMBER,
    MAX_CALL_BYTES,
    MAX_HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    PARSE_ERROR,
    REFUSED,
    ErrorCode,
    too_deep,
    too_many,
)
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError

Id = int | str

OVER = Raw()
"""Stands for params that are too long to be kept."""


class MalformedLineError(Exception):
    """A line that is no message. ``number`` is JSON-RPC's for the answer."""

    def __init__(self, reason: str, number: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.number = number


class Failure(Struct):
    """A JSON-RPC error object."""

    code: int
    message: str
    data: Any = UNSET


class Message(Struct):
    """A request (method and id), a notification (method) or a reply (id, and a result or an error).

    What it carries is not decoded: see :func:`decoded`.
    """

    jsonrpc: Literal["2.0"]
    id: Id | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: Raw = Raw(b"{}")
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class Carrying(NamedTuple):
    """The params of a request, or the result of a reply, and the raw bytes that come with it."""

    json: Any
    body: Bytes


class _Request(Struct):
    method: str
    params: Any
    id: Id | UnsetType = UNSET
    jsonrpc: str = "2.0"


class _Reply(Struct):
    id: Id
    result: Any
    jsonrpc: str = "2.0"


class _Refusal(Struct):
    id: Id | None
    error: Failure
    jsonrpc: str = "2.0"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode


def read(line: bytes) -> Message:
    """The message in ``line``, with params that are an object no deeper than the bridge allows, or are :data:`OVER`.

    Raises:
        MalformedLineError: It is none.
    """
    message = _envelope(line)
    if message.method is not UNSET:
        if len(line) > MAX_CALL_BYTES:
            message.params = OVER
        elif too_deep(line):
            raise MalformedLineError("a message is nested too deep", INVALID_REQUEST)
        elif bytes(memoryview(message.params)[:1]) != b"{":
            raise MalformedLineError("a line is no JSON-RPC message", INVALID_REQUEST)
    return message


def decoded(raw: Raw, bound: int, form: Any = dict[str, Any]) -> Any:
    """What a message carries, of at most ``bound`` elements.

    Raises:
        LimitExceededError: It is over the bound, or was too long to be kept.
        InvalidInputError: It is nested too deep, is not JSON in UTF-8, or is no ``form``.
    """
    if raw is OVER:
        raise LimitExceededError(f"a message of the plugin is over {MAX_CALL_BYTES} bytes")
    text = bytes(raw)
    if too_many(text, bound):
        raise LimitExceededError(f"a message of the plugin has over {bound} elements")
    if too_deep(text):
        raise InvalidInputError("a message of the plugin is nested too deep")
    try:
        return msgspec.json.decode(text, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # What is wrong with it would quote it.
        raise InvalidInputError("a message of the plugin is not JSON that can be read") from None


def _envelope(line: bytes) -> Message:
    try:
        return _decode(line)
    except RecursionError:
        raise MalformedLineError("a message is nested too deep", INVALID_REQUEST) from None
    except msgspec.ValidationError:
        # What is wrong with it would quote it, and go into the audit log.
        raise MalformedLineError("a line is no JSON-RPC message", INVALID_REQUEST) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise MalformedLineError("a line is not JSON in UTF-8", PARSE_ERROR) from None


def request(number: Id, method: str, params: Any) -> bytes:
    """The line of a request.

    Raises:
        InvalidInputError: ``params`` is not JSON, or the other side would not take it: too long, or nested
            too deep.
    """
    return _outgoing(_Request(method, params, number))


def parts(number: Id, method: str, params: Any) -> tuple[Bytes, ...]:
    """The line of a request, and the raw bytes after it where ``params`` are :class:`Carrying`; raises as above."""
    if not isinstance(params, Carrying):
        return (request(number, method, params),)
    line = request(number, method, params.json)
    if len(line) > MAX_HEADER_BYTES:
        raise InvalidInputError(
            f"arguments: over {MAX_HEADER_BYTES} bytes as JSON beside raw bytes", field="arguments"
        )
    return line, params.body


def notification(method: str, params: Any) -> bytes:
    """The line of a notification; raises as :func:`request`."""
    return _outgoing(_Request(method, params))


def reply(number: Id, result: Any) -> bytes:
    """The line that answers a request."""
    return _encode(_Reply(number, result)) + b"\n"


def refusal(number: Id, code: ErrorCode, message: str, details: dict[str, Any] | None = None) -> bytes:
    """The line that refuses a request with a code of ours; ``details`` stand beside it."""
    failure = Failure(JSONRPC_NUMBER.get(code, REFUSED), message, {**(details or {}), "code": code.value})
    return _encode(_Refusal(number, failure)) + b"\n"


def failed(number: Id | None, failure: Failure) -> bytes:
    """The line that answers a request with an error; None where its id could not be read."""
    return _encode(_Refusal(number, failure)) + b"\n"


def malformed(error: MalformedLineError) -> bytes:
    """The line that answers one which is no message."""
    return failed(None, Failure(error.number, error.reason))


def _outgoing(message: _Request) -> bytes:
    try:
        line = _encode(message)
    except (TypeError, ValueError, RecursionError) as error:
        # Lone surrogates, for one: Python's own JSON has them, the wire does not.
        raise InvalidInputError(f"arguments: not JSON that can be sent: {error}", field="arguments") from None
    if len(line) > MAX_MESSAGE_BYTES:
        raise InvalidInputError(f"arguments: over {MAX_MESSAGE_BYTES} bytes as JSON", field="arguments")
    if too_deep(line):
        raise InvalidInputError("arguments: nested too deep", field="arguments")
    return line + b"\n"
