"""The host's real bridge, and the real runtime in a process of its own at the other end."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.fakes.other_plugins import OtherPlugins
from wirthforge_host.audit.service import Audit
from wirthforge_host.bridge import Bridge, Endpoint, Peer, Services, Session
from wirthforge_host.bridge.calls import Progress, ReplyError
from wirthforge_host.bridge.exchange import Exchange
from wirthforge_host.bridge.messages import Carrying
from wirthforge_host.bridge.stream import Item, Stream
from wirthforge_host.bus import Bus
from wirthforge_host.configuration import Configurations, Secrets
from wirthforge_host.database import metadata
from wirthforge_host.events import Events
from wirthforge_host.keyring import FileMasterKey, Keyring
from wirthforge_host.logs import Logs
from wirthforge_host.permissions.requests import Requests
from wirthforge_host.permissions.rights import Rights
from wirthforge_host.storage.service import Storage
from wirthforge_sdk.contracts.bodies import lifted
from wirthforge_sdk.contracts.bridge import MAX_VALUE_BYTES
from wirthforge_sdk.contracts.manifest import parse_manifest
from wirthforge_sdk.contracts.permissions import PermissionSet
from wirthforge_sdk.serving.clock import utc_now
from wirthforge_sdk.serving.database import Database
from wirthforge_sdk.testing import CallRefusedError, FunctionFailedError
from wirthforge_sdk.testing.streams import is_source

WAIT_S = 20.0
PLUGIN = "tests/probe"
ASKS = frozenset({"ui.notify", "storage.read"})
"""What its release names."""


class RuntimeHost:
    """One running plugin, and the host that serves it."""

    def __init__(self, services: Services, endpoint: Endpoint, session: Session, process: Any) -> None:
        self.services = services
        self.endpoint = endpoint
        self.session = session
        self.process = process

    async def publish(self, topic: str, data: Any = None) -> int:
        """Publishes an event as an application does; its id."""
        encoded = json.dumps(data).encode()
        return (await self.services.bus.publish("application:test", topic, encoded)).id

    async def call(self, function: str, /, **arguments: Any) -> Any:
        """The structured result of a function; a refusal is raised as the plugin answered it."""
        raw = lifted(arguments)
        meta = {**self.session._meta, "wf/timeout_ms": WAIT_S * 1000, "wf/body": {}}
        params: Any = {"name": function, "arguments": arguments, "_meta": meta}
        if raw is not None:
            params["arguments"] = raw.others
            meta |= {"wf/body": {"input": raw.name}, "wf/bytes": len(raw.body)}
            params = Carrying(params, raw.body)
        calls = self.session._connection.calls
        try:
            answer = await calls.request(
                "tools/call", params, timeout_s=WAIT_S, label="a call", cancellable=True
            )
        except ReplyError as error:
            raise CallRefusedError(error.failure.message, **error.failure.data) from None
        return {"result": bytes(answer.body)} if isinstance(answer, Carrying) else answer["structuredContent"]

    @asynccontextmanager
    async def stream(self, function: str, /, **arguments: Any) -> AsyncIterator[RuntimeStream]:
        """As ``PluginHarness.stream``."""
        sources = {key: value for key, value in arguments.items() if is_source(value)}
        for key in sources:
            del arguments[key]
        stream = self.session.stream(
            function,
            arguments,
            timeout_s=WAIT_S,
            idle_s=WAIT_S,
            call_id="a call",
            input_name=next(iter(sources), None),
        )
        async with stream:
            feeding = [asyncio.create_task(_feed(stream, source)) for source in sources.values()]
            try:
                yield RuntimeStream(stream)
            finally:
                for task in feeding:
                    task.cancel()
                await asyncio.gather(*feeding, return_exceptions=True)


async def _feed(stream: Stream, source: Any) -> None:
    if isinstance(source, AsyncIterator):
        async for item in source:
            if not await stream.feed(item):
                return
    else:
        for item in source:
            if not await stream.feed(item):
                return
    await stream.finish()


class RuntimeStream:
    """A streamed call, with what tests ask of ``PluginStream``."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self.progress: list[dict[str, Any]] = []

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for happening in self._stream:
            if isinstance(happening, Progress):
                self.progress.append(asdict(happening))
            else:
                yield happening.value if isinstance(happening, Item) else happening
        answer = await self._answer()
        if answer["isError"]:
            raise FunctionFailedError(answer["content"][0]["text"])

    def result(self) -> Any:
        """The whole result; for another thread than the loop's."""
        return asyncio.run_coroutine_threadsafe(self._answer(), self._loop).result(WAIT_S)

    async def _answer(self) -> Any:
        try:
            return await self._stream.answer()
        except ReplyError as error:
            raise CallRefusedError(error.failure.message, **error.failure.data) from None


@asynccontextmanager
async def runtime_host(
    project: Path,
    granted: Iterable[str] = (),
    denied: Iterable[str] = (),
    plugins: Mapping[str, Callable[..., Any]] | None = None,
    approves: Iterable[str] = (),
    prepare: Callable[[Services], Awaitable[None]] | None = None,
) -> AsyncIterator[RuntimeHost]:
    """Runs the plugin in ``project`` behind a real bridge, until the block ends.

    ``plugins`` stand for functions of other plugins, by ``namespace/name.function``; ``approves`` are the permissions
    that an operator grants when they are asked for, and no other. ``prepare`` comes before the plugin starts.
    """
    directory = Path(tempfile.mkdtemp(prefix="wf"))
    database = Database(f"sqlite+aiosqlite:///{directory / 'host.sqlite3'}")
    rights = Rights()
    rights.replace(PermissionSet(frozenset(granted), frozenset(denied)), decided=1)
    try:
        async with database.transaction() as tx:
            await tx.run_sync(metadata.create_all)
        services = await _services(database, directory, plugins or {})
        if prepare is not None:
            await prepare(services)
        async with (
            _operator(services, rights, frozenset(approves)),
            _connected(services, rights, directory / "i", project) as host,
        ):
            yield host
    finally:
        await database.dispose()
        shutil.rmtree(directory)


@asynccontextmanager
async def _operator(services: Services, rights: Rights, approves: frozenset[str]) -> AsyncIterator[None]:
    """Answers what is asked for, as it comes."""

    async def answer() -> None:
        async with services.events.subscribe() as events:
            listening.set()
            decided = 1
            async for event in events:
                if event.type != "permission.requested":
                    continue
                if (need := event.data["permission"]) in approves:
                    decided += 1
                    current = rights.permissions
                    rights.replace(PermissionSet(current.granted | {need}, current.denied), decided=decided)
                else:
                    await services.requests.refuse(event.data["id"], actor="a test", reason="no")

    listening = asyncio.Event()
    task = asyncio.create_task(answer())
    await listening.wait()
    try:
        yield
    finally:
        task.cancel()


async def _services(
    database: Database, directory: Path, plugins: Mapping[str, Callable[..., Any]]
) -> Services:
    audit, events = Audit(database, now=utc_now), Events(now=utc_now)
    keyring = Keyring(database, FileMasterKey(directory / "keys"), audit)
    await keyring.load()
    exchange = Exchange()
    exchange.connect(OtherPlugins(plugins))
    return Services(
        exchange=exchange,
        audit=audit,
        bus=Bus(database, audit, events, now=utc_now),
        events=events,
        requests=Requests(audit=audit, events=events, now=utc_now, monotonic=time.monotonic),
        logs=Logs(now=utc_now, monotonic=time.monotonic),
        storage=Storage(database, keyring, now=utc_now),
        configurations=Configurations(database, audit, now=utc_now),
        secrets=Secrets(database, keyring, audit, now=utc_now),
        monotonic=time.monotonic,
    )


@asynccontextmanager
async def _connected(
    services: Services, rights: Rights, directory: Path, project: Path
) -> AsyncIterator[RuntimeHost]:
    manifest = parse_manifest((project / "plugin.toml").read_bytes())
    peer = Peer(
        instance="i",
        plugin=PLUGIN,
        digest="sha256:1",
        uid=os.getuid(),
        rights=rights,
        storage_bytes=4 * MAX_VALUE_BYTES,
        asks=ASKS,
        configuration=manifest.configuration,
        subscriptions=manifest.events.subscriptions,
    )
    endpoint = await Bridge(services).listen(peer, directory, on_lost=lambda: None)
    runtime = ["-m", "wirthforge_sdk.runtime", "--socket", str(directory / "bridge.sock")]
    process = await asyncio.create_subprocess_exec(sys.executable, *runtime, "--tree", str(project))
    try:
        session = await endpoint.accept(timeout_s=WAIT_S)
        await session.open(timeout_s=WAIT_S)
        await session.subscribe()
        yield RuntimeHost(services, endpoint, session, process)
    finally:
        await endpoint.close()
        await services.bus.close()
        async with asyncio.timeout(WAIT_S):
            await process.wait()
