"""The plugin's own connection to its host, taken from under the runtime: what is written here is not checked first."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from attacks.battery import Outcome

MOST_DESCRIPTORS = 256


def connection() -> socket.socket:
    """The socket that the runtime speaks on.

    Raises:
        ConnectionError: There is none.
    """
    for descriptor in range(3, MOST_DESCRIPTORS):
        try:
            found = socket.socket(fileno=os.dup(descriptor))
            # Only what is connected to a name leads out; the name is the host's own, and not the path in here.
            if found.family is socket.AF_UNIX and found.getpeername():
                return found
            found.close()
        except OSError:
            continue
    raise ConnectionError("it has no connection to the host")


def send(*lines: bytes | dict[str, Any]) -> None:
    """Sends lines as they are."""
    with connection() as stream:
        for line in lines:
            stream.sendall(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")


def request(number: object, method: str, **params: Any) -> dict[str, Any]:
    """A request of JSON-RPC."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def sent(*lines: bytes | dict[str, Any]) -> Outcome:
    """Sends, and leaves it to the host to say what came of it."""
    send(*lines)
    return Outcome(reached=False, detail=f"{len(lines)} sent", stopped_by="bridge")
