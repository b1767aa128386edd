"""Unix sockets that one user id may connect to, in a directory that an instance sees read-only."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path

from wirthforge_sdk.errors import InvalidInputError, UnavailableError

MAX_PATH_BYTES = 107
"""Of a Unix socket's path on Linux (``sun_path`` is 108 with its end)."""

MADE = ".new"
"""Ends the name of a socket before it listens; no longer than the end it gets."""

_CREDENTIALS = struct.Struct("iII")
"""``struct ucred``: process, user and group id (socket(7), SO_PEERCRED)."""


async def listening_at(path: Path, uid: int, *, backlog: int = 1) -> socket.socket:
    """A socket that only processes of ``uid`` may connect to; its directory is made when missing.

    Raises:
        InvalidInputError: The path is too long for a socket.
        UnavailableError: The directory or the socket cannot be made.
    """
    making = asyncio.ensure_future(asyncio.to_thread(_listening_at, path, uid, backlog))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        # A thread cannot be called back: what it makes is closed when it is there.
        making.add_done_callback(_close_made)
        raise


async def accepted(listening: socket.socket) -> socket.socket:
    """The next connection, not blocking.

    Unlike ``loop.sock_accept``, whose caller loses a connection when he is cancelled in the very turn it arrives.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            stream, _ = listening.accept()
        except BlockingIOError:
            arrived = asyncio.Event()
            loop.add_reader(listening, arrived.set)
            try:
                await arrived.wait()
            finally:
                loop.remove_reader(listening)
        else:
            stream.settimeout(0)
            return stream


def _close_made(making: asyncio.Future[socket.socket]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().close()


def _listening_at(path: Path, uid: int, backlog: int) -> socket.socket:
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise InvalidInputError(
            f"the socket path {path} is over {MAX_PATH_BYTES} bytes: choose a shorter data_dir",
            field="data_dir",
        )
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.settimeout(0)
        path.parent.mkdir(parents=True, exist_ok=True)
        # To pass through for the instance, to write for nobody else. A socket that does not listen yet
        # refuses everybody, so there is no moment at which another could connect.
        path.parent.chmod(0o711)
        made = path.with_suffix(MADE)
        made.unlink(missing_ok=True)
        listening.bind(str(made))
        os.chown(made, uid, uid)
        made.chmod(0o600)
        listening.listen(backlog)
        # In one step from a socket that refuses, as a host that died leaves it, to one that listens: an instance that
        # found none would end itself.
        made.rename(path)
    except OSError as error:
        listening.close()
        raise UnavailableError(f"cannot listen on {path}: {error.strerror}") from error
    return listening


def remove(path: Path) -> None:
    """Removes a socket, and its directory with the last one in it. Blocks.

    Raises:
        UnavailableError: Something else is in the way.
    """
    try:
        path.unlink(missing_ok=True)
        path.with_suffix(MADE).unlink(missing_ok=True)
        if not any(path.parent.glob("*.sock")):
            path.parent.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UnavailableError(f"cannot remove {path.parent}: {error.strerror}") from error


def uid_of(stream: socket.socket) -> int:
    """The user id of who connected, as the kernel tells it."""
    credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    return int(uid)
