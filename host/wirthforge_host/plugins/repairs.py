"""Goes on with an instance whose process crashed: process 1 of its sandbox starts another one, which connects here.

What the instance is stays: container, walls, user id, limits, rates, quotas, what it used up of them, how often it
broke the protocol. What connects is examined as at a start, for it is all that is known of what runs there now; that
its process is another one, and how the one before ended, is only the sandbox's word. Each repair counts as a crash.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from wirthforge_host.audit.records import Outcome
from wirthforge_host.errors import PluginUnavailableError
from wirthforge_host.plugins.fleet import Fleet
from wirthforge_host.plugins.instance import Begun, Instance
from wirthforge_host.plugins.instances import Instances
from wirthforge_host.plugins.models import PluginRecord
from wirthforge_host.plugins.states import States
from wirthforge_host.sandbox.control import Control
from wirthforge_host.signals import Noticed, Signal, Signals
from wirthforge_sdk.errors import UnavailableError

CONNECT_S = 3.0
"""How long the next process may take to connect. Process 1 has loaded what it needs: it takes milliseconds."""

log = structlog.get_logger()


def may_come_back(instance: Instance) -> bool:
    """Whether an instance ended by itself; else the host did it, or holds it back."""
    stands_still = instance.paused or instance.sleep.is_asleep
    return not (instance.ended_for or stands_still or instance.endpoint.was_cut)


def ended(crash: int | None, *, was_full: bool) -> str:
    """How a process ended, for people: as it is told by who took its place, where that was.

    Args:
        crash: An exit code, or -n for signal n.
        was_full: The kernel ended a process of the instance because its memory was full.
    """
    if was_full and crash in {None, -signal.SIGKILL}:
        return "it ran out of memory"
    if crash is None:
        return "its connection ended"
    if crash >= 0:
        return f"its process ended with exit code {crash}"
    name = next((each.name for each in signal.Signals if each == -crash), "")
    return f"its process was ended by signal {-crash}{name and f' ({name})'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repairs:
    """The repairs of this host."""

    instances: Instances
    fleet: Fleet
    states: States
    signals: Signals
    control: Control

    async def expect(self, lost: Iterable[Instance]) -> None:
        """Lets instances that ended connect again before it is decided about them: what comes next starts meanwhile."""
        for each in lost:
            each.gate.close()
            if may_come_back(each):
                # Where no socket can be made, none comes back.
                with suppress(UnavailableError):
                    await each.endpoint.reopen()

    async def repair(self, lost: Sequence[Instance], record: PluginRecord) -> Sequence[Instance]:
        """Goes on with instances of one plugin that ended unasked, all at once; those that did not come back.

        Raises:
            FunctionDriftError: One offers other functions than those that were signed and approved.
        """
        done = await asyncio.gather(*(self._repair(each, record) for each in lost), return_exceptions=True)
        for each in done:
            if isinstance(each, BaseException):
                raise each
        return [each for each, is_back in zip(lost, done, strict=True) if not is_back]

    async def _repair(self, instance: Instance, record: PluginRecord) -> bool:
        begun = self.instances.begun_of(instance)
        if begun is None or begun.exited.is_set() or instance.digest != record.release.digest:
            return False
        if not instance.endpoint.listens or not may_come_back(instance):
            return False
        error = self.instances.logs.last_error(instance.plugin, instance.id)
        try:
            await self._greet(instance, begun, record)
        except (PluginUnavailableError, UnavailableError) as failure:
            log.warning("plugin.not_repaired", plugin=instance.plugin, reason=failure.message)
            return False
        instance.repairs += 1
        self.fleet.let_in(instance)
        await self._tell(instance, f"; its last error: {error[:300]}" if error else "")
        return True

    async def _greet(self, instance: Instance, begun: Begun, record: PluginRecord) -> None:
        """The instance speaks by what connects now."""
        before = instance.session
        begun.lost.clear()
        try:
            approved = await self.instances.functions.approved(record)
            instance.session, instance.offer = await self.instances.greet(begun, record, approved, CONNECT_S)
            instance.sleep.follow(instance.session.connection)
            instance.began = time.monotonic()
            await self.instances.functions.begin(instance)
            await instance.session.go_on(before)
        except BaseException:
            begun.lost.set()
            raise

    async def _tell(self, instance: Instance, error: str) -> None:
        kills = await self.control.oom_kills(instance.container_id, instance.pid)
        cause = ended(instance.endpoint.crash, was_full=kills > instance.oom_kills) + error
        instance.oom_kills = kills
        self.signals.notice(
            Signal(
                noticed=Noticed.CRASHED,
                plugin=instance.plugin,
                instance=instance.id,
                at_s=time.monotonic(),
                detail={"cause": cause},
            )
        )
        await self.states.note(
            instance.plugin, "plugin.repaired", Outcome.ALLOWED, instance=instance.id, cause=cause
        )
