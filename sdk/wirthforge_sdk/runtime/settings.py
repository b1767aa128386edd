"""What an operator sets for a plugin, as the plugin's author sees it: configuration, secrets, and their changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from wirthforge_sdk.contracts.bridge import (
    CONFIG_CHANGED,
    INVALID_PARAMS,
    SECRETS_CHANGED,
    ErrorCode,
)
from wirthforge_sdk.runtime import wire
from wirthforge_sdk.runtime.execution import sentence
from wirthforge_sdk.runtime.host import Line
from wirthforge_sdk.runtime.workers import Workers

METHODS = frozenset({CONFIG_CHANGED, SECRETS_CHANGED})
"""By which the host tells of changes."""

Heard = TypeVar("Heard", bound=Callable[[Any], object])


class Config:
    """The plugin's configuration, as it is at this moment: each method asks the host.

    Needs ``config.read``, and ``[configuration]`` in the manifest. Every method raises HostRefusedError;
    PermissionRefusedError when it is not granted.
    """

    def __init__(self, line: Line) -> None:
        self._line = line

    def all(self) -> dict[str, Any]:
        """Every value that is set or has a default, by name."""
        values: dict[str, Any] = self._line.call("host/config.get")["values"]
        return values

    def get(self, name: str, default: Any = None) -> Any:
        """One value, or ``default`` when it is not set and has no default of its own."""
        return self.all().get(name, default)

    def __getitem__(self, name: str) -> Any:
        return self.all()[name]


class Secrets:
    """The secrets that the operator set for the plugin. Each needs ``secrets.read:<name>``.

    Ask when one is needed and keep none: a secret that is replaced is the new one at the next ask. Every method raises
    HostRefusedError; PermissionRefusedError when the secret is not granted.
    """

    def __init__(self, line: Line) -> None:
        self._line = line

    def get(self, name: str, default: str | None = None) -> str | None:
        """The secret, or ``default`` when the operator set none. One that is required is always set at a start."""
        answer = self._line.call("host/secrets.get", name=name)
        return str(answer["value"]) if answer["found"] else default

    def file(self, name: str) -> str:
        """Writes the secret to a file that only the plugin's processes can read, for a library that wants a path.

        The file is in memory. A secret that is replaced needs another call.

        Raises:
            KeyError: The operator set none.
        """
        return written(name, self[name])

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(f"the secret {name} is not set")
        return value


class Changes:
    """What an author wants to hear of."""

    def __init__(self) -> None:
        self._handlers: dict[str, Callable[[Any], object]] = {}

    def on(self, method: str, handler: Heard) -> Heard:
        """Registers the one handler of ``method``; it is returned unchanged.

        Raises:
            TypeError: It is ``async``.
            ValueError: There is one already.
        """
        if hasattr(handler, "__code__") and handler.__code__.co_flags & 0x80:  # inspect.CO_COROUTINE
            raise TypeError("a handler of changes must be a plain function: write def, not async def")
        if method in self._handlers:
            raise ValueError("there is a handler of this change already: keep one")
        self._handlers[method] = handler
        return handler

    def accept(
        self, connection: wire.Connection, workers: Workers, method: str, number: wire.Id, params: wire.Params
    ) -> bytes | None:
        """Has a change heard in a worker thread. An answer is returned only if there is one already."""
        handler = self._handlers.get(method)
        if handler is None:
            return wire.answer(number, {})
        told = wire.decode(params.values) if method == CONFIG_CHANGED else list(params.names)
        workers.submit(lambda: connection.send(_heard(number, handler, told)))
        return None


def written(name: str, value: str) -> str:
    """Puts a secret where only this user can read it, in the place of what was there; returns the path."""
    directory = f"{_memory()}/secrets"
    os.makedirs(directory, mode=0o700, exist_ok=True)  # noqa: PTH103 - pathlib is 5 ms of every cold start
    path = f"{directory}/{name}"
    fresh = f"{path}.{os.urandom(4).hex()}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(value)
    os.replace(fresh, path)  # noqa: PTH105 - as above
    return path


def _memory() -> str:
    """The directory for temporary files: in a sandbox, the only writable one, and in memory."""
    return os.environ.get("TMPDIR") or "/tmp"  # noqa: S108, TID251


def _heard(number: wire.Id, handler: Callable[[Any], object], told: Any) -> bytes:
    try:
        handler(told)
    except BaseException as error:  # noqa: BLE001 - an author's sys.exit() must not end a worker
        reason = sentence(error)
        return wire.refusal(number, INVALID_PARAMS, reason, {"code": ErrorCode.INVALID_PARAMETERS})
    return wire.answer(number, {})
