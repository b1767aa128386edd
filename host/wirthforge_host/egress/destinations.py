"""What a connection is asked for: one head of HTTP, and the destination in it. Pure functions of bytes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from ipaddress import IPv4Address

from wirthforge_host.audit.records import Outcome
from wirthforge_host.egress.addresses import Address
from wirthforge_sdk.contracts.bridge import ErrorCode
from wirthforge_sdk.contracts.permissions import Permission
from wirthforge_sdk.errors import (
    InvalidInputError,
    LimitExceededError,
    PermissionDeniedError,
    WirthForgeError,
)

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
END_OF_HEAD = b"\r\n\r\n"
MAX_SHOWN = 100
"""Characters of a malformed destination that are written down."""

_CONNECT = re.compile(rb"CONNECT ([\x21-\x7e]+) HTTP/1\.[01]\r\n")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+){3}")


@dataclass(frozen=True, slots=True)
class Destination:
    """A host and a port in their one form: lower case, no dot at the end, numbers as usual."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def permission(self) -> str:
        """What a plugin needs to be connected there."""
        return f"net.connect:{self}"

    @property
    def address(self) -> Address | None:
        """The address that the host is; None: it is a name."""
        return IPv4Address(self.host) if _NUMBER.fullmatch(self.host) else None


def requested(head: bytes) -> Destination:
    """The destination that a head asks for.

    Raises:
        InvalidInputError: It is no CONNECT, or names what no permission could; ``details`` have ``destination``.
    """
    match = _CONNECT.match(head)
    if match is None:
        raise InvalidInputError("a connection begins with CONNECT host:port HTTP/1.1", reason="malformed")
    return destination(match[1].decode("ascii"))


def destination(text: str) -> Destination:
    """The destination ``host:port`` in its one form.

    Names in other scripts are written as their punycode. An address in brackets, or in any form but four decimal
    numbers, is no host here: no permission could name it.

    Raises:
        InvalidInputError: It is none.
    """
    host, _, port = text.rpartition(":")
    try:
        scope = Permission.parse(f"net.connect:{_folded(host)}:{port}").scope
    except InvalidInputError:
        shown = text[:MAX_SHOWN]
        raise InvalidInputError(
            f"{shown!r} is no destination: write host:port, the host in lower-case ASCII",
            reason="malformed",
            destination=shown,
        ) from None
    canonical, _, number = str(scope).rpartition(":")
    return Destination(canonical, int(number))


def refusal(error: WirthForgeError, permission: str | None) -> bytes:
    """The answer to a plugin that is not connected: HTTP with a JSON body ``{code, permission, reason, message}``.

    Args:
        error: Why; its ``details`` have a ``reason`` of a few words.
        permission: What the destination needs, when it is known.
    """
    status, code = next(
        (answer for kind, answer in _ANSWERS.items() if isinstance(error, kind)), _UNREACHABLE
    )
    told = {
        "code": code,
        "permission": permission,
        "reason": error.details["reason"],
        "message": error.message,
    }
    body = json.dumps(told).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
    return head.encode() + END_OF_HEAD + body


def outcome(error: WirthForgeError) -> Outcome:
    """How an attempt that ended with ``error`` is written down: what is out of order or down was not denied."""
    return Outcome.DENIED if isinstance(error, tuple(_ANSWERS)) else Outcome.FAILED


_ANSWERS: dict[type[WirthForgeError], tuple[str, str]] = {
    InvalidInputError: ("400 Bad Request", ErrorCode.INVALID_PARAMETERS),
    PermissionDeniedError: ("403 Forbidden", ErrorCode.PERMISSION_DENIED),
    LimitExceededError: ("429 Too Many Requests", ErrorCode.RESOURCE_EXHAUSTED),
}
_UNREACHABLE = ("502 Bad Gateway", "UNREACHABLE")


def _folded(host: str) -> str:
    """Lower case, and without the dot that says a name is complete."""
    return host.lower().removesuffix(".") if host.isascii() else host
