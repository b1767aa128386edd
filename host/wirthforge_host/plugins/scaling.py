"""How many instances of a plugin run: between an operator's bounds, within the policy, by the load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.errors import PolicyViolationError
from wirthforge_host.plugins import store
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.states import States
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.serving.database import Database

LOOK_S = 1.0
"""From one look at the calls inside to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Decides it; the reconciler makes it so."""

    database: Database
    audit: Audit
    states: States
    reconciler: Reconciler
    cap: int
    """The policy's ``cap.instances``."""
    monotonic: Callable[[], float] = time.monotonic

    async def scale(self, name: str, least: int, operator: Operator, *, most: int | None = None) -> None:
        """Has ``least`` to ``most`` instances share the plugin's calls; returns when the least do, or one failed.

        Those that are too many are drained first, the idlest of them.

        Args:
            name: Of the plugin.
            least: That run however few calls there are.
            operator: Who wants it.
            most: That run however many there are; None: always ``least``.

        Raises:
            NotFoundError: It is not on this host.
            PolicyViolationError: It is more than the policy's cap.
        """
        most = least if most is None else most
        if most > self.cap:
            raise PolicyViolationError(
                f"{name} cannot have {most} instances: the policy's rule cap.instances says at most {self.cap}",
                plugin=name,
                rule="cap.instances",
                asked=most,
                most=self.cap,
            )
        async with self.reconciler.alone_with(name):
            async with self.database.transaction() as tx:
                record = await store.get_plugin(tx, name)
                await store.set_scale(tx, name, least, most)
                detail = {"before": f"{record.least}..{record.most}", "after": f"{least}..{most}"}
                await self.audit.append(
                    tx,
                    Record(
                        actor=operator.actor,
                        action="plugin.scale",
                        outcome=Outcome.ALLOWED,
                        plugin=name,
                        detail=detail,
                    ),
                )
            if most == least:
                self.reconciler.numbers.forget(name)
            self.reconciler.retries.forget(name)
            await self.reconciler.settle(name)

    async def run(self) -> None:
        """Follows the load, until cancelled."""
        while True:
            await self.reconciler.faults.survive(self.look())
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """One look at all plugins; a number that changes is told, and made so by the next settlement."""
        fleet, numbers, now_s = self.reconciler.fleet, self.reconciler.numbers, self.monotonic()
        for plugin in numbers.known():
            instances = fleet.of(plugin)
            if not instances:
                numbers.forget(plugin)
            elif _can_follow(instances):
                calls = sum(each.gate.inside for each in instances)
                seen = numbers.see(plugin, calls=calls, there=len(instances), now_s=now_s)
                if seen is not None:
                    before, load = seen
                    told = {"before": str(before), "after": str(load.number), "cause": load.reason}
                    await self.states.note(plugin, "plugin.scaled", Outcome.ALLOWED, **told)
                    self.reconciler.wake()


def _can_follow(instances: tuple[Instance, ...]) -> bool:
    """Whether what is inside tells of the load: not of what stands still, or is of two releases."""
    return len({each.digest for each in instances}) == 1 and all(each.gate.is_open for each in instances)
