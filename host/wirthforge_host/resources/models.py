"""What is known of an instance's use of the machine at one moment."""

from __future__ import annotations

import math
from typing import NamedTuple

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
    io_read_bytes_per_s: float
    io_written_bytes_per_s: float
    io_operations_per_s: float
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
        return (
            self.cpus,
            self.throttled,
            self.memory_bytes,
            self.usage.pids,
            self.io_read_bytes_per_s,
            self.io_written_bytes_per_s,
            self.io_operations_per_s,
            self.oom_kills,
            self.pids_refused,
            *(math.nan if percent is None else percent for percent in self.pressure),
        )


def sample_of(
    usage: Usage, before: Usage, *, at_s: float, before_s: float, limits: CgroupLimits, pressure: Pressure
) -> Sample:
    """The sample of two readings of the same group, ``before_s < at_s``."""
    interval = at_s - before_s
    periods = usage.periods - before.periods
    operations = usage.io_reads + usage.io_writes - before.io_reads - before.io_writes
    return Sample(
        at_s,
        interval,
        usage,
        pressure,
        limits,
        (usage.cpu_s - before.cpu_s) / interval,
        (usage.throttled_periods - before.throttled_periods) / periods if periods > 0 else 0.0,
        max(0, usage.memory_bytes - usage.memory_reclaimable_bytes),
        (usage.io_read_bytes - before.io_read_bytes) / interval,
        (usage.io_written_bytes - before.io_written_bytes) / interval,
        operations / interval,
        usage.oom_kills - before.oom_kills,
        usage.pids_refused - before.pids_refused,
    )


def _share(used: float, limit: float | None) -> float:
    return used / limit if limit else 0.0
