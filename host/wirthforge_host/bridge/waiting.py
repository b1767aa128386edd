"""The host's end of a bridge that is nobody's yet: a sandbox that was started before it was decided for which plugin.

Who connected is known as for every instance, by the socket's path and the user id that the kernel names. What it says
is not read: before it is somebody's, there is nobody whose message that could be.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import structlog

from wirthforge_host.bridge.sockets import accepted, listening_at, remove, uid_of
from wirthforge_host.errors import PluginUnavailableError
from wirthforge_sdk.contracts.bridge import BEGIN, SOCKET_PATH

log = structlog.get_logger()


class Waiting:
    """The socket of one such sandbox, and the connection on it."""

    def __init__(self, path: Path, uid: int, listening: socket.socket) -> None:
        self._path = path
        self._uid = uid
        self._listening: socket.socket | None = listening
        self._stream: socket.socket | None = None

    @staticmethod
    async def at(directory: Path, uid: int) -> Waiting:
        """Makes the socket in ``directory``, which only processes of the machine's user ``uid`` may connect to.

        Raises:
            InvalidInputError: The path is too long for a socket.
            UnavailableError: The directory or the socket cannot be made.
        """
        path = directory / Path(SOCKET_PATH).name
        return Waiting(path, uid, await listening_at(path, uid))

    async def connected(self, *, timeout_s: float) -> None:
        """Waits for the one connection; afterwards nobody else can connect.

        Raises:
            PluginUnavailableError: Nobody connected in time.
        """
        if self._listening is None:
            raise RuntimeError("it does not listen any more")
        try:
            async with asyncio.timeout(timeout_s):
                while (uid := uid_of(stream := await accepted(self._listening))) != self._uid:
                    stream.close()
                    log.warning("blank.another_user_connected", uid=uid)
        except TimeoutError:
            raise PluginUnavailableError(f"it did not connect within {timeout_s:g} s") from None
        finally:
            self._stop_listening()
        self._stream = stream

    @property
    def is_silent(self) -> bool:
        """Whether it is still there and has said nothing, as it should."""
        if self._stream is None:
            return False
        try:
            self._stream.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def begin(self, word: bytes = BEGIN) -> socket.socket:
        """Tells it to begin, or what else to do, and gives the connection away.

        Raises:
            PluginUnavailableError: It is gone.
        """
        stream, self._stream = self._stream, None
        if stream is None:
            raise RuntimeError("nobody is connected")
        try:
            # Nothing was sent before: there is room for a line.
            stream.sendall(word)
        except OSError as error:
            stream.close()
            raise PluginUnavailableError("it ended before it was told to begin") from error
        return stream

    async def close(self) -> None:
        """Ends the connection, unless it was given away, and removes the socket and its directory."""
        self._stop_listening()
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        await asyncio.to_thread(remove, self._path)

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None
