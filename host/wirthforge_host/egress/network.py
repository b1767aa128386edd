"""What the relay needs of a network, and the machine's own."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from contextlib import suppress
from ipaddress import IPv4Address, ip_address
from typing import Protocol

from wirthforge_host.egress.addresses import Address
from wirthforge_sdk.errors import UnavailableError

MAX_ADDRESSES = 16
"""Of one name; further ones are not looked at, and nobody is connected to them."""
LOOKUPS = 64
"""At a time on this machine. Each has a thread, since the system's resolver only blocks."""
BUFFER_BYTES = 256 * 1024
"""That the kernel keeps for one connection and direction: memory of this machine, outside any plugin's limit."""


class Network(Protocol):
    """Names, addresses and connections."""

    async def resolve(self, host: str, room: asyncio.Semaphore) -> list[Address]:
        """The addresses of a name, best first, at most :data:`MAX_ADDRESSES`.

        Args:
            host: The name.
            room: Held until the lookup is over, also when nobody waits for it any more.

        Raises:
            UnavailableError: It has none, or nobody answers.
        """
        ...

    def is_own(self, address: Address) -> bool:
        """Whether an interface of this machine has the address."""
        ...

    async def connect(self, address: Address, port: int) -> socket.socket:
        """A stream to exactly this address, not blocking.

        Raises:
            UnavailableError: Nobody takes it.
        """
        ...


class MachineNetwork:
    """The network of the machine the host runs on."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(LOOKUPS)

    async def resolve(self, host: str, room: asyncio.Semaphore) -> list[Address]:
        """As the protocol says, by the system's resolver: files, caches and search rules are the operator's."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Address]] = loop.create_future()

        def settle(found: list[Address], error: UnavailableError | None) -> None:
            self._room.release()
            room.release()
            if not answer.done():
                answer.set_result(found) if error is None else answer.set_exception(error)

        def look_up() -> None:
            found: list[Address] = []
            error = None
            try:
                found = _addresses(host)
            except UnavailableError as raised:
                error = raised
            except Exception as raised:  # noqa: BLE001 - whatever it is, the room must be given back
                error = UnavailableError(f"the name {host} cannot be looked up: {raised}")
            # The loop may be over by now: nobody waits then.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, found, error)

        await room.acquire()
        try:
            await self._room.acquire()
        except BaseException:
            room.release()
            raise
        # Not a pool's: the interpreter would wait at its end for a resolver that gets no answer.
        try:
            threading.Thread(target=look_up, name="lookup", daemon=True).start()
        except RuntimeError as error:
            settle([], UnavailableError(f"the name {host} cannot be looked up now: {error}"))
        return await answer

    def is_own(self, address: Address) -> bool:
        """As the protocol says: only an own address can be bound. Sends nothing."""
        try:
            with socket.socket(_family(address), socket.SOCK_DGRAM) as probe:
                probe.bind((str(address), 0))
        except OSError as error:
            # Not there, or no such family on this machine: then nobody can be connected to it either.
            return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL)
        return True

    async def connect(self, address: Address, port: int) -> socket.socket:
        """As the protocol says."""
        try:
            stream = socket.socket(_family(address), socket.SOCK_STREAM)
        except OSError as error:
            raise UnavailableError(f"{address} port {port}: {error.strerror}") from error
        try:
            stream.settimeout(0)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                stream.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
            await asyncio.get_running_loop().sock_connect(stream, (str(address), port))
        except OSError as error:
            stream.close()
            raise UnavailableError(f"{address} port {port}: {error.strerror}") from error
        except BaseException:
            stream.close()
            raise
        return stream


def _addresses(host: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        raise UnavailableError(f"the name {host} leads to no address: {error}") from error
    distinct = dict.fromkeys(ip_address(place[0]) for *_, place in found)
    return list(distinct)[:MAX_ADDRESSES]


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
