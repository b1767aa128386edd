"""The instance's end of a bridge, under a test's control: it sends any bytes, and reads lines."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.fakes.clock import Clock
from tests.fakes.other_plugins import OtherPlugins
from wirthforge_host.audit.service import Audit
from wirthforge_host.bridge import Bridge, Endpoint, Peer, Services, Session
from wirthforge_host.bridge.exchange import Exchange
from wirthforge_host.bus import Bus
from wirthforge_host.configuration import Configurations, Secrets
from wirthforge_host.events import Events
from wirthforge_host.keyring import Keyring
from wirthforge_host.logs import Logs
from wirthforge_host.permissions.requests import Requests
from wirthforge_host.permissions.rights import Rights
from wirthforge_host.storage.service import Storage
from wirthforge_sdk.contracts.audit_api import AuditOut
from wirthforge_sdk.contracts.bridge import MODERN
from wirthforge_sdk.contracts.permissions import PermissionSet
from wirthforge_sdk.serving.database import Database

WAIT_S = 5.0
"""Bounds every wait of a test; nothing takes this long when it works."""
PLUGIN = "acme/notes"
INSTANCE = "i1"
QUOTA = 10_000


class PluginPeer:
    """A connected peer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @staticmethod
    async def connect(path: Path) -> PluginPeer:
        """Connects to an endpoint's socket."""
        return PluginPeer(*await asyncio.open_unix_connection(path, limit=64 * 1024 * 1024))

    def send(self, *messages: dict[str, Any] | bytes) -> None:
        """Sends lines: JSON objects, or bytes as they are with a newline."""
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message, ensure_ascii=False).encode()
            self.writer.write(line + b"\n")

    async def send_all(self, data: bytes) -> bool:
        """Sends bytes and returns when the host has read most of them, or that it hung up."""
        if self.writer.transport.is_closing():
            return False
        self.writer.write(data)
        try:
            async with asyncio.timeout(WAIT_S):
                await self.writer.drain()
        except ConnectionError:
            return False
        return True

    async def receive(self) -> dict[str, Any] | None:
        """The next line; None when the host has hung up."""
        async with asyncio.timeout(WAIT_S):
            try:
                line = await self._reader.readline()
            except ConnectionError:
                return None
        return json.loads(line) if line else None

    async def received(self, method: str) -> dict[str, Any]:
        """The next line, which must be a request or notification of ``method``."""
        message = await self.receive()
        assert message is not None, "the host hung up"
        assert message.get("method") == method, message
        return message

    async def hung_up(self) -> bool:
        """Reads until the host hangs up."""
        while await self.receive() is not None:
            continue
        return True

    def answer(self, request: dict[str, Any], result: Any) -> None:
        """Answers a request of the host."""
        self.send({"jsonrpc": "2.0", "id": request["id"], "result": result})

    def refuse(self, request: dict[str, Any], number: int, message: str = "no", **data: Any) -> None:
        """Refuses a request of the host."""
        error = {"code": number, "message": message, "data": data}
        self.send({"jsonrpc": "2.0", "id": request["id"], "error": error})

    def ask(self, method: str, number: Any = 1, **params: Any) -> None:
        """Sends a host call."""
        self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})

    async def asked(self, method: str, number: Any = 1, **params: Any) -> dict[str, Any]:
        """Sends a host call and returns its answer."""
        self.ask(method, number, **params)
        answer = await self.receive()
        assert answer is not None, "the host hung up"
        assert answer["id"] == number, answer
        return answer

    async def code(self, method: str, number: Any = 1, **params: Any) -> str:
        """The ``data.code`` with which the host refuses a call."""
        return str((await self.asked(method, number, **params))["error"]["data"]["code"])

    def notify(self, method: str, **params: Any) -> None:
        """Sends a notification."""
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    async def echo(self, count: int = 1) -> None:
        """Answers ``count`` calls with their own arguments."""
        for _ in range(count):
            call = await self.received("tools/call")
            self.answer(call, {"content": [], "structuredContent": call["params"]["arguments"]})

    def close(self) -> None:
        """Hangs up."""
        self.writer.close()


@dataclass(slots=True, kw_only=True)
class Bridged:
    """A host's end and an instance's end, joined by a real socket."""

    bridge: Bridge
    endpoint: Endpoint
    session: Session
    peer: PluginPeer
    rights: Rights
    audit: Audit
    events: Events
    logs: Logs
    path: Path
    lost: asyncio.Event
    _decisions: list[None] = field(default_factory=list)

    def grant(self, *granted: str, denied: tuple[str, ...] = ()) -> None:
        """Replaces what the plugin may do."""
        self._decisions.append(None)
        permissions = PermissionSet(frozenset(granted), frozenset(denied))
        self.rights.replace(permissions, decided=len(self._decisions))

    async def open_modern(self) -> None:
        """Has the session opened in the modern revision."""
        opening = asyncio.create_task(self.session.open(timeout_s=WAIT_S))
        self.peer.answer(await self.peer.received("server/discover"), {"supportedVersions": [MODERN]})
        assert await opening == MODERN

    async def recorded(self, action: str = "host_call") -> list[AuditOut]:
        """What the audit log has of an action, oldest first."""
        await self.audit.flush()
        return list(reversed(await self.audit.page(action=action, limit=10_000)))


@pytest.fixture
def short_path() -> Any:
    """A directory whose path leaves room for a socket's name; pytest's own may be too long."""
    directory = Path(tempfile.mkdtemp(prefix="wf"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def services(database: Database, audit: Audit, events: Events, keyring: Keyring, clock: Clock) -> Services:
    """What host calls reach."""
    logs = Logs(now=clock, monotonic=clock.monotonic)
    storage = Storage(database, keyring, now=clock)
    exchange = Exchange()
    exchange.connect(OtherPlugins({"demo/other.double": lambda number: 2 * number}))
    return Services(
        audit=audit,
        bus=Bus(database, audit, events, now=clock),
        events=events,
        logs=logs,
        storage=storage,
        configurations=Configurations(database, audit, now=clock),
        secrets=Secrets(database, keyring, audit, now=clock),
        monotonic=clock.monotonic,
        exchange=exchange,
        requests=Requests(audit=audit, events=events, now=clock, monotonic=clock.monotonic),
    )


@pytest.fixture
def peer_of() -> Callable[..., Peer]:
    """The instance of :data:`PLUGIN`, expected under this process's user id."""

    def peer(**changes: Any) -> Peer:
        values = {
            "instance": INSTANCE,
            "plugin": PLUGIN,
            "digest": "sha256:1",
            "uid": os.getuid(),
            "rights": Rights(),
            "storage_bytes": QUOTA,
            "asks": frozenset({"ui.notify"}),
        }
        return Peer(**{**values, **changes})

    return peer


@pytest.fixture
async def bridged(
    services: Services, short_path: Path, peer_of: Callable[..., Peer]
) -> AsyncIterator[Bridged]:
    """Both ends, connected."""
    rights, lost = Rights(), asyncio.Event()
    bridge = Bridge(services)
    endpoint = await bridge.listen(peer_of(rights=rights), short_path / INSTANCE, on_lost=lost.set)
    path = short_path / INSTANCE / "bridge.sock"
    accepting = asyncio.create_task(endpoint.accept(timeout_s=WAIT_S))
    peer = await PluginPeer.connect(path)
    session = await accepting
    ends = Bridged(
        bridge=bridge,
        endpoint=endpoint,
        session=session,
        peer=peer,
        rights=rights,
        audit=services.audit,
        events=services.events,
        logs=services.logs,
        path=path,
        lost=lost,
    )
    yield ends
    ends.peer.close()
    await endpoint.close()
    await services.bus.close()


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """As a conftest's hook: bridge and relay work with both event loops, the standard one and the one servers use."""
    if not item.path.name.startswith(("test_bridge", "test_egress_relay")):
        return {"asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
