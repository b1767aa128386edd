"""Puts plugins to rest that nobody calls, and starts them again for a call, which waits within its own time.

Whoever was called, said anything, has anything open, or used the processor is not idle: so a plugin that works by
itself goes on, as far as that is seen. What it used of the processor is seen where the host reads its control group.

Rest is decided (``capacity.rest_of``) beside calls, and costs them nothing: a call looks whether its plugin is among
those that rest, and whether the instance it enters sleeps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from wirthforge_host.bus import Bus
from wirthforge_host.errors import CallTimedOutError, FunctionMissingError
from wirthforge_host.events import Event
from wirthforge_host.plugins import store
from wirthforge_host.plugins.capacity import Quiet, Rest, rest_of
from wirthforge_host.plugins.drift import Offer
from wirthforge_host.plugins.fleet import Rested, standing
from wirthforge_host.plugins.functions import Functions
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.lifecycle import RESTING
from wirthforge_host.plugins.models import PluginRecord
from wirthforge_host.plugins.readiness import Readiness
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.states import States
from wirthforge_host.plugins.upgrades import store as upgrade_store
from wirthforge_host.signals import Noticed, Signal
from wirthforge_sdk.contracts import policy
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.upgrades_api import UpgradeState
from wirthforge_sdk.errors import WirthForgeError
from wirthforge_sdk.serving.database import Database

PERIOD_S = 1.0
"""How much later than due a plugin may be put to rest; far less than a line of the bridge may take."""
BUSY_CPUS = 0.001
"""Cores in use from which on a plugin is at work: a millisecond a second. One that waits uses none."""
AWAKE_AGAIN = frozenset({*RESTING, State.UNHEALTHY, State.DRAINING})
"""States of a plugin that no call starts."""

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True, eq=False)
class Idle:
    """The rest of all plugins. :meth:`load` before use. For one event loop."""

    database: Database
    states: States
    reconciler: Reconciler
    bus: Bus
    functions: Functions
    readiness: Readiness
    policy: policy.Idle
    monotonic: Callable[[], float] = time.monotonic
    _busy: dict[str, float] = field(default_factory=dict)
    """When an instance was last seen at work, or found to be exempt."""
    _starting: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _stale: set[str] = field(default_factory=set)
    """Plugins that may rest otherwise than is known here: of another release, or though it seemed to fail."""

    async def load(self) -> None:
        """Knows those that a host before this one put to rest."""
        async with self.database.reading() as tx:
            records = await store.all_plugins(tx)
        for record in records:
            if _rests(record):
                await self._remember(record)

    async def run(self) -> None:
        """Looks at all plugins once a period, until cancelled."""
        try:
            while True:
                await self.reconciler.faults.survive(self.look())
                await asyncio.sleep(PERIOD_S)
        finally:
            for task in self._starting.values():
                task.cancel()
            await asyncio.gather(*self._starting.values(), return_exceptions=True)

    def judge(self, signal: Signal) -> None:
        """Notes who uses the processor. Give it to ``Signals.listen``."""
        if signal.noticed is Noticed.SAMPLED and signal.detail["usage"].cpus >= BUSY_CPUS:
            self._busy[signal.instance] = signal.at_s
        elif signal.noticed is Noticed.CLOSED:
            self._busy.pop(signal.instance, None)

    def hear(self, event: Event) -> None:
        """Notes what became of plugins that rest. Give it to ``Events.listen``."""
        if event.plugin is None or event.plugin not in self.reconciler.fleet.resting:
            return
        if event.type == "plugin.state" and event.data["state"] in AWAKE_AGAIN:
            self._forget(event.plugin)
        elif event.type == "plugin.upgrade":
            self._stale.add(event.plugin)

    async def look(self) -> None:
        """One round."""
        fleet = self.reconciler.fleet
        for plugin in [each for each in fleet.resting if self._takes_calls(each)]:
            self._forget(plugin)
        for plugin in tuple(self._stale):
            await self._renew(plugin)
            self._stale.discard(plugin)
        for plugin in fleet.plugins():
            try:
                await self._consider(plugin)
            except WirthForgeError as error:
                # It is awake, or is woken when it is wanted; the next round tries again.
                log.warning("plugin.no_rest", plugin=plugin, error=error.message)

    async def started(self, plugin: str, function: str, timeout_s: float | None) -> None:
        """Starts a plugin that rests, for a call of one of its functions; many calls at once start it once.

        Args:
            plugin: One of those that rest.
            function: That is to be called.
            timeout_s: How long the caller waits; at most the function's own time.

        Raises:
            NotFoundError: There is no such plugin any more.
            FunctionMissingError: It has no such function; nothing was started.
            CallTimedOutError: It did not start within that time; it goes on starting.
            UnavailableError: The database does not answer.
        """
        if self._takes_calls(plugin):
            self._forget(plugin)
            return
        async with self.database.reading() as tx:
            record = await store.get_plugin(tx, plugin)
        approved = {each.name: each for each in await self.functions.approved(record)}
        if function not in approved:
            raise FunctionMissingError(
                f"{plugin} has no function '{function[:80]}'; it has: {', '.join(sorted(approved))}",
                plugin=plugin,
            )
        longest_s = approved[function].timeout_s
        within_s = longest_s if timeout_s is None else min(timeout_s, longest_s)
        try:
            async with asyncio.timeout(within_s):
                await asyncio.shield(self._begun(plugin))
        except TimeoutError:
            raise CallTimedOutError(
                f"{plugin} rested for want of calls, and did not start within {within_s:g} s", plugin=plugin
            ) from None

    def _begun(self, plugin: str) -> asyncio.Task[None]:
        """The one start that goes on."""
        if (task := self._starting.get(plugin)) is None:
            task = asyncio.create_task(self._start(plugin), name=f"start {plugin}")
            self._starting[plugin] = task
            task.add_done_callback(lambda _: self._starting.pop(plugin))
        return task

    async def _start(self, plugin: str) -> None:
        reconciler = self.reconciler
        async with reconciler.alone_with(plugin):
            async with self.database.transaction() as tx:
                record = await store.find_plugin(tx, plugin)
                if record is not None and _rests(record):
                    # What it requires may have been taken from it while it rested.
                    missing = await self.readiness.missing(tx, record.release)
                    after = State.AWAITING_APPROVAL if missing else State.STARTING
                    await self.states.move_in(tx, record, after, cause=missing or "a call came")
            reconciler.retries.forget(plugin)
            await reconciler.settle(plugin)
        # Whoever wants it to end waits for this, and is to have acted before a caller is told how it stands.
        async with reconciler.alone_with(plugin):
            if self._takes_calls(plugin):
                self._forget(plugin)

    async def _consider(self, plugin: str) -> None:
        instances, now = self.reconciler.fleet.of(plugin), self.monotonic()
        for each in instances:
            if each.sleep.is_asleep and (not each.sleep.is_quiet or each.sleep.heard_at > each.sleep.began):
                await each.sleep.end()  # it was about to speak when it fell asleep
        if not instances or self.reconciler.alone_with(plugin).locked():
            return  # somebody acts on it
        idle_s = {each: self._idle_s(each, now) for each in instances}
        whole = Quiet(state=standing(instances), idle_s=min(idle_s.values()), hears=self._hears(plugin))
        if rest_of(whole, self.policy) is Rest.STOPPED:
            await self._stop(plugin)
            return
        for each in instances:
            quiet = Quiet(state=each.standing, idle_s=idle_s[each])
            if rest_of(quiet, self.policy) is not Rest.AWAKE and not each.sleep.is_asleep:
                await self._doze(each)

    async def _doze(self, instance: Instance) -> None:
        async with self.reconciler.alone_with(instance.plugin):
            if await self._may_rest((instance,)):
                await instance.sleep.begin(lambda: _is_free(instance))

    async def _stop(self, plugin: str) -> None:
        fleet = self.reconciler.fleet
        async with self.reconciler.alone_with(plugin):
            instances = fleet.of(plugin)
            if fleet.parked(plugin) or not await self._may_rest(instances):
                return
            if self._hears(plugin) or not all(map(_is_free, instances)):
                return
            # From here to the closed gates nobody else has a turn: a call is in before, or waits for the next start.
            idle_s = min(self._idle_s(each, self.monotonic()) for each in instances)
            fleet.resting[plugin] = Rested(instances[0].digest, instances[0].offer)
            for each in instances:
                each.gate.close()
            try:
                cause = f"nothing was asked of it for {idle_s:.0f} s: a call starts it"
                await self.states.move(plugin, State.IDLE, cause=cause)
            except BaseException:
                self._forget(plugin)
                self._stale.add(plugin)  # it may be written down, and the answer lost
                for each in instances:
                    fleet.let_in(each)
                raise
            await self.reconciler.settle(plugin)

    async def _may_rest(self, instances: Sequence[Instance]) -> bool:
        """Whether nothing but what is seen of them keeps a plugin's instances awake."""
        name = instances[0].plugin if instances else ""
        async with self.database.reading() as tx:
            record = await store.find_plugin(tx, name)
            upgrade = await upgrade_store.open_one(tx, name)
        if record is None or record.state not in (State.RUNNING, State.THROTTLED):
            return False
        changes = upgrade is not None and upgrade.state is not UpgradeState.AWAITING_APPROVAL
        is_exempt = name in self.policy.awake or record.release.manifest.kind in self.policy.awake_kinds
        if changes or is_exempt:
            # It is looked at again when it would be due again.
            self._busy.update(dict.fromkeys((each.id for each in instances), self.monotonic()))
        return not (changes or is_exempt)

    async def _renew(self, plugin: str) -> None:
        async with self.database.reading() as tx:
            record = await store.find_plugin(tx, plugin)
        rests = record is not None and (plugin in self.reconciler.fleet.resting or _rests(record))
        if record is not None and rests:
            await self._remember(record)

    async def _remember(self, record: PluginRecord) -> None:
        offered = {each.name: each for each in await self.functions.approved(record)}
        self.reconciler.fleet.resting[record.name] = Rested(record.release.digest, Offer(offered))

    def _forget(self, plugin: str) -> None:
        self.reconciler.fleet.resting.pop(plugin, None)

    def _takes_calls(self, plugin: str) -> bool:
        return any(each.gate.is_open for each in self.reconciler.fleet.of(plugin))

    def _hears(self, plugin: str) -> bool:
        return any(name == plugin for name, _, _ in self.bus.subscriptions())

    def _idle_s(self, instance: Instance, now: float) -> float:
        """How long nothing was asked of it, nothing came from it, and it used no processor."""
        if instance.gate.inside or not instance.sleep.is_quiet:
            self._busy[instance.id] = now
        seen = (instance.began, instance.gate.last_at, instance.sleep.heard_at, instance.sleep.woke_at)
        return now - max(*seen, self._busy.get(instance.id, 0.0))


def _rests(record: PluginRecord) -> bool:
    return record.enabled and record.state is State.IDLE


def _is_free(instance: Instance) -> bool:
    """Whether it takes calls and has none, and nothing is open between it and others."""
    gate = instance.gate
    return gate.is_open and not gate.inside and instance.sleep.is_quiet and not instance.lost.is_set()
