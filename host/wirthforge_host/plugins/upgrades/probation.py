"""Has a release that serves on probation test itself, beside its calls and beside whatever an operator does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from wirthforge_host.errors import PluginUnavailableError
from wirthforge_host.plugins.examination import self_test
from wirthforge_host.plugins.instance import Instance
from wirthforge_sdk.contracts.manifest import Health


@dataclass(frozen=True, slots=True)
class _Round:
    """One self-test of each instance."""

    instances: tuple[Instance, ...]
    work: asyncio.Task[str]
    """Why one of them did not pass; empty when all did."""


@dataclass(frozen=True, slots=True)
class Probation:
    """The self-tests at work, by plugin."""

    _rounds: dict[str, _Round] = field(default_factory=dict)

    def passed(
        self, plugin: str, serving: Sequence[Instance], health: Health | None, told: Callable[[], None]
    ) -> str | None:
        """Why one of the instances is not well; empty: all of them passed; None: they are being asked.

        Takes no time: they are asked in a task, which calls ``told`` when it is done.
        """
        if health is None:
            return ""
        made = self._rounds.pop(plugin, None)
        if made is not None and made.instances == tuple(serving):
            if made.work.done():
                return made.work.result()
        elif made is not None:
            made.work.cancel()
            made = None
        if made is None:
            made = _Round(tuple(serving), asyncio.create_task(_tested(serving, health)))
            made.work.add_done_callback(lambda _: told())
        self._rounds[plugin] = made
        return None


async def _tested(instances: Sequence[Instance], health: Health) -> str:
    tests = (self_test(each.session, health, patience_s=_patience_s(each)) for each in instances)
    found = await asyncio.gather(*tests, return_exceptions=True)
    for instance, error in zip(instances, found, strict=True):
        if instance.lost.is_set() or not instance.gate.is_open:
            continue  # found dead, or it was held back meanwhile
        if isinstance(error, PluginUnavailableError):
            return error.message
        if error is not None:
            raise error
    return ""


def _patience_s(instance: Instance) -> float:
    """How much longer one may take that is busy: as long as a call inside may, which it may have to end first."""
    if not instance.gate.inside:
        return 0.0
    return max(function.timeout_s for function in instance.functions.values())
