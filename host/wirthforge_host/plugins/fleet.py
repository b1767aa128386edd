"""The live instances of all plugins, and which of a plugin's takes the next call: functions of what the gates say.

The one with the fewest calls inside is chosen, of equals one that is awake, and of these the one that waited longest
since it let a call in. So idle instances take turns, and one whose calls are slow gets fewer of them. That is
join-the-shortest-queue (Winston, "Optimality of the shortest line discipline", 1977). The better of two drawn at
random (Mitzenmacher, "The power of two choices in randomized load balancing", 2001) comes near to it where to ask for
loads is dear. Here they lie in memory and a plugin has few instances: to look at all is as cheap, and better.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wirthforge_host.bridge import Session
from wirthforge_host.plugins.drift import Offer
from wirthforge_host.plugins.instance import Instance
from wirthforge_sdk.contracts.host_api import State

_BEST_FIRST = (State.RUNNING, State.THROTTLED, State.PAUSED)


def least_loaded(instances: Sequence[Instance]) -> Instance | None:
    """The one to call; one that takes no calls just now only where none does, for it says why."""
    if len(instances) == 1:
        return instances[0]  # the most common case: nothing is compared
    return min(instances, key=_order, default=None)


def surplus(instances: Sequence[Instance], most: int) -> list[Instance]:
    """Those to stop so that ``most`` stay: the idlest first, and of equals the newest."""
    by_worth = sorted(instances, key=lambda each: (each.gate.inside, -each.began))
    return by_worth[: max(0, len(instances) - most)]


def standing(instances: Iterable[Instance]) -> State:
    """The state of a plugin that has these, one at least: the best of theirs."""
    return min((each.standing for each in instances), key=_BEST_FIRST.index)


@dataclass(frozen=True, slots=True)
class Rested:
    """A plugin that a call starts."""

    digest: str
    """Of its release."""
    offer: Offer
    """What it offered when something of it ran, or what was approved."""


class Fleet:
    """The live instances of this host. For one event loop; not for threads."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Instance, ...]] = {}
        self._parked: dict[str, tuple[Instance, ...]] = {}
        self._tried: dict[str, Instance] = {}
        self.resting: dict[str, Rested] = {}
        """The plugins that rest, from before their gates close until one is open again."""
        self._opened = asyncio.Event()
        """Set, and replaced, whenever a gate was opened."""

    def of(self, plugin: str) -> tuple[Instance, ...]:
        """The plugin's, in the order in which they joined."""
        return self._of.get(plugin, ())

    def plugins(self) -> list[str]:
        """Every plugin that has an instance that serves, by name."""
        return sorted(self._of)

    def at_work(self, plugin: str) -> tuple[Instance, ...]:
        """The same, and the one of another release that is tried beside them."""
        tried = self._tried.get(plugin)
        return self.of(plugin) if tried is None else (*self.of(plugin), tried)

    def begin_trial(self, instance: Instance) -> None:
        """Lets calls into one of another release that is tried; it is not counted among those that serve."""
        if fellows := self.of(instance.plugin):
            instance.rates = fellows[0].rates
        self._tried[instance.plugin] = instance
        self.let_in(instance)

    def end_trial(self, plugin: str) -> None:
        """None is tried from now on."""
        self._tried.pop(plugin, None)

    def join(self, instance: Instance) -> None:
        """Counts it among its plugin's from now on."""
        fellows = self.of(instance.plugin)
        if fellows:
            # What a function bounds is what it stands for outside, and that is one however many run.
            instance.rates = fellows[0].rates
        self._of[instance.plugin] = (*fellows, instance)

    def leave(self, instance: Instance) -> None:
        """Counts it no more, and keeps it no more; does nothing when it is neither."""
        self._parked[instance.plugin] = tuple(
            each for each in self.parked(instance.plugin) if each is not instance
        )
        if self._tried.get(instance.plugin) is instance:
            self.end_trial(instance.plugin)
        rest = tuple(each for each in self.of(instance.plugin) if each is not instance)
        if rest:
            self._of[instance.plugin] = rest
        else:
            self._of.pop(instance.plugin, None)

    def replace(self, plugin: str, instances: Sequence[Instance]) -> list[Instance]:
        """Lets calls into these from now on, and keeps those that were counted until now, which it returns."""
        before = [each for each in self.of(plugin) if each not in instances]
        kept = [each for each in self.parked(plugin) if each not in instances]
        self._parked[plugin] = (*kept, *before)
        self._of.pop(plugin, None)
        for each in instances:
            self.join(each)
            self.let_in(each)
        return before

    def parked(self, plugin: str) -> tuple[Instance, ...]:
        """The plugin's that were replaced and are not gone: they may take over again."""
        return self._parked.get(plugin, ())

    def unpark(self, plugin: str) -> tuple[Instance, ...]:
        """The same; they are kept no more."""
        return self._parked.pop(plugin, ())

    def let_in(self, instance: Instance) -> None:
        """Opens its gate, and tells those who wait for one."""
        instance.gate.open()
        opened, self._opened = self._opened, asyncio.Event()
        opened.set()

    async def successor(self, plugin: str, ended: Session, timeout_s: float) -> Instance | None:
        """The instance that takes the calls of one whose session ended; None when there is none within ``timeout_s``.

        It may be the same one, with another session.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    others = [each for each in self.of(plugin) if each.session is not ended]
                    found = least_loaded(others)
                    if found is not None and found.gate.is_open and not found.lost.is_set():
                        return found
                    await self._opened.wait()
        return None


def _order(instance: Instance) -> tuple[bool, bool, bool, int, bool, float]:
    gate = instance.gate
    usable = instance.lost.is_set(), not gate.is_open, not gate.has_room
    return *usable, gate.inside, instance.sleep.is_asleep, gate.last_at
