"""What the kernel says about a control group, the same for both versions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Read = Callable[[str], str]
"""The text of a file by its name; empty when there is none."""

Writes = tuple[tuple[str, str], ...]
"""Files and what to write into them, in this order."""

NORMAL_SHARES = 1024
"""What v1 gives whoever asks for no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLimits:
    """How much of one block device a group may have each second. None: no limit."""

    device: str
    """``major:minor``."""
    read_bytes_per_s: int | None = None
    write_bytes_per_s: int | None = None
    read_operations_per_s: int | None = None
    write_operations_per_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLimits:
    """The limits in force. None: no limit, or none that the kernel could keep."""

    memory_bytes: int | None
    memory_and_swap_bytes: int | None
    cpu_quota_us: int | None
    cpu_period_us: int
    cpu_weight: int
    """In the kernel's own measure: shares of v1 (2 to 262144, 1024 is normal), weight of v2 (1 to 10000, 100 is)."""
    pids: int | None
    io: tuple[DeviceLimits, ...]
    """Of the devices that have any, ordered by device."""

    @property
    def cpus(self) -> float | None:
        """Cores it may keep busy."""
        return None if self.cpu_quota_us is None else self.cpu_quota_us / self.cpu_period_us


class Usage(NamedTuple):
    """What a group has used so far, and uses now. Counters grow while the group lives.

    A tuple, since a hundred are made each second.
    """

    cpu_s: float
    throttled_s: float
    """How long its threads were held back by the quota, summed over processors."""
    periods: int
    throttled_periods: int
    memory_bytes: int
    """All that is charged to it."""
    memory_reclaimable_bytes: int
    """Of it, file pages not used lately, which the kernel takes back before it refuses anything."""
    memory_peak_bytes: int | None
    """None where the kernel does not keep it (v2 before 5.19)."""
    oom_kills: int
    pids: int
    pids_refused: int
    """Forks that failed because of the limit."""
    io_read_bytes: int
    io_written_bytes: int
    io_reads: int
    io_writes: int


class Pressure(NamedTuple):
    """Percent of the last ten seconds in which some thread waited for a resource; None where PSI is not kept."""

    cpu: float | None = None
    memory: float | None = None
    io: float | None = None


PRESSURE = tuple(f"{resource}.pressure" for resource in Pressure._fields)
"""What :func:`pressure` reads, the same in both versions."""


class Dialect(Protocol):
    """What one version's files say and how it is asked for things; ``version1`` and ``version2`` are such."""

    QUICK: tuple[str, ...]
    USAGE: tuple[str, ...]
    LIMITS: tuple[str, ...]
    NEEDED: tuple[str, ...]

    # What each does is told in the modules.
    def limits(self, read: Read) -> CgroupLimits: ...  # noqa: D102
    def usage(self, read: Read) -> Usage: ...  # noqa: D102
    def cpu(self, quota_us: int | None, period_us: int) -> Writes: ...  # noqa: D102
    def memory(self, limit: int, before: CgroupLimits, files: Collection[str]) -> Writes: ...  # noqa: D102
    def cpu_weight(self, shares: int) -> Writes: ...  # noqa: D102
    def io_weight(self, hundredths: int, files: Collection[str]) -> Writes: ...  # noqa: D102
    def io(self, limits: DeviceLimits) -> Writes: ...  # noqa: D102
    def freeze(self, *, frozen: bool) -> Writes: ...  # noqa: D102
    def is_frozen(self, read: Read) -> bool: ...  # noqa: D102


def weight_of(shares: int) -> int:
    """The weight of v2 for shares of v1, as the OCI runtime specification maps 2..262144 to 1..10000."""
    return 1 + (min(max(shares, 2), 262_144) - 2) * 9_999 // 262_142


def number(text: str, default: int | None = None) -> int | None:
    """The number that a file is; ``default`` when it is empty, None when it says ``max``."""
    text = text.strip()
    if not text:
        return default
    return None if text == "max" else int(text)


def counter(text: str, key: str) -> int:
    """The value after ``key`` in lines of ``key value``; 0 where there is none."""
    start = 0 if text.startswith(key + " ") else text.find(f"\n{key} ") + 1
    if not start and not text.startswith(key + " "):
        return 0
    start += len(key) + 1
    end = text.find("\n", start)
    return int(text[start : end if end >= 0 else len(text)])


def pressure(read: Read) -> Pressure:
    """The pressure that the files say."""
    return Pressure(*(waited(read(name)) for name in PRESSURE))


def waited(text: str) -> float | None:
    """``avg10`` of the ``some`` line of a PSI file (Documentation/accounting/psi.rst)."""
    if not text.startswith("some avg10="):
        return None
    return float(text[11 : text.index(" ", 11)])
