"""Holding plugins back: throttled, paused, ended at once, or kept from starting again.

What holds a plugin back takes effect first and is written down after it, so that it also works when nothing can be
written; what lets one go on is written down first. Implements ``resources.ports.Containment``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.plugins import store
from wirthforge_host.plugins.fleet import standing
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.lifecycle import MAY_RUN
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.states import States
from wirthforge_host.sandbox.control import Control
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import ConflictError, InvalidInputError, UnavailableError, WirthForgeError
from wirthforge_sdk.serving.database import Database
from wirthforge_sdk.serving.errors import DatabaseUnavailableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Containment:
    """Acts on all live instances of a plugin at once.

    An act on a plugin waits for the one before it; an end does not.
    """

    database: Database
    audit: Audit
    states: States
    reconciler: Reconciler
    control: Control

    async def throttle(self, plugin: str, *, share: float, cause: str, actor: str) -> None:
        """See the port.

        Raises:
            InvalidInputError: ``share`` is none.
            ConflictError: The plugin has no instance.
            DatabaseUnavailableError: It is in force, and not written down.
        """
        if not 0 < share <= 1:
            raise InvalidInputError(f"share: {share} is not above 0 and at most 1", field="share")
        async with self.reconciler.alone_with(plugin):
            instances = await self._live(plugin)
            await _on_all(instances, lambda instance: self._throttle(instance, share))
            await self._write(plugin, "plugin.throttle", standing(instances), cause, actor, share=share)

    async def pause(self, plugin: str, *, cause: str, actor: str) -> None:
        """See the port.

        Raises:
            ConflictError: The plugin has no instance.
            DatabaseUnavailableError: It stands still, and that is not written down.
        """
        async with self.reconciler.alone_with(plugin):
            await _on_all(await self._live(plugin), self._freeze)
            await self._write(plugin, "plugin.pause", State.PAUSED, cause, actor)
        self.reconciler.wake()  # what is tried beside them ends by this

    async def resume(self, plugin: str, *, cause: str, actor: str) -> None:
        """See the port. One that does not stand still goes on as it is; one that ended meanwhile is started.

        Raises:
            ConflictError: The plugin has no instance.
            DatabaseUnavailableError: It stands still as before.
        """
        async with self.reconciler.alone_with(plugin):
            if self.reconciler.live(plugin) is None and await self._start_again(plugin, cause, actor):
                return
            instances = await self._live(plugin)
            paused = [each for each in instances if each.paused]
            if not paused:
                return
            for each in paused:
                each.paused = False
            try:
                await self._write(plugin, "plugin.resume", standing(instances), cause, actor)
            except BaseException:
                for each in paused:
                    each.paused = True
                raise
            await _on_all(paused, self._thaw)
            self.reconciler.let_go(plugin)
            self.reconciler.wake()

    async def kill(self, plugin: str, *, cause: str, actor: str) -> None:
        """See the port. Waits for nobody: whoever is busy with the plugin finds it ended.

        Raises:
            ConflictError: The plugin has no instance.
            DatabaseUnavailableError: It is ended, and that is not written down.
        """
        instances = self.reconciler.fleet.at_work(plugin) or await self._live(plugin)
        await _on_all(instances, lambda instance: self._end(instance, cause))
        # What was paused is to start again all the same: that is what was asked for.
        was_paused = standing(instances) is State.PAUSED
        for each in instances:
            each.paused = False
        await self._write(plugin, "plugin.kill", standing(instances) if was_paused else None, cause, actor)
        self.reconciler.wake()

    async def quarantine(self, plugin: str, *, cause: str, actor: str) -> None:
        """See the port. A start in progress is interrupted.

        Raises:
            ConflictError: Nothing of the plugin runs or is about to.
            DatabaseUnavailableError: It is ended, is not started by this process again, and that is not written down.
        """
        # An engine that does not answer is no reason not to write it down, and to let nothing start again.
        with suppress(UnavailableError):
            fleet = self.reconciler.fleet
            at_work = (*fleet.at_work(plugin), *fleet.parked(plugin))
            await _on_all(at_work, lambda instance: self._end(instance, cause))
        async with self.reconciler.ending(plugin):
            async with self.database.transaction() as tx:
                record = await store.get_plugin(tx, plugin)
                if record.state not in MAY_RUN | {State.QUARANTINED}:
                    raise _nothing_runs(plugin, record.state, record.cause)
                if record.state is not State.QUARANTINED:
                    await self.states.move_in(tx, record, State.QUARANTINED, cause=cause, actor=actor)
                await self.audit.append(tx, _act("plugin.quarantine", plugin, actor, {"cause": cause}))
            await self.reconciler.settle(plugin)

    async def end_all(self, *, cause: str, actor: str) -> dict[str, str]:
        """Quarantines every plugin that has an instance or is about to, all at once.

        Returns:
            For each plugin an empty text, or why it could not be brought about in full.
        """
        names = sorted({*self.reconciler.fleet.plugins(), *await self._wanted()})
        ends = (self.quarantine(name, cause=cause, actor=actor) for name in names)
        done = await asyncio.gather(*ends, return_exceptions=True)
        for failure in done:
            if failure is not None and not isinstance(failure, WirthForgeError):
                raise failure
        return {
            name: failure.message if isinstance(failure, WirthForgeError) else ""
            for name, failure in zip(names, done, strict=True)
        }

    async def _wanted(self) -> list[str]:
        """Every plugin that is about to have an instance, as far as the database can tell."""
        try:
            async with self.database.reading() as tx:
                records = await store.all_plugins(tx)
        except UnavailableError:
            return []  # those that live are ended all the same
        return [each.name for each in records if each.enabled and each.state in MAY_RUN]

    async def _start_again(self, plugin: str, cause: str, actor: str) -> bool:
        """Starts a plugin that was paused when its instance ended; whether it was."""
        async with self.database.transaction() as tx:
            record = await store.get_plugin(tx, plugin)
            if record.state is not State.PAUSED:
                return False
            await self.states.move_in(tx, record, State.UNHEALTHY, cause=cause, actor=actor)
            await self.audit.append(tx, _act("plugin.resume", plugin, actor, {"cause": cause}))
        self.reconciler.retries.forget(plugin)
        self.reconciler.let_go(plugin)
        await self.reconciler.settle(plugin)
        return True

    async def _throttle(self, instance: Instance, share: float) -> None:
        await self.control.set_cpus(instance.container_id, instance.limits.cpus * share, instance.pid)
        instance.cpu_share = share

    async def _freeze(self, instance: Instance) -> None:
        was_open, was_paused = instance.gate.is_open, instance.paused
        instance.gate.close()
        # Before it does: who gives up waiting cannot know whether it stands still, and it can be resumed then.
        instance.paused = True
        try:
            await instance.sleep.stand_still()
        except WirthForgeError:
            instance.paused = was_paused
            if was_open:
                instance.gate.open()
            raise

    async def _thaw(self, instance: Instance) -> None:
        try:
            await instance.sleep.go_on()
        except BaseException:
            instance.paused = True
            raise
        self.reconciler.fleet.let_in(instance)

    async def _end(self, instance: Instance, cause: str) -> None:
        was_open = instance.gate.is_open
        instance.gate.close()
        instance.ended_for = cause
        try:
            await self.control.kill(instance.container_id, instance.pid)
        except WirthForgeError:
            # It goes on, then, and what it dies of later is not this.
            instance.ended_for = ""
            if was_open:
                instance.gate.open()
            raise

    async def _live(self, plugin: str) -> Sequence[Instance]:
        """Its instances, one at least that serves."""
        instances = self.reconciler.fleet.at_work(plugin)
        if not self.reconciler.fleet.of(plugin):
            async with self.database.reading() as tx:
                record = await store.get_plugin(tx, plugin)
            raise _nothing_runs(plugin, record.state, record.cause)
        return instances

    async def _write(
        self, plugin: str, action: str, after: State | None, cause: str, actor: str, **detail: Any
    ) -> None:
        try:
            async with self.database.transaction() as tx:
                record = await store.get_plugin(tx, plugin)
                if after is not None and record.state is not after:
                    await self.states.move_in(tx, record, after, cause=cause, actor=actor)
                await self.audit.append(tx, _act(action, plugin, actor, {"cause": cause, **detail}))
        except DatabaseUnavailableError as error:
            raise DatabaseUnavailableError(
                f"{action} of {plugin} is not written down, for the database does not answer: repeat it when it does",
                plugin=plugin,
            ) from error


async def _on_all(instances: Sequence[Instance], act: Callable[[Instance], Awaitable[None]]) -> None:
    """Does ``act`` to every instance at once, however the others fare; then raises what failed first."""
    for failure in await asyncio.gather(*map(act, instances), return_exceptions=True):
        if failure is not None:
            raise failure


def _act(action: str, plugin: str, actor: str, detail: dict[str, Any]) -> Record:
    return Record(actor=actor, action=action, outcome=Outcome.ALLOWED, plugin=plugin, detail=detail)


def _nothing_runs(plugin: str, state: State, cause: str) -> ConflictError:
    return ConflictError(
        f"{plugin} is {state.replace('_', ' ')} ({cause}): nothing of it runs",
        plugin=plugin,
        state=state.value,
    )
