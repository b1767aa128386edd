"""What is known of an instance's use of the machine at one moment."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

from wirthforge_host.sandbox.cgroup import CgroupLimits, Pressure, Usage

METRICS = (
    "cpus",
    "throttled",
    "memory_bytes",
    "pids",
    "io_read_bytes_per_s",
    "io_written_bytes_per_s",
    "io_operations_per_s",
    "oom_kills",
    "pids_refused",
    "cpu_pressure",
    "memory_pressure",
    "io_pressure",
)
"""What is kept of every sample, in this order (:meth:`Sample.row`)."""


class Disk(NamedTuple):
    """Means over ten rounds or so: disks are read seldom."""

    read_bytes_per_s: float = 0.0
    written_bytes_per_s: float = 0.0
    operations_per_s: float = 0.0


NO_DISK = Disk()


class Sample(NamedTuple):
    """One reading, and the rates since the one before. A tuple: a hundred are made each second."""

    at_s: float
    """Monotonic seconds."""
    interval_s: float
    """Since the reading before."""
    usage: Usage
    pressure: Pressure
    limits: CgroupLimits
    """In force, as the kernel says: a quota that was cut counts as it is now."""
    cpus: float
    """Cores kept busy over the interval."""
    throttled: float
    """Share of the periods in which the quota held it back."""
    memory_bytes: int
    """Held: what the kernel could take back without hurting is not counted."""
    disk: Disk
    oom_kills: int
    """Processes that the kernel ended for memory over the interval."""
    pids_refused: int
    """Forks refused over the interval."""

    @property
    def cpu_share(self) -> float:
        """Of its quota in force; 0 where it has none."""
        return _share(self.cpus, self.limits.cpus)

    @property
    def memory_share(self) -> float:
        """Of its limit."""
        return _share(self.memory_bytes, self.limits.memory_bytes)

    @property
    def pids_share(self) -> float:
        """Of its limit; whole when a fork was refused."""
        return 1.0 if self.pids_refused else _share(self.usage.pids, self.limits.pids)

    def row(self) -> tuple[float, ...]:
        """Its :data:`METRICS`; not a number where the kernel keeps none."""
        cpu, memory, io = self.pressure
        return (
            self.cpus,
            self.throttled,
            self.memory_bytes,
            self.usage.pids,
            *self.disk,
            self.oom_kills,
            self.pids_refused,
            math.nan if cpu is None else cpu,
            math.nan if memory is None else memory,
            math.nan if io is None else io,
        )


Reading: TypeAlias = tuple[float, Usage]
"""When, in monotonic seconds, and what."""


def sample_of(
    now: Reading, before: Reading, *, limits: CgroupLimits, pressure: Pressure, disk: Disk = NO_DISK
) -> Sample:
    """The sample of two readings of the same group, one later than the other."""
    (at_s, usage), (before_s, earlier) = now, before
    interval = at_s - before_s
    periods = usage.periods - earlier.periods
    return Sample(
        at_s,
        interval,
        usage,
        pressure,
        limits,
        (usage.cpu_s - earlier.cpu_s) / interval,
        (usage.throttled_periods - earlier.throttled_periods) / periods if periods > 0 else 0.0,
        max(0, usage.memory_bytes - usage.memory_reclaimable_bytes),
        disk,
        usage.oom_kills - earlier.oom_kills,
        usage.pids_refused - earlier.pids_refused,
    )


def disk_of(now: Reading, before: Reading) -> Disk:
    """The rates between two whole readings of the same group, one later than the other."""
    (at_s, usage), (before_s, earlier) = now, before
    interval = at_s - before_s
    operations = usage.io_reads + usage.io_writes - earlier.io_reads - earlier.io_writes
    return Disk(
        (usage.io_read_bytes - earlier.io_read_bytes) / interval,
        (usage.io_written_bytes - earlier.io_written_bytes) / interval,
        operations / interval,
    )


def _share(used: float, limit: float | None) -> float:
    return used / limit if limit else 0.0
