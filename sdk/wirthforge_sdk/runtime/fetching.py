"""Gets secrets for a program that knows no host: asked for before it starts, and left for it in files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from wirthforge_sdk.runtime import wire
from wirthforge_sdk.runtime.settings import written
from wirthforge_sdk.runtime.wire import Connection

ASK = "host/secrets.get"


class _Found(Struct):
    value: str | None = None


class _Answer(Struct):
    id: wire.Id | None = None
    method: str = ""
    result: Raw = Raw(b"{}")


class Fetched(NamedTuple):
    """What was got over the first connection on which all was answered."""

    connection: Connection
    secrets: dict[str, str]
    """Those that are set and granted, by name."""
    said: Iterator[list[bytes]]
    """All else that the host says on the connection."""


def fetched(connections: Iterator[Connection], names: Sequence[str]) -> Fetched | None:
    """Asks for secrets, of the next host too when one goes meanwhile; None when the instance is over.

    The host bounds how long a start may take, and with it this wait.
    """
    asked = (_asked(connection, names) for connection in connections)
    return next(filter(None, asked), None)


def _asked(connection: Connection, names: Sequence[str]) -> Fetched | None:
    batches = connection.batches()
    open_names = {f"secret-{name}": name for name in names}
    for number, name in open_names.items():
        connection.send(wire.request(ASK, {"name": name}, number))
    found: dict[str, str] = {}
    others: list[bytes] = []
    while open_names:
        lines = next(batches, None)
        if lines is None:
            return None
        for line in lines:
            answer = _read(line)
            name = "" if answer.method else open_names.pop(str(answer.id), "")
            if not name:
                others.append(line)
            elif (value := msgspec.json.decode(answer.result, type=_Found).value) is not None:
                found[name] = value
    return Fetched(connection, found, chain([others] if others else [], batches))


def left_in_files(secrets: dict[str, str]) -> dict[str, str]:
    """Writes each to a file of its own; returns the environment that says where: ``API_KEY_FILE`` for ``api-key``."""
    return {f"{name.upper().replace('-', '_')}_FILE": written(name, value) for name, value in secrets.items()}


def _read(line: bytes) -> _Answer:
    try:
        return msgspec.json.decode(line, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Answer(method="unreadable")
