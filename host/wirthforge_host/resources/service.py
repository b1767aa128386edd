"""What plugins use and may use: readings, history, an operator's own limits, suggestions."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta

import structlog

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.events import Events
from wirthforge_host.resources import store
from wirthforge_host.resources.limits import (
    Applied,
    apply,
    check_cap,
    effective_limits,
)
from wirthforge_host.resources.recommendation import NEEDED, Suggestion, recommend
from wirthforge_host.resources.sampler import Sampler, Watched
from wirthforge_host.resources.sketch import Sketch, merged
from wirthforge_host.resources.views import History, figures_of, history_of, recent_of, usage_of
from wirthforge_host.resources.yielding import WELL
from wirthforge_host.sandbox.cgroup import Cgroup
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.policy import SecurityPolicy
from wirthforge_sdk.contracts.resources import Limits
from wirthforge_sdk.contracts.resources_api import (
    LimitedOut,
    PluginResourcesOut,
    Priority,
    RecommendationsOut,
    ResourcesIn,
    SuggestionOut,
    UsagesOut,
)
from wirthforge_sdk.errors import ConflictError, WirthForgeError
from wirthforge_sdk.serving.database import Database, Transaction

UNWRITTEN = 60
"""Minutes that may wait for the database."""
LOOK_BACK = timedelta(days=7)
"""What suggestions are made of."""

_log = structlog.get_logger(__name__)


class Resources:
    """The resource service. Whoever opens and closes instances says so with :meth:`watch` and :meth:`forget`."""

    def __init__(
        self,
        database: Database,
        audit: Audit,
        events: Events,
        policy: SecurityPolicy,
        sampler: Sampler,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._audit = audit
        self._events = events
        self._policy = policy
        self._sampler = sampler
        self._now = now
        self._sampled = asyncio.Condition()
        self._unwritten: asyncio.Queue[Sequence[store.Minute]] = asyncio.Queue(UNWRITTEN)

    def watch(
        self,
        instance: str,
        *,
        plugin: str,
        container: str,
        pid: int,
        priority: Priority = Priority.NORMAL,
    ) -> None:
        """From the next round on the instance is read.

        Args:
            instance: Its id.
            plugin: Whose it is.
            container: The engine's id, after which its control group is named.
            pid: Of the container's first process, as the engine says it.
            priority: In force once its group is found.
        """
        self._sampler.watch(Watched(instance, plugin, container, pid, priority))

    def forget(self, instance: str) -> None:
        """The instance is closed; nothing of it is read any more."""
        self._sampler.forget(instance)

    async def run(self) -> None:
        """Reads all instances once a period and writes each minute down, until it is cancelled."""
        writing = asyncio.create_task(self._write(), name="resource history")
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while True:
                try:
                    await self.sample()
                except Exception as error:  # noqa: BLE001 (who watches must not go blind for one fault of ours)
                    _log.error("resources.round_failed", fault=repr(error))
                due = max(due + self._policy.monitoring.period_s, loop.time())
                await asyncio.sleep(due - loop.time())
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await self.flush()

    async def sample(self) -> None:
        """One round."""
        ended = await self._sampler.round()
        if ended and self._unwritten.full():
            _log.warning("resources.minute_lost", plugins=len(ended), error="the database takes none")
        elif ended:
            self._unwritten.put_nowait(ended)
        async with self._sampled:
            self._sampled.notify_all()

    async def flush(self) -> None:
        """Writes every minute down, also the present one as far as it went."""
        while not self._unwritten.empty():
            await self._keep(self._unwritten.get_nowait())
        await self._keep(self._sampler.rest())

    def usages(self) -> UsagesOut:
        """The newest reading of every instance, by plugin."""
        found = sorted(self._sampler.watched.values(), key=lambda each: (each.plugin, each.instance))
        return UsagesOut(items=[usage_of(each) for each in found])

    def figures(self) -> dict[str, dict[str, float]]:
        """The newest readings of every plugin, those of its instances summed, for Prometheus."""
        sums: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        for each in self._sampler.watched.values():
            of_plugin = sums[each.plugin]
            for name, value in figures_of(each).items():
                of_plugin[name] += value
        return {plugin: dict(figures) for plugin, figures in sums.items()}

    async def rounds(self) -> AsyncIterator[UsagesOut]:
        """The newest readings after each round, as fast as they are asked for: who is slow misses rounds."""
        while True:
            async with self._sampled:
                await self._sampled.wait()
            yield self.usages()

    async def of_plugin(self, plugin: str, base: Limits, *, minutes: int) -> PluginResourcesOut:
        """All about one plugin; ``base`` is what its release asks for."""
        since = self._now() - timedelta(minutes=minutes)
        async with self._database.reading() as tx:
            override = await store.override_of(tx, plugin)
            packed = await store.packed_minutes(tx, plugin, since=since)
        history = await asyncio.to_thread(_unpacked, packed)
        watched = self._sampler.of_plugin(plugin)
        newest = watched[0] if watched else None
        return PluginResourcesOut(
            plugin=plugin,
            limits=effective_limits(base, override),
            override=override,
            now=None if newest is None else usage_of(newest),
            instances=[usage_of(each) for each in reversed(watched)],
            recent=recent_of([] if newest is None else newest.ring.rows()),
            history=await asyncio.to_thread(history_of, history),
        )

    async def limits_of(self, plugin: str, base: Limits) -> tuple[Limits, Priority]:
        """What its next instance may use; ``base`` is what its release asks for."""
        async with self._database.reading() as tx:
            override = await store.override_of(tx, plugin)
        # The policy may have been narrowed since it was set.
        check_cap(plugin, override, self._policy.cap)
        return effective_limits(base, override), override.priority

    async def limit(self, plugin: str, base: Limits, override: ResourcesIn, operator: Operator) -> LimitedOut:
        """Replaces the operator's own limits of a plugin, and puts them in force on a running instance.

        Raises:
            PolicyViolationError: One is above the policy's cap.
        """
        check_cap(plugin, override, self._policy.cap)
        async with self._database.transaction() as tx:
            before = effective_limits(base, await store.override_of(tx, plugin))
            await self._replace(tx, plugin, override, operator)
        limits = effective_limits(base, override)
        applied = await self._applied(plugin, before, limits, override.priority)
        self._events.emit(
            "resource.limits", plugin=plugin, **override.model_dump(mode="json", exclude_none=True)
        )
        return LimitedOut(
            plugin=plugin,
            limits=limits,
            override=override,
            applied=list(applied.now),
            at_next_start=list(applied.at_next_start),
        )

    async def recommendations(self, plugin: str, base: Limits) -> RecommendationsOut:
        """What fits the plugin, by what it used in the last week."""
        used, suggestions, _ = await self._suggested(plugin, base)
        return RecommendationsOut(
            plugin=plugin,
            samples=used["cpus"].count if "cpus" in used else 0,
            needed=NEEDED,
            items=[SuggestionOut(**each._asdict()) for each in suggestions],
        )

    async def follow_recommendations(self, plugin: str, base: Limits, operator: Operator) -> LimitedOut:
        """Makes all that is suggested now the operator's own limits, beside those there are.

        Raises:
            ConflictError: Nothing is suggested.
        """
        _, suggestions, override = await self._suggested(plugin, base)
        if not suggestions:
            raise ConflictError(
                f"there is nothing to suggest for {plugin}: its limits fit, or it ran for less than {NEEDED} samples",
                plugin=plugin,
            )
        wanted = override.model_copy(
            update={
                each.limit: each.suggested if each.limit == "cpus" else int(each.suggested)
                for each in suggestions
            }
        )
        return await self.limit(plugin, base, wanted, operator)

    async def remove(self, tx: Transaction, plugin: str) -> None:
        """Forgets a plugin's history and limits, within the transaction that removes it."""
        await store.remove_plugin(tx, plugin)

    async def _applied(self, plugin: str, before: Limits, limits: Limits, priority: Priority) -> Applied:
        watched = self._sampler.of_plugin(plugin)
        applied = [await self._applied_to(each, before, limits, priority) for each in watched]
        # In force is what is so for each.
        now = [
            name for name in (applied[0].now if applied else ()) if all(name in each.now for each in applied)
        ]
        later = {name: None for each in applied for name in each.at_next_start}
        return Applied(tuple(now), tuple(later))

    async def _applied_to(
        self, watched: Watched, before: Limits, limits: Limits, priority: Priority
    ) -> Applied:
        await self._sampler.find(watched)
        if watched.group is None:
            return Applied((), ())

        def act(group: Cgroup) -> Applied:
            # What throttles it goes on doing so, of the new quota.
            in_force = group.limits().cpus or before.cpus
            share = min(1.0, max(0.01, round(in_force / before.cpus, 2)))
            return apply(group, limits, priority, share=share)

        # Whether it yields is judged anew: its quota is another.
        watched.priority, watched.yielding = priority, WELL
        try:
            return await self._sampler.apart(watched, act)
        except WirthForgeError as error:
            _log.warning("resources.not_applied", plugin=watched.plugin, error=error.message)
            return Applied((), tuple(limits.model_dump()))
        finally:
            watched.limits = None  # read anew in the next round

    async def _replace(self, tx: Transaction, plugin: str, override: ResourcesIn, operator: Operator) -> None:
        await store.set_override(tx, plugin, override, self._now())
        record = Record(
            actor=operator.actor,
            action="resource.limit",
            outcome=Outcome.ALLOWED,
            plugin=plugin,
            detail=override.model_dump(mode="json", exclude_none=True),
        )
        await self._audit.append(tx, record)

    async def _suggested(
        self, plugin: str, base: Limits
    ) -> tuple[dict[str, Sketch], list[Suggestion], ResourcesIn]:
        async with self._database.reading() as tx:
            override = await store.override_of(tx, plugin)
            packed = await store.packed_minutes(tx, plugin, since=self._now() - LOOK_BACK)
        used = await asyncio.to_thread(_summed, packed)
        return used, recommend(used, effective_limits(base, override), self._policy.cap), override

    async def _write(self) -> None:
        while True:
            await self._keep(await self._unwritten.get())

    async def _keep(self, minutes: Sequence[store.Minute]) -> None:
        if not minutes:
            return
        keep = timedelta(hours=self._policy.monitoring.keep_hours)
        try:
            async with self._database.transaction() as tx:
                await store.add_minutes(tx, minutes)
                await store.remove_minutes(tx, before=self._now() - keep)
        except WirthForgeError as error:
            # A minute of history is not worth holding up readings for.
            _log.warning("resources.minute_lost", plugins=len(minutes), error=error.message)


def _unpacked(packed: Sequence[tuple[datetime, bytes]]) -> History:
    return [(at, store.unpacked(metrics)) for at, metrics in packed]


def _summed(packed: Sequence[tuple[datetime, bytes]]) -> dict[str, Sketch]:
    minutes = [store.unpacked(metrics) for _, metrics in packed]
    names = {name for minute in minutes for name in minute}
    return {name: merged(minute[name] for minute in minutes if name in minute) for name in names}
