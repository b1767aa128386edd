"""Makes what runs be what is wanted. Desired state is in the database, actual state in the engine and on disk.

One function, :meth:`Reconciler.settle`, converges one plugin, whoever asks: an operator's request, the end of an
instance, a host that starts. It can be repeated and interrupted anywhere; the next time finishes the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict

import structlog

from wirthforge_host.database import Database
from wirthforge_host.errors import FunctionDriftError, SandboxMismatchError
from wirthforge_host.plugins import store
from wirthforge_host.plugins.instances import Instance, Instances
from wirthforge_host.plugins.lifecycle import WANTS_INSTANCE, Crashes
from wirthforge_host.plugins.models import PluginRecord
from wirthforge_host.plugins.states import States
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import UnavailableError, WirthForgeError

PERIOD_S = 10.0
"""How long a difference that no event told can last."""

log = structlog.get_logger()


class Reconciler:
    """Owns the live instances of this host."""

    def __init__(self, database: Database, instances: Instances, states: States, *, drain_s: float) -> None:
        self._database = database
        self._instances = instances
        self._states = states
        self._drain_s = drain_s
        self._live: dict[str, Instance] = {}
        self._crashes: defaultdict[str, Crashes] = defaultdict(Crashes)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._wake = asyncio.Event()
        self._stopping = False

    def live(self, plugin: str) -> Instance | None:
        """The instance that answers calls of ``plugin``, if there is one."""
        return self._live.get(plugin)

    def forget_crashes(self, plugin: str) -> None:
        """An operator asks to try again: the past does not count."""
        self._crashes.pop(plugin, None)

    async def run(self) -> None:
        """Converges until cancelled: at once, whenever an instance ends, and every :data:`PERIOD_S` seconds."""
        while True:
            self._wake.clear()
            await self._converge()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s()):
                    await self._wake.wait()

    def alone_with(self, plugin: str) -> asyncio.Lock:
        """Held by whoever changes what is wanted of ``plugin``, until it is settled: one act at a time."""
        return self._locks[plugin]

    async def settle(self, plugin: str) -> None:
        """Starts or stops the plugin's instance as the database wants it. Its failures become its state.

        The caller holds :meth:`alone_with`.
        """
        record = await self._record(plugin)
        live = self._live.get(plugin)
        if live is not None and live.lost.is_set():
            await self._bury(live, record)
            record = await self._record(plugin)
        elif live is not None and not _wanted(record):
            await self._stop(live)
        if record is not None and plugin not in self._live:
            await self._without_instance(record)

    async def shut_down(self) -> None:
        """Ends every instance; what the operator wants stays as it is, for the next start."""
        self._stopping = True
        for plugin in list(self._live):
            async with self._locks[plugin]:
                if instance := self._live.pop(plugin, None):
                    await self._instances.close(instance)
        await self._instances.sweep()

    async def _converge(self) -> None:
        try:
            await self._instances.sweep()
            async with self._database.transaction() as tx:
                records = await store.all_plugins(tx)
            for plugin in {record.name for record in records} | set(self._live):
                async with self._locks[plugin]:
                    await self.settle(plugin)
        except UnavailableError as error:
            # The engine or the database does not answer: say so and try again; nothing was decided.
            log.warning("reconcile.unavailable", error=error.message)

    async def _without_instance(self, record: PluginRecord) -> None:
        """A plugin that nothing runs of: start it, or note that it has stopped."""
        if record.state is State.DRAINING:
            await self._states.move(record.name, State.STOPPED, cause=record.cause)
        elif (
            _wanted(record) and not self._stopping and time.monotonic() >= self._crashes[record.name].due_at()
        ):
            if record.state is State.RUNNING:
                record = await self._states.move(
                    record.name, State.UNHEALTHY, cause="the host started again without its instance"
                )
            if record.state is State.UNHEALTHY:
                record = await self._states.move(record.name, State.STARTING, cause="trying again")
            await self._start(record)

    async def _start(self, record: PluginRecord) -> None:
        began = time.monotonic()
        try:
            instance = await self._instances.open(record, on_lost=self._wake.set)
        except (FunctionDriftError, SandboxMismatchError) as error:
            await self._states.move(record.name, State.QUARANTINED, cause=error.message)
        except WirthForgeError as error:
            await self._crashed(record.name, cause=error.message, ran_s=time.monotonic() - began)
        else:
            self._live[record.name] = instance
            await self._states.move(record.name, State.RUNNING, cause="handshake and self-test passed")
            instance.gate.open()

    async def _stop(self, instance: Instance) -> None:
        instance.gate.close()
        if not await instance.gate.drained(self._drain_s):
            log.warning("plugin.drain_cut", plugin=instance.plugin, calls=instance.gate.inside)
        self._live.pop(instance.plugin, None)
        await self._instances.close(instance)

    async def _bury(self, instance: Instance, record: PluginRecord | None) -> None:
        """An instance ended unasked: say why, remove what is left, and count it."""
        instance.gate.close()
        cause = await self._instances.cause_of_death(instance)
        self._live.pop(instance.plugin, None)
        await self._instances.close(instance)
        if record is not None and record.state in WANTS_INSTANCE:
            await self._crashed(instance.plugin, cause=cause, ran_s=time.monotonic() - instance.began)

    async def _crashed(self, plugin: str, *, cause: str, ran_s: float) -> None:
        crashes = self._crashes[plugin] = self._crashes[plugin].after(time.monotonic(), ran_s)
        after = State.CRASH_LOOP if crashes.looping else State.UNHEALTHY
        await self._states.move(plugin, after, cause=cause)
        self._wake.set()

    async def _record(self, plugin: str) -> PluginRecord | None:
        async with self._database.transaction() as tx:
            return await store.find_plugin(tx, plugin)

    def _pause_s(self) -> float:
        due = [
            crashes.due_at() - time.monotonic() for crashes in self._crashes.values() if not crashes.looping
        ]
        return min([PERIOD_S, *(max(0.05, seconds) for seconds in due if seconds > 0)])


def _wanted(record: PluginRecord | None) -> bool:
    return record is not None and record.enabled and record.state in WANTS_INSTANCE
