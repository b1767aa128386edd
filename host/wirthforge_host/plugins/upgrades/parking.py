"""The instances of the release before: drained, kept frozen, and thawed to serve again within milliseconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from wirthforge_host.plugins.departures import Departures
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.sandbox.control import Control
from wirthforge_host.settings import Settings
from wirthforge_sdk.errors import WirthForgeError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parking:
    """Every method is called by whoever is alone with the plugin."""

    departures: Departures
    control: Control
    settings: Settings

    def put(self, plugin: str, instances: Sequence[Instance]) -> None:
        """From here on calls enter these. Nothing is waited for: whoever calls finds a gate that is open."""
        for each in instances:
            each.paused = False
        for each in self.departures.fleet.replace(plugin, instances):
            each.gate.close()
            each.parked_at = time.monotonic()

    async def park(self, old: Sequence[Instance], new: Sequence[Instance]) -> None:
        """Lets calls inside the old instances end, and freezes them; ends those that are not done in time."""
        drained = asyncio.create_task(self._drained(old))
        ended = [asyncio.create_task(_is_set(each.lost)) for each in new]
        try:
            await asyncio.wait({drained, *ended}, return_when=asyncio.FIRST_COMPLETED)
            stuck = [each for each in old if each.gate.inside] if drained.done() else []
        finally:
            for task in (drained, *ended):
                task.cancel()
        if not old:
            return
        # Those of the release before the one before, and those whose calls do not end.
        fleet = self.departures.fleet
        await self.end([each for each in fleet.parked(old[0].plugin) if each not in old])
        for each in stuck:
            log.warning("plugin.drain_cut", plugin=each.plugin, calls=each.gate.inside)
        await self.end(stuck)
        for each in old:
            if (
                each not in stuck and not each.gate.inside
            ):  # else the new one fell, and it is about to serve again
                await self.freeze(each)

    async def freeze(self, instance: Instance) -> None:
        """Has one that is kept do nothing; one that cannot be kept so is ended."""
        try:
            await self.control.freeze(instance.container_id, instance.pid)
        except WirthForgeError as error:
            log.warning("plugin.not_frozen", plugin=instance.plugin, error=error.message)
            await self.end([instance])
        else:
            instance.paused = True

    async def thawed(self, plugin: str, digest: str, *, like: Sequence[Instance]) -> list[Instance]:
        """What is kept of the release before, as far as it can serve; throttled as those that serve."""
        thawed = []
        share = min((each.cpu_share for each in like), default=1.0)
        for each in self.departures.fleet.parked(plugin):
            if each.lost.is_set() or each.digest != digest:
                continue
            try:
                await self.control.thaw(each.container_id, each.pid)
                if share < 1:
                    await self.control.set_cpus(each.container_id, each.limits.cpus * share, each.pid)
            except WirthForgeError as error:
                log.warning("plugin.not_thawed", plugin=plugin, error=error.message)
                await self.end([each])
            else:
                each.cpu_share = share
                thawed.append(each)
        return thawed

    async def drop_late(self, plugin: str) -> None:
        """Ends what was kept for so long that it is not likely to be wanted any more."""
        since = time.monotonic() - self.settings.rollback_kept_s
        await self.end([each for each in self.departures.fleet.parked(plugin) if each.parked_at <= since])

    async def end(self, instances: Sequence[Instance]) -> None:
        """Ends some that are kept."""
        await self.departures.close(instances)
        for each in instances:
            self.departures.fleet.leave(each)

    async def _drained(self, instances: Sequence[Instance]) -> bool:
        waiting = (each.gate.drained(self.settings.drain_timeout_s) for each in instances)
        return all(await asyncio.gather(*waiting))


async def _is_set(event: asyncio.Event) -> bool:
    return await event.wait()
