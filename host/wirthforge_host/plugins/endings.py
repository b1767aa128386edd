"""What follows when instances of a plugin end unasked or do not start: a repair, the release before, another start."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wirthforge_host.audit.records import Outcome
from wirthforge_host.errors import FunctionDriftError, SandboxMismatchError
from wirthforge_host.plugins.departures import Departures
from wirthforge_host.plugins.fleet import Fleet
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.models import PluginRecord
from wirthforge_host.plugins.repairs import Repairs
from wirthforge_host.plugins.retries import Retries
from wirthforge_host.plugins.starts import Starts
from wirthforge_host.plugins.states import States
from wirthforge_host.plugins.upgrades.swap import Swaps
from wirthforge_host.signals import Noticed, Signal, Signals
from wirthforge_sdk.contracts.host_api import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Endings:
    """Every method is called by whoever is alone with the plugin."""

    swaps: Swaps
    repairs: Repairs
    states: States
    signals: Signals
    retries: Retries
    starts: Starts
    wake: Callable[[], None]
    """Has what is wanted looked at again."""

    @property
    def _departures(self) -> Departures:
        return self.swaps.departures

    @property
    def _fleet(self) -> Fleet:
        return self.swaps.fleet

    async def bury(self, lost: Sequence[Instance], serves: PluginRecord | None) -> None:
        """Instances of one plugin ended unasked, which is one crash: goes on with them, or says why and removes them.

        Args:
            lost: Which.
            serves: Their plugin, where it is to serve; None: it is no loss.
        """
        ran_s = time.monotonic() - max(each.began for each in lost)
        try:
            if serves is not None and await self.swaps.failed(serves, lost):
                self.wake()
                return
            again = serves is not None and self.retries.crashed(serves.name, ran_s=ran_s)
            if serves is not None and again:
                lost = await self._repaired(serves, lost)
            cause = await self._departures.found_dead(lost) if lost else ""
            if serves is not None and lost:
                await self._count(serves.name, cause, again=again)
        finally:
            await self._departures.close(lost)

    async def crashed(self, plugin: str, *, cause: str, ran_s: float) -> None:
        """One did not start."""
        await self._count(plugin, cause, again=self.retries.crashed(plugin, ran_s=ran_s))

    async def quarantine(self, plugin: str, error: FunctionDriftError | SandboxMismatchError) -> None:
        """One is not what was approved, or not locked down as asked: nothing of the plugin runs on."""
        if isinstance(error, FunctionDriftError):
            self.signals.notice(_signal(Noticed.DRIFTED, plugin, differences=error.details["differences"]))
        await self.states.move(plugin, State.QUARANTINED, cause=error.message)
        await self._departures.stop(self._fleet.of(plugin))

    async def without_one(self, plugin: str, after: State, *, cause: str) -> None:
        """An instance ended or did not start: the plugin stands so, unless another of its instances is there."""
        if self._fleet.of(plugin):
            await self.states.note(plugin, "instance.missing", Outcome.FAILED, cause=cause)
        else:
            await self.states.move(plugin, after, cause=cause)
        self.wake()

    async def _repaired(self, record: PluginRecord, lost: Sequence[Instance]) -> Sequence[Instance]:
        """Goes on with instances that ended; those of them that are still to be buried."""
        try:
            left = await self.starts.run(record.name, self.repairs.repair(lost, record))
        except FunctionDriftError as error:
            await self.quarantine(record.name, error)
            return ()
        if left == []:
            self.retries.settled(record.name)
        return lost if left is None else left

    async def _count(self, plugin: str, cause: str, *, again: bool) -> None:
        self.signals.notice(_signal(Noticed.CRASHED, plugin, cause=cause))
        await self.without_one(plugin, State.UNHEALTHY if again else State.CRASH_LOOP, cause=cause)


def _signal(noticed: Noticed, plugin: str, **detail: object) -> Signal:
    return Signal(noticed=noticed, plugin=plugin, instance="", at_s=time.monotonic(), detail=detail)
