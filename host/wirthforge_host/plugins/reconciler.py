"""Makes what runs be what is wanted. Desired state is in the database, actual state in the engine and on disk.

One function, :meth:`Reconciler.settle`, converges one plugin, whoever asks: an operator's request, the end of an
instance, a host that starts. It can be repeated and interrupted anywhere; the next time finishes the work. Each plugin
is settled by itself, so that one which is slow to start holds up no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import structlog

from wirthforge_host.errors import FunctionDriftError, PluginUnavailableError, SandboxMismatchError
from wirthforge_host.plugins import store
from wirthforge_host.plugins.adoption import Adoption, Left
from wirthforge_host.plugins.faults import Faults
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.instances import Instances
from wirthforge_host.plugins.lifecycle import HAS_INSTANCE, WANTS_INSTANCE
from wirthforge_host.plugins.models import PluginRecord
from wirthforge_host.plugins.retries import Retries
from wirthforge_host.plugins.starts import Starts
from wirthforge_host.plugins.states import States
from wirthforge_host.signals import Noticed, Signal, Signals
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import WirthForgeError
from wirthforge_sdk.serving.database import Database
from wirthforge_sdk.serving.errors import DatabaseUnavailableError

PERIOD_S = 10.0
"""How long a difference that no event told can last."""

CUT_OFF_S = 20.0
"""How long the end of an instance may take that cannot be written down."""

SHORTEST_S = 0.05
"""Between two rounds: what is due is started by a task of its own, which may not have begun."""

log = structlog.get_logger()


class Reconciler:
    """Owns the live instances of this host."""

    def __init__(
        self,
        database: Database,
        instances: Instances,
        adoption: Adoption,
        states: States,
        *,
        drain_s: float,
        signals: Signals,
    ) -> None:
        self._database = database
        self._instances = instances
        self._adoption = adoption
        self._knows_left = False
        self._left: dict[str, list[Left]] = {}
        """Of a plugin, what a host before this one left and nothing is decided about; an empty list: it did not fit,
        and is to be swept."""
        self._states = states
        self._drain_s = drain_s
        self._signals = signals
        self._live: dict[str, Instance] = {}
        self.retries = Retries(time.monotonic)
        self.faults = Faults()
        self._settling: dict[str, asyncio.Task[None]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._wake = asyncio.Event()
        self._opened = asyncio.Event()
        """Set, and replaced, whenever a gate was opened."""
        self.starts = Starts(self._wake.set)

    def live(self, plugin: str) -> Instance | None:
        """The instance that answers calls of ``plugin``, if there is one."""
        return self._live.get(plugin)

    async def successor(self, instance: Instance, timeout_s: float) -> Instance | None:
        """The instance that takes the calls of one that ended; None when there is none within ``timeout_s``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while (live := self._live.get(instance.plugin)) in {None, instance} or not live.gate.is_open:
                    await self._opened.wait()
                return live
        return None

    def living(self) -> list[str]:
        """Every plugin that has an instance, by name."""
        return sorted(self._live)

    async def run(self) -> None:
        """Converges until cancelled: at once, whenever an instance ends, and every :data:`PERIOD_S` seconds."""
        try:
            while True:
                self._wake.clear()
                await self.faults.survive(self._converge())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_pause_s(self.retries.next_in_s())):
                        await self._wake.wait()
        finally:
            for task in self._settling.values():
                task.cancel()
            await asyncio.gather(*self._settling.values(), return_exceptions=True)

    def wake(self) -> None:
        """Has what is wanted looked at again now."""
        self._wake.set()

    def let_go(self, plugin: str) -> None:
        """An operator looked at the plugin: whoever judges it begins anew."""
        instance = self._live.get(plugin)
        self._signals.notice(
            Signal(
                noticed=Noticed.LET_GO,
                plugin=plugin,
                instance=instance.id if instance else "",
                at_s=time.monotonic(),
            )
        )

    def alone_with(self, plugin: str) -> asyncio.Lock:
        """Held by whoever changes what is wanted of ``plugin``, until it is settled: one act at a time."""
        return self._locks[plugin]

    @contextlib.asynccontextmanager
    async def ending(self, plugin: str) -> AsyncIterator[None]:
        """Alone with a plugin that shall end, and sure that it does, also when nothing can be written down.

        Raises:
            DatabaseUnavailableError: The context raised it; the plugin's instance was cut off.
        """
        with self.starts.ending(plugin):
            async with self.alone_with(plugin):
                try:
                    yield
                except DatabaseUnavailableError as error:
                    await self.cut_off(plugin)
                    raise DatabaseUnavailableError(
                        f"{plugin} was stopped, and that is not written down, for the database does not answer: "
                        "repeat this when it does, or the next start of the host starts the plugin",
                        plugin=plugin,
                    ) from error

    async def settle(self, plugin: str) -> None:
        """Starts or stops the plugin's instance as the database wants it. Its failures become its state.

        The caller holds :meth:`alone_with`.
        """
        record = await _record(self._database, plugin)
        live = self._live.get(plugin)
        if live is not None and live.lost.is_set():
            await self._bury(live, record)
            record = await _record(self._database, plugin)
        elif live is not None and not _wanted(record):
            await self._stop(live)
        elif live is not None and record is not None and record.state is State.STARTING:
            await self._open_gate(live)
        if record is not None and plugin not in self._live:
            await self._without_instance(record)

    async def cut_off(self, plugin: str) -> None:
        """Ends the plugin's instance at once, and starts none until that is released: for when nothing can be decided.

        The caller holds :meth:`alone_with`.
        """
        self.starts.hold(plugin)
        if instance := self._live.pop(plugin, None):
            instance.gate.close()
            try:
                async with asyncio.timeout(CUT_OFF_S):
                    await self.faults.survive(self._instances.close(instance))
            except TimeoutError:
                log.warning("plugin.cut_off_unfinished", plugin=plugin)  # the next sweep takes what is left

    async def shut_down(self) -> None:
        """Ends every instance; what the operator wants stays as it is, for the next start."""
        self.starts.close()
        # Every lock, not only those of live plugins: who holds one may be about to have an instance.
        for plugin in list(self._locks):
            async with self._locks[plugin]:
                if instance := self._live.pop(plugin, None):
                    await self.faults.survive(self._instances.close(instance))
        await self.faults.survive(self._instances.sweep())

    async def leave(self) -> None:
        """Lets every instance wait for the next start of this host."""
        self.starts.close()
        for plugin in list(self._locks):
            async with self._locks[plugin]:
                if instance := self._live.pop(plugin, None):
                    instance.gate.close()
                    await self.faults.survive(self._instances.leave(instance))

    def engine_returned(self) -> None:
        """Tries again at once what an engine that was away kept from starting."""
        self.retries.unhindered()
        self._wake.set()

    async def _take_over(self, plugin: str) -> None:
        """Decides about all that is left of the plugin. What raises decides nothing: it is tried again."""
        undecided, do_all_fit = self._left[plugin], True
        while undecided:
            do_all_fit &= await self._taken_over(undecided[0])
            del undecided[0]
        if do_all_fit:
            del self._left[plugin]

    async def _taken_over(self, found: Left) -> bool:
        plugin = found.instance.plugin
        if not self.starts.allowed(plugin):
            return False
        found = dataclasses.replace(found, plugin=await _record(self._database, plugin))
        taking = self._adoption.take_over(found, self._live, on_lost=self._wake.set)
        try:
            instance = await self.starts.run(plugin, taking)
        except FunctionDriftError as error:
            await self._states.move(plugin, State.QUARANTINED, cause=error.message)
            return False
        if instance is None:
            return False
        await self._stand(instance, found.plugin)
        self._live[plugin] = instance
        self._adoption.announce(instance)
        return True

    async def _stand(self, instance: Instance, record: PluginRecord | None) -> None:
        """Writes down how an instance stands, where that is not how it was written; lets calls in where they may."""
        if record is not None and record.state is not instance.standing:
            try:
                await self._states.move(record.name, instance.standing, cause="the host found it so")
            except BaseException:
                await asyncio.shield(self._instances.leave(instance))
                raise
        if not instance.paused:
            self._let_in(instance)

    async def _converge(self) -> None:
        if not self._knows_left:
            self._left = await self._adoption.left()
            self._knows_left = True
        swept = [plugin for plugin, undecided in self._left.items() if not undecided]
        self._begin(self._left.keys() - swept, self._take_over)
        spared = {each.instance.id for undecided in self._left.values() for each in undecided}
        # By itself: what cannot be swept now keeps its user id, and keeps nobody from running.
        await self.faults.survive(self._instances.sweep(spared))
        for plugin in swept:
            self._left.pop(plugin, None)
        async with self._database.reading() as tx:
            records = await store.all_plugins(tx)
        self._begin({record.name for record in records} | self._live.keys(), self.settle)

    def _begin(self, plugins: Iterable[str], work: Callable[[str], Awaitable[None]]) -> None:
        """Has ``work`` done on each plugin by itself, where nothing is being done on it."""
        for plugin in plugins:
            if plugin not in self._settling:
                task = asyncio.create_task(self._alone(plugin, work), name=f"settle {plugin}")
                self._settling[plugin] = task

    async def _alone(self, plugin: str, work: Callable[[str], Awaitable[None]]) -> None:
        try:
            async with self._locks[plugin]:
                await self.faults.survive(work(plugin))
        finally:
            del self._settling[plugin]
            live = self._live.get(plugin)
            # It ended after it was looked at, and nobody was free to look again; or what was left did not fit.
            if (live is not None and live.lost.is_set()) or self._left.get(plugin) == []:
                self._wake.set()

    async def _without_instance(self, record: PluginRecord) -> None:
        """A plugin that nothing runs of: start it, or note that it has stopped."""
        if record.state is State.DRAINING:
            # Else the engine has not removed its sandbox; the next round looks again.
            if not await _anything_left(self._database, record.name):
                await self._states.move(record.name, State.STOPPED, cause=record.cause)
        elif not _wanted(record) or record.state is State.PAUSED:
            # What was paused stays so, whatever became of its instance: an operator resumes it.
            self.retries.settled(record.name)
        elif record.name in self._left:
            pass  # never beside what may still be taken over, or is to be swept
        elif self.starts.allowed(record.name) and self.retries.is_due(record.name):
            if record.state in HAS_INSTANCE:
                record = await self._states.move(
                    record.name, State.UNHEALTHY, cause="it has no instance any more"
                )
            if record.state is State.UNHEALTHY:
                record = await self._states.move(record.name, State.STARTING, cause="trying again")
            self.retries.settled(record.name)
            await self._start(record)

    async def _start(self, record: PluginRecord) -> None:
        began = time.monotonic()
        try:
            opening = self._instances.open(record, on_lost=self._wake.set)
            instance = await self.starts.run(record.name, opening)
        except (FunctionDriftError, SandboxMismatchError) as error:
            if isinstance(error, FunctionDriftError):
                self._signals.notice(
                    _signal(Noticed.DRIFTED, record.name, differences=error.details["differences"])
                )
            await self._states.move(record.name, State.QUARANTINED, cause=error.message)
        except PluginUnavailableError as error:
            await self._crashed(record.name, cause=error.message, ran_s=time.monotonic() - began)
        except WirthForgeError as error:
            # Engine, image, database or room is missing: not its fault, so it is tried until they are there.
            self.retries.hindered(record.name)
            await self._states.move(record.name, State.UNHEALTHY, cause=error.message)
            self._wake.set()
        else:
            if instance is not None:
                self._live[record.name] = instance
                await self._open_gate(instance)

    async def _open_gate(self, instance: Instance) -> None:
        await self._states.move(instance.plugin, State.RUNNING, cause="handshake and self-test passed")
        self._let_in(instance)

    def _let_in(self, instance: Instance) -> None:
        instance.gate.open()
        opened, self._opened = self._opened, asyncio.Event()
        opened.set()

    async def _stop(self, instance: Instance) -> None:
        instance.gate.close()
        if not await instance.gate.drained(self._drain_s):
            log.warning("plugin.drain_cut", plugin=instance.plugin, calls=instance.gate.inside)
        self._live.pop(instance.plugin, None)
        await self._instances.close(instance)

    async def _bury(self, instance: Instance, record: PluginRecord | None) -> None:
        """An instance ended unasked: say why, remove what is left, and count it."""
        instance.gate.close()
        ran_s = time.monotonic() - instance.began
        cause = await self._instances.cause_of_death(instance)
        self._live.pop(instance.plugin, None)
        try:
            if record is not None and record.state in WANTS_INSTANCE - {State.PAUSED}:
                await self._crashed(instance.plugin, cause=cause, ran_s=ran_s)
        finally:
            await self._instances.close(instance)

    async def _crashed(self, plugin: str, *, cause: str, ran_s: float) -> None:
        self._signals.notice(_signal(Noticed.CRASHED, plugin, cause=cause))
        again = self.retries.crashed(plugin, ran_s=ran_s)
        await self._states.move(plugin, State.UNHEALTHY if again else State.CRASH_LOOP, cause=cause)
        self._wake.set()


def _signal(noticed: Noticed, plugin: str, **detail: object) -> Signal:
    return Signal(noticed=noticed, plugin=plugin, instance="", at_s=time.monotonic(), detail=detail)


async def _anything_left(database: Database, plugin: str) -> bool:
    async with database.reading() as tx:
        return await store.has_instance(tx, plugin)


async def _record(database: Database, plugin: str) -> PluginRecord | None:
    async with database.reading() as tx:
        return await store.find_plugin(tx, plugin)


def _pause_s(next_in_s: float | None) -> float:
    return PERIOD_S if next_in_s is None else min(PERIOD_S, max(SHORTEST_S, next_in_s))


def _wanted(record: PluginRecord | None) -> bool:
    return record is not None and record.enabled and record.state in WANTS_INSTANCE
