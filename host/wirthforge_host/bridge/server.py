"""The host's sockets: one for each instance, which one peer may connect to, once at a time.

The directory is bound read-only into the instance's container. Who connects is known by two things that the
kernel says and no process can choose: the socket's path, and the user id on the other end.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.bridge.connection import Connection
from wirthforge_host.bridge.deadlines import Deadlines
from wirthforge_host.bridge.dispatcher import Dispatcher
from wirthforge_host.bridge.host_calls import Peer, Services
from wirthforge_host.bridge.recording import Recording
from wirthforge_host.bridge.session import Session
from wirthforge_host.bridge.sockets import accepted, listening_at, remove, uid_of
from wirthforge_host.bus import Subscriber
from wirthforge_host.errors import PluginUnavailableError
from wirthforge_host.signals import Noticed, Signal
from wirthforge_sdk.contracts.bridge import SOCKET_PATH


class Bridge:
    """All bridges of this host."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._deadlines = Deadlines()

    async def listen(self, peer: Peer, directory: Path, *, on_lost: Callable[[], None]) -> Endpoint:
        """Makes the socket that ``peer`` shall connect to; it is there when this returns.

        Args:
            peer: Whom to expect. Nobody but a process of its user id can connect.
            directory: Absolute; made when missing, for ``peer`` to pass and nobody to write. It holds nothing
                else.
            on_lost: Called when a connection that was accepted is over.

        Raises:
            InvalidInputError: The path is too long for a socket.
            UnavailableError: The directory or the socket cannot be made.
        """
        endpoint = Endpoint(
            peer, directory / Path(SOCKET_PATH).name, self._services, self._deadlines, on_lost
        )
        await endpoint.reopen()
        return endpoint

    def take(
        self, peer: Peer, directory: Path, stream: socket.socket, *, on_lost: Callable[[], None]
    ) -> Endpoint:
        """As :meth:`listen`, for a ``peer`` that is connected already: ``stream`` is its own, not blocking."""
        path = directory / Path(SOCKET_PATH).name
        endpoint = Endpoint(peer, path, self._services, self._deadlines, on_lost)
        endpoint.connected = stream
        return endpoint


class Endpoint:
    """The host's end of one instance's bridge."""

    def __init__(
        self,
        peer: Peer,
        path: Path,
        services: Services,
        deadlines: Deadlines,
        on_lost: Callable[[], None],
    ) -> None:
        self._peer = peer
        self._path = path
        self._services = services
        self._deadlines = deadlines
        self._on_lost = on_lost
        self._listening: socket.socket | None = None
        self.connected: socket.socket | None = None
        """A connection that was made before it was known whose; the next to be accepted."""
        self._connection: Connection | None = None
        self._subscribers: list[Subscriber] = []
        """Of all connections; those that are over are so, or rest."""
        self._recording = Recording(services.audit, peer.plugin, peer.instance)

    async def reopen(self) -> None:
        """Listens again, for an instance whose process restarted and connects anew.

        What the connection before asked for is over when this returns.

        Raises:
            RuntimeError: Its connection is still open.
            UnavailableError: The socket cannot be made.
        """
        if self._connection is not None:
            if self._connection.calls.is_open:
                raise RuntimeError("an instance has one connection at a time")
            await self._connection.close()
        self._stop_listening()
        self._listening = await listening_at(self._path, self._peer.uid)

    @property
    def listens(self) -> bool:
        """Whether the instance can connect."""
        return self._listening is not None

    @property
    def was_cut(self) -> bool:
        """Whether the host ended the connection, for what the plugin did."""
        return self._connection is not None and self._connection.was_cut

    @property
    def crash(self) -> int | None:
        """How the process before ended, as the plugin says: an exit code, or -n for signal n; None: it says nothing."""
        return None if self._connection is None else self._connection.crash

    async def accept(self, *, timeout_s: float) -> Session:
        """Waits for the instance to connect. Once it has, nobody else can. Cancel it before :meth:`close`.

        Raises:
            PluginUnavailableError: It did not connect in time.
        """
        stream, self.connected = self.connected, None
        if stream is None:
            stream = await self._arrived(timeout_s)
        dispatcher = Dispatcher(self._peer, self._services, self._recording)
        subscriber = dispatcher.subscriber

        def lost() -> None:
            subscriber.rest()
            self._on_lost()

        connection = Connection(dispatcher, self._deadlines, report=self._report, on_lost=lost)
        if self._connection is not None:
            connection.follow(self._connection)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, stream)
        except BaseException:
            stream.close()
            subscriber.close()
            raise
        self._connection = connection
        self._subscribers.append(subscriber)
        hide = partial(self._services.secrets.redacted_json, self._peer.plugin)
        return Session(connection, self._peer.plugin, subscriber, hide)

    async def withdraw(self) -> None:
        """Removes the socket: an instance that looks for its host again learns that it is over, and ends itself."""
        self._stop_listening()
        await asyncio.to_thread(self._path.unlink, missing_ok=True)

    async def leave(self) -> None:
        """Ends the connection and lets the socket lie: an instance waits there for the host that comes next."""
        self._stop_listening()
        if self.connected is not None:
            self.connected.close()
        if self._connection is not None:
            await self._connection.close()
        for subscriber in self._subscribers:
            subscriber.close()
        self._recording.close()

    async def close(self) -> None:
        """Ends the connection and removes the socket and its directory. Does not wait for room in the audit log."""
        await self.leave()
        await asyncio.to_thread(remove, self._path)

    async def _arrived(self, timeout_s: float) -> socket.socket:
        if self._listening is None:
            raise RuntimeError("the endpoint does not listen")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._expected(self._listening)
        except TimeoutError:
            raise PluginUnavailableError(f"the plugin did not connect within {timeout_s:g} s") from None
        finally:
            self._stop_listening()

    async def _expected(self, listening: socket.socket) -> socket.socket:
        while True:
            stream = await accepted(listening)
            uid = uid_of(stream)
            if uid == self._peer.uid:
                return stream
            stream.close()
            self._audit(Outcome.DENIED, {"reason": "another user id connected", "uid": uid})

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def _report(self, reason: str, *, ended: bool) -> None:
        self._audit(
            Outcome.DENIED if ended else Outcome.FAILED, {"reason": reason, "connection_ended": ended}
        )
        breach = Signal(
            noticed=Noticed.BRIDGE_BREACH,
            plugin=self._peer.plugin,
            instance=self._peer.instance,
            at_s=self._services.monotonic(),
            detail={"reason": reason},
        )
        self._services.signals.notice(breach)
        if ended:
            self._services.events.emit("bridge.ended", plugin=self._peer.plugin, reason=reason)

    def _audit(self, outcome: Outcome, detail: dict[str, object]) -> None:
        record = Record(
            actor=f"plugin:{self._peer.plugin}",
            action="bridge.breach",
            outcome=outcome,
            plugin=self._peer.plugin,
            detail={**detail, "instance": self._peer.instance},
        )
        self._recording.note(record)
