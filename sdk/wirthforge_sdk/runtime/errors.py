"""What a host call raises when the host says no. Each is also one of the eight kinds of the whole product."""

from __future__ import annotations

from typing import Any, ClassVar

from wirthforge_sdk.contracts.bridge import ErrorCode
from wirthforge_sdk.errors import (
    ConflictError,
    InvalidInputError,
    LimitExceededError,
    PermissionDeniedError,
    UnavailableError,
)


class HostRefusedError(Exception):
    """The host did not do what the plugin asked; every error here is one, and of a kind of the whole product.

    Uncaught by the plugin, it becomes the answer to the call it happened in, with the same :attr:`code`.
    """

    code: ClassVar[str]
    """The wire's, one of :class:`ErrorCode`."""
    message: str
    details: dict[str, Any]


class HostFailedError(HostRefusedError, UnavailableError):
    """The host failed at it, or refused for a reason that this runtime does not know."""

    code = ErrorCode.INTERNAL_ERROR
    # details["code"] is the wire's own, when it is another.


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


class VersionConflictError(HostRefusedError, ConflictError):
    """Another version of a stored value is there than was named; :attr:`version` is it."""

    code = ErrorCode.CONFLICT

    @property
    def version(self) -> int:
        """Of what is there; 0 when nothing is."""
        return int(self.details.get("version", 0))


class HostTimeoutError(HostRefusedError, UnavailableError):
    """The host did not answer before the deadline of the call that needed it."""

    code = ErrorCode.TIMEOUT


class CallCancelledError(HostRefusedError, UnavailableError):
    """The caller no longer waits; the plugin should stop working for it."""

    code = ErrorCode.CANCELLED


class HostUnavailableError(HostRefusedError, UnavailableError):
    """The bridge is closed: the instance is being stopped, or it has no host just now."""

    code = ErrorCode.PLUGIN_UNAVAILABLE


class FunctionFailedError(UnavailableError):
    """A function ran, and says that it failed: the message is what a caller sees.

    No refusal of the host. Uncaught by a plugin that called another, it is the failure of its own function.
    """

    code = "function_failed"


_BY_CODE: dict[str, type[Any]] = {
    each.code: each
    for each in (
        PermissionRefusedError,
        InvalidHostCallError,
        HostLimitError,
        VersionConflictError,
        HostTimeoutError,
        CallCancelledError,
        HostUnavailableError,
    )
}


def refused(message: str, data: dict[str, Any]) -> HostRefusedError:
    """The error for a JSON-RPC error object of the host: ``data["code"]`` chooses the class."""
    code = str(data.get("code", ErrorCode.INTERNAL_ERROR))
    kind = _BY_CODE.get(code, HostFailedError)
    details = {name: data[name] for name in ("permission", "version") if name in data}
    error: HostRefusedError = kind(message, **details, **({} if kind.code == code else {"code": code}))
    return error
