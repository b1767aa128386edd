"""MCP's messages over HTTP, as values: which revision a request is of, whether it is well-formed, and its errors.

Sources: modelcontextprotocol.io/specification, revisions 2025-03-26 to 2025-11-25 (basic/lifecycle, basic/transports)
and 2026-07-28 (basic/transports/streamable-http).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from msgspec import UNSET

from wirthforge_host.bridge import messages
from wirthforge_host.bridge.messages import Failure, Id, MalformedLineError, Message
from wirthforge_sdk.contracts.bridge import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    LEGACY,
    MAX_CALL_ELEMENTS,
    META_CAPABILITIES,
    META_PROTOCOL,
    METHOD_NOT_FOUND,
    MODERN,
    PARSE_ERROR,
    UNSUPPORTED_VERSION,
)
from wirthforge_sdk.errors import WirthForgeError

GREETED: Final = ("2025-03-26", "2025-06-18", LEGACY)
"""Revisions that begin with ``initialize`` and travel over streamable HTTP, oldest first."""
PRIMED: Final = LEGACY
"""Since this revision a stream may begin with an event that has an id and no message."""
HEADER_MISMATCH: Final = -32020
SESSION_MISSING: Final = -32000
META_SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"

STATUS: Final[Mapping[int, int]] = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
"""HTTP's status of an error since 2026-07-28; before, an error of a method is a 200."""

SERVER: Final = {"name": "wirthforge-host", "title": "WirthForge", "version": "1.0.0"}
INSTRUCTIONS: Final = (
    "Each tool is a function of a sandboxed plugin: namespace__plugin__function. A call may wait for an operator's "
    "approval; one that was not approved says so, and may be tried again later."
)
CAPABILITIES: Final = {"tools": {"listChanged": True}}
LIST_CHANGED: Final = "notifications/tools/list_changed"


class RefusedError(Exception):
    """A message that gets an error for an answer."""

    def __init__(
        self,
        number: int,
        reason: str,
        data: Any = UNSET,
        *,
        status: int | None = None,
        id: Id | None = None,  # noqa: A002
    ) -> None:
        super().__init__(reason)
        self.number = number
        self.reason = reason
        self.data = data
        self.status = status
        """Of HTTP, where it is not the one of :data:`STATUS`."""
        self.id = id

    def line(self, number: Id | None) -> bytes:
        """The answer to the request ``number``."""
        return messages.failed(number, Failure(self.number, self.reason, self.data)).rstrip()


def read(body: bytes) -> Message:
    """The one message of a body.

    Raises:
        RefusedError: It is none; batches are not supported.
    """
    try:
        message = messages.read(body)
    except MalformedLineError as error:
        raise RefusedError(error.number, error.reason, status=400) from None
    if message.id is None:
        raise RefusedError(INVALID_REQUEST, "an id is a string or an integer, and not null", status=400)
    return message


def params_of(message: Message) -> dict[str, Any]:
    """What a request carries.

    Raises:
        RefusedError: It is too much.
    """
    try:
        found: dict[str, Any] = messages.decoded(message.params, MAX_CALL_ELEMENTS)
    except WirthForgeError as error:
        raise RefusedError(INVALID_PARAMS, error.message.replace("of the plugin ", "")) from None
    return found


def is_modern(message: Message, headers: Mapping[str, str]) -> bool:
    """Whether a message is of 2026-07-28 or later: its header says so, or names a revision that nobody knows."""
    version = headers.get("mcp-protocol-version")
    if version is not None:
        return version not in (*GREETED, "2024-11-05")
    return message.method == "server/discover" or META_PROTOCOL.encode() in bytes(message.params)


def check_envelope(method: str, params: Mapping[str, Any], headers: Mapping[str, str]) -> Mapping[str, Any]:
    """The ``_meta`` of a modern request that agrees with its headers.

    Raises:
        RefusedError: Something is missing, or body and headers disagree, or the revision is not served.
    """
    meta = params.get("_meta")
    missing = [
        key for key in (META_PROTOCOL, META_CAPABILITIES) if not isinstance(meta, dict) or key not in meta
    ]
    if missing or not isinstance(meta, dict):
        raise RefusedError(INVALID_PARAMS, f"params._meta lacks {' and '.join(missing)}")
    version = meta[META_PROTOCOL]
    told = {"mcp-protocol-version": version, "mcp-method": method}
    if method == "tools/call":
        told["mcp-name"] = params.get("name")
    for header, value in told.items():
        if value is not None and _decoded(headers.get(header)) != value:
            raise RefusedError(HEADER_MISMATCH, f"the header {header} does not say what the body says")
    if version != MODERN:
        data = {"supported": [MODERN], "requested": version}
        raise RefusedError(UNSUPPORTED_VERSION, f"this server speaks MCP {MODERN}", data)
    return meta


def negotiated(params: Mapping[str, Any]) -> str:
    """The revision for a client that greets: the one it asks for, or the newest that begins so."""
    asked = params.get("protocolVersion")
    return asked if isinstance(asked, str) and asked in GREETED else LEGACY


def can_elicit(capabilities: Any) -> bool:
    """Whether a client can show its user a form."""
    told = capabilities.get("elicitation") if isinstance(capabilities, Mapping) else None
    return isinstance(told, Mapping) and (not told or "form" in told)


def list_changed(subscription: Id | None = None) -> bytes:
    """The notification that there are other tools now; since 2026-07-28, with the subscription it belongs to."""
    params = {} if subscription is None else {"_meta": {META_SUBSCRIPTION: subscription}}
    return messages.notification(LIST_CHANGED, params)


def _decoded(header: str | None) -> str | None:
    """A header's value, which is in Base64 when it has more than visible ASCII in it."""
    if header is None or not (header.startswith("=?base64?") and header.endswith("?=")):
        return header
    try:
        return base64.b64decode(header[9:-2], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
