"""What a host call raises when the host says no. Each is also one of the eight kinds of the whole product."""

from __future__ import annotations

from typing import Any, ClassVar

from wirthforge_sdk.contracts.bridge import ErrorCode
from wirthforge_sdk.errors import (
    InvalidInputError,
    LimitExceededError,
    PermissionDeniedError,
    UnavailableError,
    WirthForgeError,
)


class HostRefusedError(WirthForgeError):
    """The host did not do what the plugin asked. ``code`` is the wire's, one of :class:`ErrorCode`.

    Uncaught by the plugin, it becomes the answer to the call it happened in, with the same code.
    """

    code: ClassVar[str] = ErrorCode.INTERNAL_ERROR

    def __init__(self, message: str, *, code: str | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        if code is not None:
            # The host may be newer than this runtime and refuse for a reason this one has no class for.
            self.code = code  # type: ignore[misc]


class PermissionRefusedError(HostRefusedError, PermissionDeniedError):
    """The operator has not granted what the host call needs; :attr:`permission` names it."""

    code = ErrorCode.PERMISSION_DENIED

    @property
    def permission(self) -> str:
        """The permission that is missing, such as ``storage.write``; empty if the host did not say."""
        return str(self.details.get("permission", ""))


class InvalidHostCallError(HostRefusedError, InvalidInputError):
    """The host call's parameters are wrong: a key over its bound, a value that is not JSON."""

    code = ErrorCode.INVALID_PARAMETERS


class HostLimitError(HostRefusedError, LimitExceededError):
    """A quota or a bound of the bridge was reached."""

    code = ErrorCode.RESOURCE_EXHAUSTED


class HostTimeoutError(HostRefusedError, UnavailableError):
    """The host did not answer before the deadline of the call that needed it."""

    code = ErrorCode.TIMEOUT


class CallCancelledError(HostRefusedError, UnavailableError):
    """The caller no longer waits; the plugin should stop working for it."""

    code = ErrorCode.CANCELLED


class HostUnavailableError(HostRefusedError, UnavailableError):
    """The bridge is closed: the instance is being stopped, or it serves no host yet."""

    code = ErrorCode.PLUGIN_UNAVAILABLE


_BY_CODE: dict[str, type[HostRefusedError]] = {
    each.code: each
    for each in (
        PermissionRefusedError,
        InvalidHostCallError,
        HostLimitError,
        HostTimeoutError,
        CallCancelledError,
        HostUnavailableError,
    )
}


def refused(message: str, data: dict[str, Any]) -> HostRefusedError:
    """The error for a JSON-RPC error object of the host: ``data["code"]`` chooses the class."""
    details = {"permission": data["permission"]} if "permission" in data else {}
    code = str(data.get("code", ErrorCode.INTERNAL_ERROR))
    return _BY_CODE.get(code, HostRefusedError)(message, code=code, **details)
