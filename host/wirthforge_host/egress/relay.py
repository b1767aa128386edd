"""The host's end of egress: a socket for each instance, one granted connection to the outside through each of its.

Whoever connects says ``CONNECT host:port HTTP/1.1``. The grant is asked for, the name looked up once, every address it
leads to judged, and a stream made to just one of those; from then on bytes are carried. Each connection is written
down when it opens and when it ends, and each refusal with its reason and the permission it needs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from wirthforge_host.audit.service import Audit
from wirthforge_host.bridge import Peer
from wirthforge_host.bridge.sockets import accepted, listening_at, remove, uid_of
from wirthforge_host.egress.account import Account
from wirthforge_host.egress.addresses import Address, Found, first_objection
from wirthforge_host.egress.destinations import (
    END_OF_HEAD,
    Destination,
    refusal,
    requested,
)
from wirthforge_host.egress.network import Network
from wirthforge_host.egress.tunnel import Ending, Stretch, Tally, carry
from wirthforge_host.metrics import Metrics
from wirthforge_host.rates import TokenBucket
from wirthforge_host.signals import Signals
from wirthforge_sdk.contracts.bridge import EGRESS_PATH, MAX_EGRESS_HEAD_BYTES
from wirthforge_sdk.contracts.permissions import PermissionSet
from wirthforge_sdk.contracts.policy import SecurityPolicy
from wirthforge_sdk.errors import (
    InvalidInputError,
    LimitExceededError,
    PermissionDeniedError,
    UnavailableError,
    WirthForgeError,
)

HEAD_S = 5.0
"""For saying where to."""
SPARE = 16
"""Connections beyond those that may be open, so that one too many is told so instead of waiting."""
BACKLOG = 256
LOOKUPS = 4
"""Of one instance at a time, so that names nobody answers for keep no other plugin from its own."""
PAUSE_S = 1.0
"""After the machine could not accept a connection, mostly for want of descriptors."""

log = structlog.get_logger()


class Egress:
    """All relays of this host."""

    def __init__(
        self, *, audit: Audit, signals: Signals, metrics: Metrics, policy: SecurityPolicy, network: Network
    ) -> None:
        self.audit = audit
        self.signals = signals
        self.metrics = metrics
        self.network = network
        self.bounds = policy.egress
        self.private = PermissionSet(frozenset(policy.allow.private_destinations))

    async def listen(self, peer: Peer, directory: Path) -> EgressEndpoint:
        """Makes the socket through which ``peer`` reaches what it is granted, at every moment anew.

        Args:
            peer: Whom to expect. Nobody but a process of its user id can connect.
            directory: Absolute; the one of its bridge.

        Raises:
            InvalidInputError: The path is too long for a socket.
            UnavailableError: The directory or the socket cannot be made.
        """
        path = directory / Path(EGRESS_PATH).name
        listening = await listening_at(path, peer.uid, backlog=BACKLOG)
        return EgressEndpoint(self, peer, path, listening)


@dataclass(slots=True, eq=False)
class _Opened:
    """One connection that was granted, while it is made and while it is there."""

    permission: str
    task: asyncio.Task[None]
    exact: bool
    """It rests on a grant in just its words."""
    revoked: bool = False

    def cut(self) -> None:
        self.revoked = True
        self.task.cancel()


class EgressEndpoint:
    """The relay of one instance."""

    def __init__(self, egress: Egress, peer: Peer, path: Path, listening: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        now, bounds = self._loop.time(), egress.bounds
        self._egress = egress
        self._peer = peer
        self._path = path
        self._listening = listening
        self._account = Account(egress.audit, egress.signals, egress.metrics, peer)
        self._room = asyncio.Semaphore(bounds.connections + SPARE)
        self._lookups = asyncio.Semaphore(LOOKUPS)
        self._begun = TokenBucket(bounds.connections_per_min / 60, bounds.connections_per_min, now)
        # A refusal costs this machine something, too: faster than this, nobody is even listened to.
        self._taken = TokenBucket(bounds.connections_per_min / 30, bounds.connections_per_min, now)
        self._bytes = TokenBucket(bounds.bytes_per_s, bounds.bytes_per_s, now)
        self._opened: set[_Opened] = set()
        self._visits: set[asyncio.Task[None]] = set()
        peer.rights.watch(self._cut_revoked)
        self._accepting = asyncio.create_task(self._accept(), name=f"egress {peer.instance}")

    @property
    def is_quiet(self) -> bool:
        """Whether no connection is open."""
        return not self._visits

    async def close(self) -> None:
        """Ends every connection, and removes the socket. Does not wait for room in the audit log."""
        self._peer.rights.unwatch(self._cut_revoked)
        ending = {self._accepting, *self._visits}
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        self._listening.close()
        self._account.close()
        await asyncio.to_thread(remove, self._path)

    async def _accept(self) -> None:
        while True:
            await self._room.acquire()
            try:
                near = await accepted(self._listening)
            except OSError as error:
                log.warning("egress.cannot_accept", instance=self._peer.instance, error=error.strerror)
                self._room.release()
                await asyncio.sleep(PAUSE_S)
                continue
            visit = asyncio.create_task(self._serve(near), name=f"egress {self._peer.instance}")
            self._visits.add(visit)
            # Not in the task itself: one that is cancelled before its first step runs none of its code.
            visit.add_done_callback(partial(self._left, near))
            await asyncio.sleep(self._taken.owe(1, self._loop.time()))

    def _left(self, near: socket.socket, visit: asyncio.Task[None]) -> None:
        near.close()
        self._visits.discard(visit)
        self._room.release()

    async def _serve(self, near: socket.socket) -> None:
        destination = None
        try:
            self._check_identity(near)
            destination, early = await _asked(near)
            with self._admitted(destination) as opened:
                far, address = await self._reach(destination, listed=opened.exact)
                with far:
                    await self._carry(opened, Stretch(near, far, early), f"{destination}", f"{address}")
        except WirthForgeError as error:
            with suppress(OSError):  # who asked may be gone
                near.send(refusal(error, destination.permission if destination else None))
            near.close()
            await self._account.refused(error, destination)

    def _check_identity(self, near: socket.socket) -> None:
        near.settimeout(0)
        if (uid := uid_of(near)) != self._peer.uid:
            raise PermissionDeniedError("another user id connected", reason=f"user id {uid}")

    @contextmanager
    def _admitted(self, destination: Destination) -> Iterator[_Opened]:
        """Counts one more connection as open, if it is granted and within the bounds.

        Raises:
            PermissionDeniedError: It is not granted, or no longer so while it was made.
            LimitExceededError: There are too many.
        """
        need = destination.permission
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (a coroutine runs in one)
        listed = self._egress.private.allows(need)
        opened = _Opened(need, task, exact=listed and need in self._peer.rights.permissions.granted)
        self._peer.rights.use(need)
        if not self._is_granted(opened):
            raise _not_granted(need)
        self._check_bounds()
        self._opened.add(opened)
        try:
            yield opened
        except asyncio.CancelledError:
            if opened.revoked:
                raise _not_granted(need) from None
            raise
        finally:
            self._opened.discard(opened)

    def _check_bounds(self) -> None:
        bounds = self._egress.bounds
        if len(self._opened) >= bounds.connections:
            raise LimitExceededError(
                f"{bounds.connections} connections are open: close some (policy egress.connections)",
                reason="too many connections",
            )
        if not self._begun.take(1, self._loop.time()):
            raise LimitExceededError(
                f"over {bounds.connections_per_min} connections a minute: keep some open "
                "(policy egress.connections_per_min)",
                reason="too many connections a minute",
            )

    def _is_granted(self, opened: _Opened) -> bool:
        rights = self._peer.rights
        exact = opened.permission in rights.permissions.granted
        return rights.allows(opened.permission) and (exact or not opened.exact)

    def _cut_revoked(self) -> None:
        for opened in self._opened:
            if not self._is_granted(opened):
                opened.cut()

    async def _reach(self, destination: Destination, *, listed: bool) -> tuple[socket.socket, Address]:
        """A stream to the destination, and the address that it is to.

        Raises:
            PermissionDeniedError: It leads to an address nobody is connected to.
            UnavailableError: It leads nowhere, or nobody is there.
        """
        deadline = self._loop.time() + self._egress.bounds.connect_s
        try:
            async with asyncio.timeout_at(deadline):
                addresses = await self._addresses(destination)
        except TimeoutError:
            raise UnavailableError(
                f"{destination}: the name was not found in time", reason="unresolved"
            ) from None
        network = self._egress.network
        objected = first_objection(
            [Found(address, network.is_own(address)) for address in addresses],
            listed=listed,
            by_number=destination.address is not None,
        )
        if objected is not None:
            address, why = objected
            raise PermissionDeniedError(
                f"{destination} leads to an address that is {why.value}: an operator can open it with "
                "allow.private_destinations and a grant of just this permission",
                reason=f"address: {why.value}",
                address=str(address),
            )
        return await self._first_that_takes(addresses, destination.port, deadline)

    async def _addresses(self, destination: Destination) -> list[Address]:
        if destination.address is not None:
            return [destination.address]
        try:
            return await self._egress.network.resolve(destination.host, self._lookups)
        except UnavailableError as error:
            raise UnavailableError(error.message, reason="unresolved") from error

    async def _first_that_takes(
        self, addresses: list[Address], port: int, deadline: float
    ) -> tuple[socket.socket, Address]:
        """Tries the judged addresses in turn and no other; each may take its share of the time that is left."""
        why = "there is no address"
        for number, address in enumerate(addresses):
            share_s = (deadline - self._loop.time()) / (len(addresses) - number)
            try:
                async with asyncio.timeout(share_s):
                    return await self._egress.network.connect(address, port), address
            except TimeoutError:
                why = f"{address} port {port} does not answer"
            except UnavailableError as error:
                why = error.message
        raise UnavailableError(why, reason="unreachable")

    async def _carry(self, opened: _Opened, stretch: Stretch, destination: str, address: str) -> None:
        tally, began = Tally(), self._loop.time()
        ending = Ending.STOPPED
        await self._account.opened(destination, address, opened.permission)
        try:
            ending = await carry(stretch, tally, self._egress.bounds, self._bytes)
        except asyncio.CancelledError:
            if not opened.revoked:
                raise
            ending = Ending.REVOKED
        finally:
            self._account.ended(destination, tally, ending, self._loop.time() - began)


async def _asked(near: socket.socket) -> tuple[Destination, bytes]:
    """The destination that is asked for, and what was sent after that.

    Raises:
        InvalidInputError: It is none, or did not come in time.
    """
    data = b""
    try:
        async with asyncio.timeout(HEAD_S):
            while END_OF_HEAD not in data:
                left = MAX_EGRESS_HEAD_BYTES - len(data)
                chunk = await asyncio.get_running_loop().sock_recv(near, left) if left else b""
                if not chunk:
                    raise InvalidInputError(
                        f"no head of at most {MAX_EGRESS_HEAD_BYTES} bytes came", reason="malformed"
                    )
                data += chunk
    except (TimeoutError, ConnectionError):
        raise InvalidInputError(f"no head came within {HEAD_S:g} s", reason="malformed") from None
    head, _, early = data.partition(END_OF_HEAD)
    return requested(head + b"\r\n"), early


def _not_granted(permission: str) -> PermissionDeniedError:
    return PermissionDeniedError(f"the plugin lacks the permission {permission}", reason="not granted")
