"""A host for tests: the shipped wiring over a directory of its own, and packages on a shelf.

Its engine is one in memory whose containers are the real runtime in a process of its own, or the real one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.fakes.databases import file_with
from tests.fakes.packages import make_package
from tests.fakes.source import ShelfSource
from wirthforge_host.database import metadata
from wirthforge_host.plugins import store
from wirthforge_host.plugins.call import Answer
from wirthforge_host.plugins.models import InstanceRecord
from wirthforge_host.sandbox.docker_engine import DockerEngine
from wirthforge_host.sandbox.memory_engine import MemoryEngine
from wirthforge_host.sandbox.models import BRIDGE_TARGET, CODE_TARGET, ContainerSpec
from wirthforge_host.sandbox.ports import ContainerEngine
from wirthforge_host.settings import Settings
from wirthforge_host.tokens.service import ALL_SCOPES, Operator
from wirthforge_host.wiring import Wiring, build_wiring
from wirthforge_sdk.contracts.audit_api import AuditOut
from wirthforge_sdk.contracts.host_api import (
    ApprovalIn,
    CallIn,
    EffectiveOut,
    PluginOut,
    State,
)
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.contracts.resources_api import LimitedOut, ResourcesIn
from wirthforge_sdk.files import write_private

PLUGIN = "demo/hello"
SOCKET = "unix:///var/run/docker.sock"
PATIENCE_S = 9.0
"""How long a test waits for what must happen; a bound, not a pause."""

BOOT = """
import ctypes, os, runpy, sys
uid = int(sys.argv.pop(1))
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(0, uid, 0)
ctypes.CDLL(None).setfsuid(0)
runpy.run_module("wirthforge_sdk.runtime", run_name="__main__", alter_sys=True)
"""
"""The runtime as the instance's user. Files are read as root: nobody else may reach the tests' interpreter."""


WORKER = """
import os
import time
from pathlib import Path
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()


@plugin.function
def echo(text: str) -> str:
    "Says what it was told."
    return text


@plugin.function
def keep(key: str, value: str) -> bool:
    "Stores a value."
    plugin.storage.set(key, value)
    return True


@plugin.function
def recall(key: str) -> str:
    "Reads a value."
    return str(plugin.storage.get(key))


@plugin.function
def end(code: int = 3) -> bool:
    "Ends the process."
    os._exit(code)


@plugin.function
def complain(message: str) -> bool:
    "Logs an error and ends the process."
    plugin.log.error(message)
    os._exit(1)


@plugin.function
def linger(seconds: float) -> bool:
    "Sleeps, and says whether anybody still waits."
    time.sleep(seconds)
    plugin.log.info("told to stop" if plugin.cancelled() else "still waited for")
    return True


@plugin.function(timeout_s=20)
def hold(file: str) -> str:
    "Waits for a file, or until nobody waits for it."
    plugin.log.info("holding")
    while not plugin.cancelled():
        if Path(file).exists():
            return "released"
        time.sleep(0.002)
    plugin.log.info("told to stop")
    return "stopped"
"""
"""A plugin that does what a test asks of it."""


def offered(source: str) -> list[Function]:
    """The functions of a plugin whose code is ``source``, as a build would learn them."""
    found: dict[str, Any] = {}
    exec(source, found)  # noqa: S102 (a test's own code)
    return [Function.model_validate(function.row()) for function in found["plugin"].functions.values()]


@cache
def worker_functions() -> list[Function]:
    """Of :data:`WORKER`."""
    return offered(WORKER)


def worker(name: str = PLUGIN, version: str = "1.0.0", **more: Any) -> bytes:
    """A package of :data:`WORKER`."""
    return make_package(name, version, **{"source": WORKER, "functions": worker_functions(), **more})


async def run_plugin(spec: ContainerSpec) -> int:
    """What stands for a container: the runtime in a process, which ends with all it started."""
    bridge, tree = spec.source_of(BRIDGE_TARGET), spec.source_of(CODE_TARGET)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-B", "-c", BOOT, spec.settings.user.partition(":")[0]),
        *("--socket", str(bridge / "bridge.sock"), "--tree", str(tree)),
        *(spec.settings.command if "--wait" in spec.settings.command else ()),
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return await process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@dataclass
class World:
    """A host at work, and what an operator does with it."""

    wiring: Wiring
    source: ShelfSource
    operator: Operator = field(default_factory=lambda: Operator("me", ALL_SCOPES))

    @property
    def engine(self) -> MemoryEngine:
        """The engine in memory."""
        assert isinstance(self.wiring.engine, MemoryEngine)
        return self.wiring.engine

    async def install(self, reference: str = PLUGIN) -> PluginOut:
        return await self.plugin(await self.wiring.installer.install(reference, self.operator))

    async def plugin(self, name: str = PLUGIN) -> PluginOut:
        return await self.wiring.plugins.get(name)

    async def approve(
        self, *grant: str, deny: Sequence[str] = (), plugin: str = PLUGIN, digest: str | None = None
    ) -> PluginOut:
        approval = ApprovalIn(
            plugin=plugin,
            digest=digest or (await self.plugin(plugin)).digest,
            grant=list(grant),
            deny=list(deny),
        )
        await self.wiring.plugins.approve(approval, self.operator)
        return await self.plugin(plugin)

    async def call(
        self,
        function: str = "greet",
        *,
        plugin: str = PLUGIN,
        timeout_s: float | None = None,
        **arguments: Any,
    ) -> Answer:
        body = CallIn(plugin=plugin, function=function, arguments=arguments, timeout_s=timeout_s)
        return await self.wiring.calls.call(body, self.operator)

    async def disable(self, plugin: str = PLUGIN) -> PluginOut:
        await self.wiring.plugins.disable(plugin, self.operator)
        return await self.plugin(plugin)

    async def enable(self, plugin: str = PLUGIN) -> PluginOut:
        await self.wiring.plugins.enable(plugin, self.operator)
        return await self.plugin(plugin)

    async def uninstall(self, plugin: str = PLUGIN, *, purge: bool = False) -> None:
        await self.wiring.plugins.uninstall(plugin, self.operator, purge=purge)

    async def limit(self, plugin: str = PLUGIN, **limits: Any) -> LimitedOut:
        return await self.wiring.plugins.limit(plugin, ResourcesIn(**limits), self.operator)

    async def throttle(self, share: float, plugin: str = PLUGIN) -> None:
        await self.wiring.containment.throttle(plugin, share=share, cause="a test", actor=self.operator.actor)

    async def effective(self, plugin: str = PLUGIN) -> EffectiveOut:
        return await self.wiring.plugins.effective(plugin)

    async def until(
        self, *states: State, plugin: str = PLUGIN, other_than: str = "", patience_s: float = PATIENCE_S
    ) -> PluginOut:
        """The plugin, once it is in one of ``states``; who takes calls has an instance, not the named one."""
        async with asyncio.timeout(patience_s), self.wiring.events.subscribe() as events:
            while True:
                for found in await self.wiring.plugins.all():
                    here = found.name == plugin and found.state in states
                    instance = found.instance.id if found.instance else other_than
                    if here and (
                        instance != other_than or found.state not in (State.RUNNING, State.THROTTLED)
                    ):
                        return found
                await anext(events)

    async def logged(self, message: str, *, plugin: str = PLUGIN) -> None:
        """Returns once the plugin has logged ``message``."""
        async with asyncio.timeout(PATIENCE_S), self.wiring.logs.subscribe(plugin, after=0) as lines:
            while (await anext(lines)).message != message:
                pass

    async def audited(self, action: str | None = None, *, plugin: str | None = None) -> list[AuditOut]:
        """The newest records, oldest first."""
        await self.wiring.audit.flush()
        return (await self.wiring.audit.page(action=action, plugin=plugin, limit=200))[::-1]

    async def filled(self) -> None:
        """Returns once there are as many blank sandboxes as there are to be."""
        await self.wiring.instances.pool.full()

    async def containers(self) -> list[str]:
        """The instances that the engine has containers of."""
        settings = self.wiring.settings
        assert settings.host_id is not None
        found = await self.wiring.engine.of_host(settings.host_id)
        return [state.labels["wirthforge.instance"] for state in found]

    async def instances(self) -> Sequence[InstanceRecord]:
        """The instances that are written down."""
        async with self.wiring.database.reading() as tx:
            return await store.all_instances(tx)

    def directories(self, name: str) -> set[str]:
        """What is in the directory ``releases`` or ``bridges``."""
        directory = self.wiring.settings.data_dir / name
        return {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()


def built(
    directory: Path, source: ShelfSource, *, engine: ContainerEngine | None = None, **settings: Any
) -> Wiring:
    """A host in ``directory``, whose tables are there. Blocks, as it does in the host's own process."""
    directory.mkdir(exist_ok=True)
    file = directory / "wirthforge.sqlite3"
    if not file.exists() and "database_url" not in settings:
        write_private(file, file_with(metadata), replace=False)
    chosen = Settings(data_dir=directory, **{"host_id": "a-test", **settings})
    return build_wiring(chosen, engine=engine or MemoryEngine(process=run_plugin), source=source)


@asynccontextmanager
async def world(
    directory: Path, *packages: bytes, source: ShelfSource | None = None, **options: Any
) -> AsyncIterator[World]:
    """A host at work in ``directory``; ``options`` are an ``engine``, and settings."""
    shelf = await asyncio.to_thread(ShelfSource, *packages) if source is None else source
    wiring = await asyncio.to_thread(built, directory, shelf, **options)
    wiring.audit._linger_s = 0  # else every host takes that long to stop
    if isinstance(wiring.engine, MemoryEngine):
        wiring.tripwire._sources = ()  # processes that are no containers have no filter to trip over
    async with wiring.running():
        yield World(wiring, shelf)
    # It survives its own mistakes, which must not hide them here.
    assert not wiring.reconciler.faults.seen, wiring.reconciler.faults.seen


@asynccontextmanager
async def world_on_engine(directory: Path, *packages: bytes, **options: Any) -> AsyncIterator[World]:
    """The same over the real engine, on which nothing is left afterwards."""
    host_id = options.setdefault("host_id", f"test-{uuid.uuid4().hex}")
    try:
        async with world(directory, *packages, engine=DockerEngine(SOCKET), **options) as host:
            yield host
    finally:
        await remove_containers(host_id)


async def remove_containers(host_id: str) -> list[str]:
    """Removes what a host left on the engine, and returns it."""
    engine = DockerEngine(SOCKET)
    left = [state.id for state in await engine.of_host(host_id)]
    for container in left:
        await engine.remove(container)
    await engine.close()
    return left
