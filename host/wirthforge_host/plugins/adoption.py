"""What a host finds at work when it starts: instances of the one before it, which was killed or let them go.

Each is looked at: whether it is wanted, runs, and is exactly what a start would make now. One that is goes on where it
was, and its plugin never learns more than that it has another host. Every other is removed, and started anew.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.errors import FunctionDriftError, PluginUnavailableError, SandboxMismatchError
from wirthforge_host.events import Events
from wirthforge_host.plugins import store
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.instances import Instances
from wirthforge_host.plugins.lifecycle import HAS_INSTANCE
from wirthforge_host.plugins.models import NOBODY, InstanceRecord, PluginRecord
from wirthforge_host.plugins.states import HOST
from wirthforge_host.sandbox.control import Control
from wirthforge_host.sandbox.models import LABEL_INSTANCE, ContainerState
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import ConflictError, NotFoundError
from wirthforge_sdk.serving.database import Database

ADOPTABLE = HAS_INSTANCE | {State.STARTING}
"""Of what is unhealthy nothing runs that was ever found well."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """An instance that a host before this one began, and what there is of it."""

    instance: InstanceRecord
    plugin: PluginRecord | None
    container: ContainerState | None


def left(
    instances: Sequence[InstanceRecord], plugins: Iterable[PluginRecord], containers: Iterable[ContainerState]
) -> list[Left]:
    """The instances that are written down, each with its plugin and container; the newest first."""
    by_name = {record.name: record for record in plugins}
    by_instance = {state.labels.get(LABEL_INSTANCE): state for state in containers}
    return [
        Left(instance=each, plugin=by_name.get(each.plugin), container=by_instance.get(each.id))
        for each in sorted(instances, key=lambda each: (each.started_at, each.id), reverse=True)
    ]


def objection(found: Left, *, has_room: bool) -> str | None:
    """Why an instance cannot be gone on with, as far as records tell; None when it may be tried.

    Args:
        found: The instance.
        has_room: Its plugin is to have more instances than it has.
    """
    plugin, container = found.plugin, found.container
    if plugin is None:
        return "its plugin is not on this host any more"
    if not plugin.enabled or plugin.state not in ADOPTABLE:
        return f"it is not wanted: its plugin is {plugin.state.replace('_', ' ')}"
    if found.instance.digest != plugin.release.digest:
        return "it is of another release"
    if not has_room:
        return "its plugin has as many instances as it is to have"
    if container is None:
        return "its container is gone"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """Takes over what a host before this one left."""

    database: Database
    instances: Instances
    control: Control
    audit: Audit
    events: Events

    async def left(self) -> dict[str, list[Left]]:
        """By plugin, what there is of instances that are not of this process; the newest first.

        Raises:
            UnavailableError: The engine or the database does not answer.
        """
        recorded = await self.instances.roster.recorded()
        own = {each.id for each in self.instances.begun()}
        # What was nobody's waited for the host that is gone, and goes with the next sweep.
        if not (recorded := [each for each in recorded if each.id not in own and each.plugin != NOBODY]):
            return {}
        async with self.database.reading() as tx:
            plugins = await store.all_plugins(tx)
        containers = await self.instances.sandboxes.running()
        by_plugin: defaultdict[str, list[Left]] = defaultdict(list)
        for each in left(recorded, plugins, containers):
            by_plugin[each.instance.plugin].append(each)
        return dict(by_plugin)

    async def take_over(self, found: Left, *, has_room: bool, on_lost: Callable[[], None]) -> Instance | None:
        """The instance, ready for calls, standing as it stood; None when it does not fit, which is on record.

        Raises:
            FunctionDriftError: It offers other functions than those that were signed and approved.
            UnavailableError: The engine or the database does not answer; nothing was decided.
        """
        reason = objection(found, has_room=has_room)
        if reason is None:
            try:
                instance = await self._adopted(found, on_lost)
            except (ConflictError, NotFoundError, SandboxMismatchError, PluginUnavailableError) as error:
                reason = error.message
            except FunctionDriftError as error:
                await self._record(found, Outcome.DENIED, error.message)
                raise
            else:
                await self._record(found, Outcome.ALLOWED, "")
                return instance
        await self._record(found, Outcome.FAILED, reason)
        return None

    def announce(self, instance: Instance) -> None:
        """Tells listeners that an instance takes calls again."""
        self.events.emit("instance.adopted", plugin=instance.plugin, instance=instance.id)

    async def _adopted(self, found: Left, on_lost: Callable[[], None]) -> Instance:
        plugin, container = found.plugin, found.container
        assert plugin is not None and container is not None  # noqa: S101, PT018 (objection() looked)
        if container.running:
            # It cannot greet while it stands still; how it got there is the record's to say, not the kernel's.
            await self.control.thaw(container.id)
        instance = await self.instances.adopt(plugin, found.instance, container, on_lost=on_lost)
        try:
            if plugin.state is State.PAUSED:
                await self.control.freeze(container.id)
                instance.paused = True
        except BaseException:
            await asyncio.shield(self.instances.leave(instance))
            raise
        return instance

    async def _record(self, found: Left, outcome: Outcome, reason: str) -> None:
        detail = {"instance": found.instance.id, "digest": found.instance.digest, "uid": found.instance.uid}
        if reason:
            detail["reason"] = reason
            log.warning("instance.not_adopted", plugin=found.instance.plugin, reason=reason)
        await self.audit.enqueue(
            Record(
                actor=HOST,
                action="instance.adopt",
                outcome=outcome,
                plugin=found.instance.plugin,
                detail=detail,
            )
        )
