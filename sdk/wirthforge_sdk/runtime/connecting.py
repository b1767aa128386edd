"""The way to the host, again and again: a host that was killed, or is replaced, finds its plugins where they were."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

from wirthforge_sdk.contracts.bridge import RECONNECT_S
from wirthforge_sdk.runtime.wire import Connection

FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.5
"""Between two tries: what a host that is back may wait for its plugins."""


class NoHostError(Exception):
    """Nobody listens on the socket, and that was waited for long enough."""


def connections(path: str, *, first_s: float = 0.0, patience_s: float = RECONNECT_S) -> Iterator[Connection]:
    """One connection after another, each when the one before is over, until the host ends the instance.

    Once there was one, a socket that is gone says that the instance is over; one that
    refuses, that its host died and left it for the next (unix(7), ECONNREFUSED).

    Args:
        path: Of the socket.
        first_s: How long the first may take; by default it must be there at once.
        patience_s: How long the next host may take.

    Raises:
        NoHostError: None came.
    """
    stream = _connected(path, first_s)
    if stream is None:
        raise NoHostError
    while stream is not None:
        with stream:
            yield Connection(stream)
        stream = _connected(path, patience_s)


def _connected(path: str, patience_s: float) -> socket.socket | None:
    """A stream to who listens; None when there is no socket any more."""
    deadline = time.monotonic() + patience_s
    pause_s = FIRST_PAUSE_S
    while True:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Not blocking: else a queue that is full, as a child of the plugin's could keep it, would hold us for ever.
            stream.settimeout(0)
            stream.connect(path)
            stream.settimeout(None)
        except OSError as error:
            stream.close()
            if isinstance(error, FileNotFoundError):
                return None
            # Looked at after the try: a sandbox that was frozen meanwhile has one chance more.
            if time.monotonic() >= deadline:
                raise NoHostError from error
        else:
            return stream
        time.sleep(pause_s)
        pause_s = min(LONGEST_PAUSE_S, pause_s * 1.5)
