"""A network for tests, and a relay between it and a plugin's end under a test's control."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from wirthforge_host.audit.service import Audit
from wirthforge_host.bridge import Peer
from wirthforge_host.egress import Egress, EgressEndpoint
from wirthforge_host.egress.addresses import Address
from wirthforge_host.metrics import Metrics
from wirthforge_host.permissions import Rights
from wirthforge_host.signals import Signal, Signals
from wirthforge_sdk.contracts.audit_api import AuditOut
from wirthforge_sdk.contracts.permissions import PermissionSet
from wirthforge_sdk.contracts.policy import Allow, SecurityPolicy
from wirthforge_sdk.contracts.policy import Egress as Bounds
from wirthforge_sdk.errors import UnavailableError

WAIT_S = 5.0
PUBLIC = "93.184.216.34"
HOST = "api.example"
PORT = 443
NEED = f"net.connect:{HOST}:{PORT}"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class MemoryNetwork:
    """Names with the answers a test gives them, and servers at addresses of the test's choice."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Sequence[str]]] = {}
        """What each lookup of a name gives, in turn; the last one for ever."""
        self.own: set[str] = set()
        self.servers: dict[tuple[str, int], asyncio.Queue[Streams]] = {}
        """Where somebody takes connections."""
        self.silent: set[str] = set()
        """Addresses that never answer, and names nobody answers for."""
        self.looked_up: list[str] = []
        self.tried: list[tuple[str, int]] = []
        self.waits = asyncio.Event()
        """Set once somebody waits for a silent address."""
        self.writers: list[asyncio.StreamWriter] = []

    def serve(self, address: str = PUBLIC, port: int = PORT, *, name: str | None = HOST) -> None:
        """Has a server there, and the name lead to it."""
        self.servers[address, port] = asyncio.Queue()
        if name is not None:
            self.answers[name] = [[address]]

    async def taken(self, address: str = PUBLIC, port: int = PORT) -> Streams:
        """The next connection there."""
        async with asyncio.timeout(WAIT_S):
            return await self.servers[address, port].get()

    async def resolve(self, host: str, room: asyncio.Semaphore) -> list[Address]:
        async with room:
            self.looked_up.append(host)
            if host in self.silent:
                await asyncio.Event().wait()
            answers = self.answers.get(host)
            if not answers:
                raise UnavailableError(f"the name {host} leads to no address")
            texts = answers.pop(0) if len(answers) > 1 else answers[0]
            return [ip_address(text) for text in texts]

    def is_own(self, address: Address) -> bool:
        return str(address) in self.own

    async def connect(self, address: Address, port: int) -> socket.socket:
        self.tried.append((str(address), port))
        if str(address) in self.silent:
            self.waits.set()
            await asyncio.Event().wait()
        server = self.servers.get((str(address), port))
        if server is None:
            raise UnavailableError(f"{address} port {port}: Connection refused")
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        reader, writer = await asyncio.open_connection(sock=theirs)
        self.writers.append(writer)
        await server.put((reader, writer))
        return ours


@dataclass(slots=True, kw_only=True)
class Relayed:
    """A relay at work, the plugin that may use it, and the network behind it."""

    endpoint: EgressEndpoint
    network: MemoryNetwork
    audit: Audit
    metrics: Metrics
    rights: Rights
    path: Path
    signals: list[Signal] = field(default_factory=list)
    _decisions: int = 0

    def grant(self, *granted: str, denied: Sequence[str] = ()) -> None:
        """Replaces what the plugin may do."""
        self._decisions += 1
        self.rights.replace(PermissionSet(frozenset(granted), frozenset(denied)), decided=self._decisions)

    async def connect(self) -> Streams:
        """A connection to the relay that has said nothing."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        self.network.writers.append(writer)
        return reader, writer

    async def ask(self, destination: str = f"{HOST}:{PORT}", *, early: bytes = b"") -> Connection:
        """Asks for a destination and waits for the answer."""
        reader, writer = await self.connect()
        writer.write(f"CONNECT {destination} HTTP/1.1\r\n\r\n".encode() + early)
        return await Connection.answered(reader, writer)

    async def opened(
        self, destination: str = f"{HOST}:{PORT}", address: str = PUBLIC
    ) -> tuple[Connection, Streams]:
        """A connection that must be made, and the server's end of it."""
        connection = await self.ask(destination)
        assert connection.status == 200, connection.refusal
        return connection, await self.network.taken(address, int(destination.rpartition(":")[2]))

    async def recorded(self, action: str = "egress.open", outcome: str | None = None) -> list[AuditOut]:
        """What the audit log has, oldest first."""
        await self.audit.flush()
        return (await self.audit.page(action=action, outcome=outcome, limit=10_000))[::-1]

    async def ended(self) -> AuditOut:
        """The record of the first connection that is over."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for record in await self.recorded("egress.close"):
                    return record


@dataclass(slots=True)
class Connection:
    """What a plugin's client has after it asked."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int
    refusal: dict[str, Any]
    """The body of an answer that is not 200."""

    @staticmethod
    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Connection:
        async with asyncio.timeout(WAIT_S):
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split()[1])
            body = {} if status == 200 else json.loads(await reader.read())
        return Connection(reader, writer, status, body)

    def close(self) -> None:
        self.writer.close()


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """All that still comes; b"" also of a connection that was reset."""
    async with asyncio.timeout(WAIT_S):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@asynccontextmanager
async def relay_of(
    audit: Audit, directory: Path, *, private: Sequence[str] = (), uid: int | None = None, **bounds: Any
) -> AsyncIterator[Relayed]:
    """A relay in ``directory``, which is closed afterwards; nothing of it may be left then."""
    network, metrics, signals, rights = MemoryNetwork(), Metrics(), Signals(), Rights()
    policy = SecurityPolicy(egress=Bounds(**bounds), allow=Allow(private_destinations=list(private)))
    egress = Egress(audit=audit, signals=signals, metrics=metrics, policy=policy, network=network)
    before = asyncio.all_tasks()
    peer = Peer(
        instance="i1",
        plugin="acme/courier",
        digest="sha256:1",
        uid=os.getuid() if uid is None else uid,
        rights=rights,
        storage_bytes=0,
    )
    endpoint = await egress.listen(peer, directory / "i1")
    relayed = Relayed(
        endpoint=endpoint,
        network=network,
        audit=audit,
        metrics=metrics,
        rights=rights,
        path=directory / "i1" / "egress.sock",
    )
    signals.listen(relayed.signals.append)
    try:
        yield relayed
    finally:
        async with asyncio.timeout(1):
            await endpoint.close()
        for writer in network.writers:
            writer.close()
    assert not asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not (directory / "i1").exists()
