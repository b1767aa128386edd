"""What runs inside a plugin's sandbox, and the few names a plugin's author needs.

Only the standard library, msgspec, :mod:`wirthforge_sdk.errors` and :mod:`wirthforge_sdk.contracts.bridge`:
this package is the cold start of every plugin. Its names are loaded when first asked for, because the process
that only reaps (:mod:`wirthforge_sdk.runtime.__main__`) and the one that joins an MCP server need none of
them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wirthforge_sdk.runtime.errors import (
        CallCancelledError,
        HostFailedError,
        HostLimitError,
        HostRefusedError,
        HostTimeoutError,
        HostUnavailableError,
        InvalidHostCallError,
        PermissionRefusedError,
        VersionConflictError,
    )
    from wirthforge_sdk.runtime.events import Event
    from wirthforge_sdk.runtime.plugin import Plugin

__all__ = [
    "CallCancelledError",
    "Event",
    "HostFailedError",
    "HostLimitError",
    "HostRefusedError",
    "HostTimeoutError",
    "HostUnavailableError",
    "InvalidHostCallError",
    "PermissionRefusedError",
    "Plugin",
    "VersionConflictError",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = {"Plugin": "plugin", "Event": "events"}.get(name, "errors")
    return getattr(import_module(f"{__name__}.{module}"), name)
