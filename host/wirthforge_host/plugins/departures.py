"""How live instances leave the fleet: drained and stopped, cut off at once, let go for another host, or found dead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from wirthforge_host.plugins.faults import Faults
from wirthforge_host.plugins.fleet import Fleet
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.instances import Instances

CUT_OFF_S = 20.0
"""How long the end of instances may take that cannot be written down."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Departures:
    """Each act is on several instances of one plugin at once, so that it takes no longer than on one."""

    fleet: Fleet
    instances: Instances
    faults: Faults
    drain_s: float

    async def stop(self, instances: Sequence[Instance]) -> None:
        """Lets calls inside end, then ends the instances."""
        for each in instances:
            each.gate.close()
        drained = await asyncio.gather(*(each.gate.drained(self.drain_s) for each in instances))
        for each, is_empty in zip(instances, drained, strict=True):
            if not is_empty:
                log.warning("plugin.drain_cut", plugin=each.plugin, calls=each.gate.inside)
            self.fleet.leave(each)
        await self.close(instances)

    async def found_dead(self, instances: Sequence[Instance]) -> str:
        """Counts them no more; why they ended, in a sentence. What is left of them is still to be closed."""
        for each in instances:
            each.gate.close()
        causes = await asyncio.gather(*map(self.instances.cause_of_death, instances))
        for each in instances:
            self.fleet.leave(each)
        return causes[0]

    async def close(self, instances: Sequence[Instance]) -> None:
        """Removes what is left of them."""
        closed = await asyncio.gather(*map(self.instances.close, instances), return_exceptions=True)
        for failure in closed:
            if failure is not None:
                raise failure

    async def cut_off(self, plugin: str) -> None:
        """Ends all of the plugin's, whatever they do; gives up waiting for that after :data:`CUT_OFF_S`."""
        try:
            async with asyncio.timeout(CUT_OFF_S):
                await self.end(plugin)
        except TimeoutError:
            log.warning("plugin.cut_off_unfinished", plugin=plugin)  # the next sweep takes what is left

    async def end(self, plugin: str) -> None:
        """Ends all of the plugin's, and survives what fails."""
        instances = (*self.fleet.at_work(plugin), *self.fleet.unpark(plugin))
        await self._all(instances, self.instances.close)

    async def let_go(self, plugin: str) -> None:
        """Lets those of the plugin that serve wait for the next start of this host, and ends the others.

        The next host would not take over one of another release than the database names.
        """
        serving = self.fleet.of(plugin)
        await self._all(serving, self.instances.leave)
        await self.end(plugin)

    async def _all(self, instances: Sequence[Instance], act: Callable[[Instance], Awaitable[None]]) -> None:
        for each in instances:
            each.gate.close()
            self.fleet.leave(each)
        await asyncio.gather(*(self.faults.survive(act(each)) for each in instances))
