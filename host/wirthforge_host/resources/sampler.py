"""Reads every instance's control group, round by round, and keeps the newest samples and the present minute."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from struct import Struct
from typing import TypeVar

import structlog

from wirthforge_host.errors import CgroupMissingError
from wirthforge_host.resources.limits import apply_priority
from wirthforge_host.resources.models import METRICS, NO_DISK, Disk, Reading, Sample, disk_of, sample_of
from wirthforge_host.resources.sketch import Sketch
from wirthforge_host.resources.store import Minute
from wirthforge_host.resources.yielding import WELL, Yielding, judged
from wirthforge_host.sandbox.cgroup import Cgroup, CgroupLimits, Pressure
from wirthforge_host.signals import Noticed, Signal, Signals
from wirthforge_sdk.contracts.resources_api import Priority
from wirthforge_sdk.errors import WirthForgeError

KEPT = 300
"""Samples kept of an instance: five minutes at one a second."""
CHUNK = 20
"""Instances read in one turn of the event loop: about a millisecond."""
SELDOM = 10
"""Rounds from one whole reading to the next, with disks, limits and pressure: limits change by us alone, and PSI tells
means of ten seconds."""

NOT_KEPT = Pressure()

T = TypeVar("T")

_log = structlog.get_logger(__name__)


def _open_group(pid: int, container: str) -> Cgroup:
    return Cgroup.of_process(pid, container=container)


class Ring:
    """The newest rows, each a time and :data:`METRICS`, in 31 KB however long it goes on."""

    __slots__ = ("_at", "_filled", "_values")
    _WIDTH = 1 + len(METRICS)
    _ROW = Struct(f"{_WIDTH}d")

    def __init__(self) -> None:
        self._values = array("d", bytes(8 * KEPT * self._WIDTH))
        self._at = 0
        self._filled = 0

    def add(self, at: float, row: tuple[float, ...]) -> None:
        """Keeps a row, in the place of the oldest when there are :data:`KEPT`."""
        self._ROW.pack_into(self._values, self._at * self._ROW.size, at, *row)
        self._at = (self._at + 1) % KEPT
        self._filled = min(KEPT, self._filled + 1)

    def rows(self) -> Iterator[array[float]]:
        """The rows, oldest first."""
        for number in range(self._at - self._filled, self._at):
            start = number % KEPT * self._WIDTH
            yield self._values[start : start + self._WIDTH]


class Tally:
    """One plugin's samples of one minute. An idle plugin's are all the same, and are counted as one."""

    __slots__ = ("_row", "_sketches", "_times")

    def __init__(self) -> None:
        self._sketches = {name: Sketch() for name in METRICS}
        self._row: tuple[float, ...] = ()
        self._times = 0

    def add(self, row: tuple[float, ...]) -> None:
        """Counts a sample's row."""
        if row != self._row:
            self._count()
            self._row = row
        self._times += 1

    def sketches(self) -> dict[str, Sketch]:
        """What was counted, by metric, without those that nothing was known of."""
        self._count()
        return {name: sketch for name, sketch in self._sketches.items() if sketch.count}

    def _count(self) -> None:
        if self._times:
            for sketch, value in zip(self._sketches.values(), self._row, strict=True):
                sketch.add(value, self._times)
        self._times = 0


@dataclass(eq=False, slots=True)
class Watched:
    """One instance, and what was read of it."""

    instance: str
    plugin: str
    container: str
    pid: int
    priority: Priority
    """In force once its group is found."""
    yielding: Yielding = WELL
    group: Cgroup | None = None
    path: str = ""
    """How the group is reached, for people."""
    fault: str | None = "it was not read yet"
    """Why there is no reading, in words; None while there are readings."""
    tried: bool = False
    """Its group was looked for."""
    limits: CgroupLimits | None = None
    pressure: Pressure = NOT_KEPT
    before: Reading | None = None
    whole: Reading | None = None
    """The newest reading of disks too."""
    disk: Disk = NO_DISK
    sample: Sample | None = None
    at: datetime | None = None
    """Of the sample."""
    ring: Ring = field(default_factory=Ring)

    @property
    def source(self) -> str:
        """Where readings come from, for people."""
        return self.path if self.fault is None else f"not readable: {self.fault}"


class Sampler:
    """All instances that are watched. Used from the event loop's thread alone."""

    def __init__(
        self,
        signals: Signals,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        open_group: Callable[[int, str], Cgroup] = _open_group,
    ) -> None:
        self.watched: dict[str, Watched] = {}
        self._signals = signals
        self._now = now
        self._monotonic = monotonic
        self._open_group = open_group
        self._round = 0
        self._minute: datetime | None = None
        self._minutes: dict[str, Tally] = {}

    def watch(self, watched: Watched) -> None:
        """Reads it from the next round on."""
        self.watched[watched.instance] = watched

    def forget(self, instance: str) -> None:
        """Reads it no more; does nothing when it is not watched."""
        watched = self.watched.pop(instance, None)
        if watched is None:
            return
        if watched.group is not None:
            watched.group.close()
        self._signals.notice(
            Signal(noticed=Noticed.CLOSED, plugin=watched.plugin, instance=instance, at_s=self._monotonic())
        )

    def of_plugin(self, plugin: str) -> list[Watched]:
        """The plugin's instances, the newest first."""
        return [each for each in reversed(self.watched.values()) if each.plugin == plugin]

    async def find(self, watched: Watched) -> None:
        """Finds its group now, if it was not found yet."""
        if watched.group is None:
            await self._open(watched)

    async def apart(self, watched: Watched, act: Callable[[Cgroup], T]) -> T:
        """What ``act`` returns, in a thread and on descriptors of its own: it may take long, and the instance may end.

        Raises:
            WirthForgeError: The group is gone or not to be used; or ``act`` raised it.
        """

        def acted() -> T:
            with closing(self._open_group(watched.pid, watched.container)) as group:
                return act(group)

        return await asyncio.to_thread(acted)

    async def round(self) -> list[Minute]:
        """Reads every instance once; returns the minute that has just ended, if one has."""
        ended = self._turned()
        self._round += 1
        for number, watched in enumerate(list(self.watched.values()), start=self._round):
            if number % CHUNK == 0:
                await asyncio.sleep(0)
            seldom = number % SELDOM == 0
            if watched.group is None and (seldom or not watched.tried):
                await self._open(watched)
            if watched.group is not None and watched.instance in self.watched:  # it may have ended meanwhile
                self._read(watched, watched.group, seldom=seldom)
        return ended

    def rest(self) -> list[Minute]:
        """The present minute, as far as it went."""
        return self._taken(self._minute)

    async def _open(self, watched: Watched) -> None:
        """Finds its group, in a thread: this alone reads and writes files that are not the kernel's quick ones."""
        watched.tried = True
        try:
            group, path = await asyncio.to_thread(self._opened, watched)
        except WirthForgeError as error:
            self._failed(watched, error.message, ended=isinstance(error, CgroupMissingError))
            return
        if watched.instance in self.watched:
            watched.group, watched.path = group, path
        else:
            group.close()

    def _opened(self, watched: Watched) -> tuple[Cgroup, str]:
        group = self._open_group(watched.pid, watched.container)
        try:
            if watched.priority is not Priority.NORMAL:
                apply_priority(group, watched.priority)
        except WirthForgeError as error:
            # Readings are worth more than a weight.
            _log.warning("resources.no_priority", plugin=watched.plugin, error=error.message)
        except BaseException:
            group.close()
            raise
        return group, group.path

    def _read(self, watched: Watched, group: Cgroup, *, seldom: bool) -> None:
        try:
            seldom = seldom or watched.before is None
            now = self._monotonic(), group.usage(quick=not seldom)
            if seldom or watched.limits is None:
                watched.limits, watched.pressure = group.limits(), group.pressure()
        except WirthForgeError as error:
            self._failed(watched, error.message, ended=isinstance(error, CgroupMissingError))
            return
        except ValueError as error:
            self._failed(watched, f"the kernel's files have an unknown form ({error})", ended=False)
            return
        if seldom:
            if watched.whole is not None and now[0] > watched.whole[0]:
                watched.disk = disk_of(now, watched.whole)
            watched.whole = now
        before, watched.before, watched.fault = watched.before, now, None
        if before is not None and now[0] > before[0]:
            self._keep(watched, before, now, watched.limits)

    def _keep(self, watched: Watched, before: Reading, now: Reading, limits: CgroupLimits) -> None:
        sample = sample_of(now, before, limits=limits, pressure=watched.pressure, disk=watched.disk)
        watched.sample, watched.at = sample, self._now()
        self._yield(watched, sample)
        row = sample.row()
        watched.ring.add(watched.at.timestamp(), row)
        tally = self._minutes.get(watched.plugin)
        if tally is None:
            tally = self._minutes[watched.plugin] = Tally()
        tally.add(row)
        self._signals.notice(
            Signal(
                noticed=Noticed.SAMPLED,
                plugin=watched.plugin,
                instance=watched.instance,
                at_s=now[0],
                detail={"usage": sample},
            )
        )

    def _yield(self, watched: Watched, sample: Sample) -> None:
        before, watched.yielding = (
            watched.yielding,
            judged(watched.yielding, sample.throttled, sample.interval_s),
        )
        if before.now is watched.yielding.now or watched.group is None:
            return
        try:
            apply_priority(watched.group, watched.priority, yields=watched.yielding.now)
        except WirthForgeError as error:
            # It keeps its quota all the same; only its neighbours feel it more.
            _log.warning("resources.not_yielding", plugin=watched.plugin, error=error.message)

    def _failed(self, watched: Watched, reason: str, *, ended: bool) -> None:
        if reason != watched.fault and not ended:
            _log.warning("resources.not_readable", plugin=watched.plugin, reason=reason)
        # No other source steps in: an operator must see that limits go unwatched.
        watched.fault, watched.before, watched.whole = reason, None, None
        watched.sample, watched.at = None, None

    def _turned(self) -> list[Minute]:
        minute = self._now().replace(second=0, microsecond=0)
        if minute == self._minute:
            return []
        ended, self._minute = self._minute, minute
        return self._taken(ended)

    def _taken(self, minute: datetime | None) -> list[Minute]:
        tallies, self._minutes = self._minutes, {}
        if minute is None:
            return []
        return [Minute(plugin, minute, tally.sketches()) for plugin, tally in tallies.items()]
