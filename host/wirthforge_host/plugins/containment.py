"""Holding plugins back: throttled, paused, ended at once, or kept from starting again.

What holds a plugin back takes effect first and is written down after it, so that it also works when nothing can be
written; what lets one go on is written down first. Implements ``resources.ports.Containment``.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.plugins import store
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.lifecycle import WANTS_INSTANCE
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.states import States
from wirthforge_host.sandbox.control import Control
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import ConflictError, InvalidInputError, WirthForgeError
from wirthforge_sdk.serving.database import Database
from wirthforge_sdk.serving.errors import DatabaseUnavailableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Containment:
    """Acts on the live instances of this host. An act on a plugin waits for the one before it; an end does not."""

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
            instance = await self._live(plugin)
            await self.control.set_cpus(instance.container_id, instance.limits.cpus * share)
            instance.cpu_share = share
            await self._write(plugin, "plugin.throttle", instance.standing, cause, actor, share=share)

    async def pause(self, plugin: str, *, cause: str, actor: str) -> None:
        """See the port.

        Raises:
            ConflictError: The plugin has no instance.
            DatabaseUnavailableError: It stands still, and that is not written down.
        """
        async with self.reconciler.alone_with(plugin):
            instance = await self._live(plugin)
            was_open = instance.gate.is_open
            instance.gate.close()
            try:
                await self.control.freeze(instance.container_id)
            except WirthForgeError:
                if was_open:
                    instance.gate.open()
                raise
            instance.paused = True
            await self._write(plugin, "plugin.pause", State.PAUSED, cause, actor)

    async def resume(self, plugin: str, *, cause: str, actor: str) -> None:
        """See the port. One that does not stand still goes on as it is.

        Raises:
            ConflictError: The plugin has no instance.
            DatabaseUnavailableError: It stands still as before.
        """
        async with self.reconciler.alone_with(plugin):
            instance = await self._live(plugin)
            if not instance.paused:
                return
            instance.paused = False
            try:
                await self._write(plugin, "plugin.resume", instance.standing, cause, actor)
                await self.control.thaw(instance.container_id)
            except BaseException:
                instance.paused = True
                raise
            instance.gate.open()
            self.reconciler.let_go(plugin)

    async def kill(self, plugin: str, *, cause: str, actor: str) -> None:
        """See the port. Waits for nobody: whoever is busy with the plugin finds it ended.

        Raises:
            ConflictError: The plugin has no instance.
            DatabaseUnavailableError: It is ended, and that is not written down.
        """
        instance = await self._live(plugin)
        await self._end(instance, cause)
        await self._write(plugin, "plugin.kill", None, cause, actor)

    async def quarantine(self, plugin: str, *, cause: str, actor: str) -> None:
        """See the port. A start in progress is interrupted.

        Raises:
            ConflictError: Nothing of the plugin runs or is about to.
            DatabaseUnavailableError: It is ended, is not started by this process again, and that is not written down.
        """
        instance = self.reconciler.live(plugin)
        if instance is not None:
            await self._end(instance, cause)
        async with self.reconciler.ending(plugin):
            async with self.database.transaction() as tx:
                record = await store.get_plugin(tx, plugin)
                if record.state not in WANTS_INSTANCE | {State.QUARANTINED}:
                    raise _nothing_runs(plugin, record.state, record.cause)
                if record.state is not State.QUARANTINED:
                    await self.states.move_in(tx, record, State.QUARANTINED, cause=cause, actor=actor)
                await self.audit.append(tx, _act("plugin.quarantine", plugin, actor, {"cause": cause}))
            await self.reconciler.settle(plugin)

    async def end_all(self, *, cause: str, actor: str) -> dict[str, str]:
        """Quarantines every plugin that has an instance, all at once.

        Returns:
            For each plugin an empty text, or why it could not be brought about in full.
        """
        names = self.reconciler.living()
        ends = (self.quarantine(name, cause=cause, actor=actor) for name in names)
        done = await asyncio.gather(*ends, return_exceptions=True)
        for failure in done:
            if failure is not None and not isinstance(failure, WirthForgeError):
                raise failure
        return {
            name: failure.message if isinstance(failure, WirthForgeError) else ""
            for name, failure in zip(names, done, strict=True)
        }

    async def _end(self, instance: Instance, cause: str) -> None:
        instance.gate.close()
        instance.ended_for = cause
        await self.control.kill(instance.container_id)

    async def _live(self, plugin: str) -> Instance:
        instance = self.reconciler.live(plugin)
        if instance is None:
            async with self.database.reading() as tx:
                record = await store.get_plugin(tx, plugin)
            raise _nothing_runs(plugin, record.state, record.cause)
        return instance

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


def _act(action: str, plugin: str, actor: str, detail: dict[str, Any]) -> Record:
    return Record(actor=actor, action=action, outcome=Outcome.ALLOWED, plugin=plugin, detail=detail)


def _nothing_runs(plugin: str, state: State, cause: str) -> ConflictError:
    return ConflictError(
        f"{plugin} is {state.replace('_', ' ')} ({cause}): nothing of it runs",
        plugin=plugin,
        state=state.value,
    )
