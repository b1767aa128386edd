"""Makes what runs be what is wanted. Desired state is in the database, actual state in the engine and on disk.

One function, :meth:`Reconciler.settle`, converges one plugin, whoever asks: an operator's request, the end of an
instance, a host that starts. A plugin is well as long as one of its instances is: what befalls another is put right
beside it. It can be repeated and interrupted anywhere; the next time finishes the work. Each plugin
is settled by itself, so that one which is slow to start holds up no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import TypeGuard

import structlog

from wirthforge_host.audit.records import Outcome
from wirthforge_host.errors import FunctionDriftError, PluginUnavailableError, SandboxMismatchError
from wirthforge_host.plugins import store
from wirthforge_host.plugins.adoption import Adoption, Left
from wirthforge_host.plugins.endings import Endings
from wirthforge_host.plugins.fleet import least_loaded, standing, surplus
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.instances import Instances
from wirthforge_host.plugins.lifecycle import HAS_INSTANCE, WANTS_INSTANCE
from wirthforge_host.plugins.models import PluginRecord
from wirthforge_host.plugins.numbers import Numbers
from wirthforge_host.plugins.repairs import Repairs
from wirthforge_host.plugins.retries import Retries
from wirthforge_host.plugins.starts import Starts
from wirthforge_host.plugins.states import States
from wirthforge_host.plugins.upgrades.swap import Swaps
from wirthforge_host.sandbox.control import Control
from wirthforge_host.signals import Noticed, Signal, Signals
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import WirthForgeError
from wirthforge_sdk.serving.database import Database
from wirthforge_sdk.serving.errors import DatabaseUnavailableError

PERIOD_S = 10.0
"""How long a difference that no event told can last."""
SHORTEST_S = 0.05
"""Between two rounds: what is due is started by a task of its own, which may not have begun."""

log = structlog.get_logger()


class Reconciler:
    """Owns the live instances of this host."""

    def __init__(
        self,
        instances: Instances,
        adoption: Adoption,
        states: States,
        control: Control,
        signals: Signals,
        swaps: Swaps,
    ) -> None:
        self._database = swaps.database
        self._instances = instances
        self._adoption = adoption
        self._knows_left = False
        self._left: dict[str, list[Left]] = {}
        """Of a plugin, what a host before this one left and is undecided; empty: it did not fit, and is swept."""
        self._states = states
        self._control = control
        self.numbers = Numbers(instances.policy.scaling, instances.policy.cap.instances)
        self._signals = signals
        self.swaps = swaps
        self.fleet = swaps.fleet
        self._departures = swaps.departures
        self.faults = swaps.departures.faults
        self.retries = Retries(time.monotonic)
        self._settling: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._wake = asyncio.Event()
        self.starts = Starts(self._wake.set)
        self._endings = Endings(
            swaps=swaps,
            repairs=Repairs(
                instances=instances, fleet=self.fleet, states=states, signals=signals, control=control
            ),
            states=states,
            signals=signals,
            retries=self.retries,
            starts=self.starts,
            wake=self._wake.set,
        )

    def live(self, plugin: str) -> Instance | None:
        """The instance that answers the next call of ``plugin``, if there is one: the one with the least to do."""
        return least_loaded(self.fleet.of(plugin))

    async def run(self) -> None:
        """Converges until cancelled: at once, whenever an instance ends, and every :data:`PERIOD_S` seconds."""
        try:
            while True:
                self._wake.clear()
                await self.faults.survive(self._converge())
                with contextlib.suppress(TimeoutError):
                    due_s = self.retries.next_in_s()
                    next_s = PERIOD_S if due_s is None else max(SHORTEST_S, due_s)
                    async with asyncio.timeout(min(PERIOD_S, next_s)):
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
        instance = self.live(plugin)
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
            DatabaseUnavailableError: The context raised it; its instances were cut off.
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
        """Starts or stops instances of the plugin as the database wants it. Its failures become its state.

        The caller holds :meth:`alone_with`.
        """
        if lost := [each for each in self.fleet.of(plugin) if each.lost.is_set()]:
            await self._endings.repairs.expect(lost)
            record = await _record(self._database, plugin)
            serves = _wanted(record) and record.state is not State.PAUSED
            await self._endings.bury(lost, record if serves else None)
        record = await _record(self._database, plugin)
        if record is not None and await self.swaps.righted(record):
            record = await _record(self._database, plugin)
        await self._departures.stop(surplus(self.fleet.of(plugin), self._number(record)))
        if not _wanted(record):
            await self.swaps.end_others(plugin)
        if self.fleet.of(plugin) and record is not None and record.state is State.STARTING:
            await self._open_gates(plugin)
        if record is not None and not self.fleet.of(plugin):
            await self._without_instance(record)
        while record is not None and self._lacks_some(record) and await self._start(record):
            pass
        if (record := await _record(self._database, plugin)) is not None:
            await self.swaps.follow(record, self.started, self._wake.set)

    async def cut_off(self, plugin: str) -> None:
        """Ends the plugin's instances at once, and starts none until it is released: for when nothing can be decided.

        The caller holds :meth:`alone_with`.
        """
        self.starts.hold(plugin)
        await self._departures.cut_off(plugin)

    async def shut_down(self) -> None:
        """Ends every instance; what the operator wants stays as it is, for the next start."""
        self.starts.close()
        # Every lock, not only those of live plugins: who holds one may be about to have an instance.
        for plugin in list(self._locks):
            async with self._locks[plugin]:
                await self._departures.end(plugin)
        await self.faults.survive(self._instances.sweep())

    async def leave(self) -> None:
        """Lets every instance wait for the next start of this host."""
        self.starts.close()
        for plugin in list(self._locks):
            async with self._locks[plugin]:
                await self._departures.let_go(plugin)

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
        record = await _record(self._database, plugin)
        has_room = _wanted(record) and len(self.fleet.of(plugin)) < self.numbers.bounds(record).most
        found = dataclasses.replace(found, plugin=record)
        taking = self._adoption.take_over(found, has_room=has_room, on_lost=partial(self._ended, plugin))
        try:
            instance = await self.starts.run(plugin, taking)
        except FunctionDriftError as error:
            await self._states.move(plugin, State.QUARANTINED, cause=error.message)
            return False
        if instance is None:
            return False
        await self._stand(instance, record)
        self._adoption.announce(instance)
        return True

    async def _stand(self, instance: Instance, record: PluginRecord | None) -> None:
        """Writes down how the plugin stands with an instance, where that is not how it was written; counts it."""
        after = standing((*self.fleet.of(instance.plugin), instance))
        try:
            if record is not None and record.state is not after:
                await self._states.move(record.name, after, cause="the host found it so")
            await instance.session.subscribe()
        except BaseException:
            await asyncio.shield(self._instances.leave(instance))
            raise
        self.fleet.join(instance)
        if not instance.paused:
            self.fleet.let_in(instance)

    async def _converge(self) -> None:
        if not self._knows_left:
            self._left = await self._adoption.left()
            self._knows_left = True
        swept = [plugin for plugin, undecided in self._left.items() if not undecided]
        self._again |= self._left.keys() & self._settling.keys()
        self._begin(self._left.keys() - swept, self._take_over)
        spared = {each.instance.id for undecided in self._left.values() for each in undecided}
        # By itself: what cannot be swept now keeps its user id, and keeps nobody from running.
        await self.faults.survive(self._instances.sweep(spared))
        for plugin in swept:
            self._left.pop(plugin, None)
        async with self._database.reading() as tx:
            records = await store.all_plugins(tx)
        self._begin({record.name for record in records}.union(self.fleet.plugins()), self.settle)

    def _begin(self, plugins: Iterable[str], work: Callable[[str], Awaitable[None]]) -> None:
        """Has ``work`` done on each plugin by itself, where nothing is being done on it."""
        for plugin in plugins:
            if plugin not in self._settling:
                task = asyncio.create_task(self._alone(plugin, work), name=f"settle {plugin}")
                self._settling[plugin] = task

    def _ended(self, plugin: str) -> None:
        """A connection of the plugin is over: of one that serves, what follows cannot wait for the next round."""
        if self.starts.allowed(plugin) and any(each.lost.is_set() for each in self.fleet.of(plugin)):
            self._begin((plugin,), self.settle)
        self._wake.set()

    async def _alone(self, plugin: str, work: Callable[[str], Awaitable[None]]) -> None:
        try:
            async with self._locks[plugin]:
                await self.faults.survive(work(plugin))
        finally:
            del self._settling[plugin]
            # One ended after it was looked at, and nobody was free to look again; or what was left did not fit.
            lost = any(each.lost.is_set() for each in self.fleet.at_work(plugin))
            if lost or self._left.get(plugin) == [] or plugin in self._again:
                self._again.discard(plugin)
                self._wake.set()

    async def _without_instance(self, record: PluginRecord) -> None:
        """A plugin that nothing runs of: start it, or note that it has stopped."""
        if record.state is State.DRAINING:
            # Else the engine has not removed its sandbox; the next round looks again.
            async with self._database.reading() as tx:
                anything_left = await store.has_instance(tx, record.name)
            if not anything_left:
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
            await self._start(record)

    def _number(self, record: PluginRecord | None) -> int:
        """How many instances are to run."""
        return self.numbers.of(record, len(self.fleet.of(record.name))) if _wanted(record) else 0

    def _lacks_some(self, record: PluginRecord) -> bool:
        """Whether another instance is to be started now, beside those there are."""
        there = len(self.fleet.of(record.name))
        may_start = record.state is not State.PAUSED and record.name not in self._left
        due = self.starts.allowed(record.name) and self.retries.is_due(record.name)
        return 0 < there < self._number(record) and may_start and due

    async def _start(self, record: PluginRecord) -> bool:
        """Starts one instance; whether it runs."""
        self.retries.settled(record.name)
        began = time.monotonic()
        try:
            instance = await self.starts.run(record.name, self._opened(record, serves=True))
        except (FunctionDriftError, SandboxMismatchError) as error:
            await self._endings.quarantine(record.name, error)
        except PluginUnavailableError as error:
            await self.swaps.failed(record, (), error.message)
            await self._endings.crashed(record.name, cause=error.message, ran_s=time.monotonic() - began)
        except WirthForgeError as error:
            # Engine, image, database or room is missing: not its fault, so it is tried until they are there.
            self.retries.hindered(record.name)
            await self._endings.without_one(record.name, State.UNHEALTHY, cause=error.message)
        else:
            if instance is not None:
                await self._begin_calls(instance)
            return instance is not None
        return False

    async def started(self, record: PluginRecord, *, shadows: bool = False) -> Instance | None:
        """One more instance, which takes no calls and events yet; None when whoever wants it to end interrupted it."""
        return await self.starts.run(record.name, self._opened(record, serves=False, shadows=shadows))

    async def _opened(self, record: PluginRecord, *, serves: bool, shadows: bool = False) -> Instance:
        """One more instance, sent events if it ``serves``; where its fellows are throttled, it is as they are."""
        instance = await self._instances.open(
            record, on_lost=partial(self._ended, record.name), shadows=shadows
        )
        share = min((each.cpu_share for each in self.fleet.of(record.name)), default=1.0)
        try:
            if share < 1:
                cpus = instance.limits.cpus * share
                await self._control.set_cpus(instance.container_id, cpus, instance.pid)
                instance.cpu_share = share
            if serves:
                await instance.session.subscribe()
        except BaseException:
            await asyncio.shield(self._instances.close(instance))
            raise
        return instance

    async def _begin_calls(self, instance: Instance) -> None:
        has_fellows = bool(self.fleet.of(instance.plugin))
        self.fleet.join(instance)
        if has_fellows:
            self.fleet.let_in(instance)
            await self._states.note(instance.plugin, "instance.joined", Outcome.ALLOWED, instance=instance.id)
        else:
            await self._open_gates(instance.plugin)

    async def _open_gates(self, plugin: str) -> None:
        await self._states.move(plugin, State.RUNNING, cause="handshake and self-test passed")
        for instance in self.fleet.of(plugin):
            self.fleet.let_in(instance)


async def _record(database: Database, plugin: str) -> PluginRecord | None:
    async with database.reading() as tx:
        return await store.find_plugin(tx, plugin)


def _wanted(record: PluginRecord | None) -> TypeGuard[PluginRecord]:
    return record is not None and record.enabled and record.state in WANTS_INSTANCE
