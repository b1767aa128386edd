"""Files of cgroup v1 (Documentation/admin-guide/cgroup-v1)."""

from __future__ import annotations

from collections.abc import Collection

from wirthforge_host.sandbox.cgroup.models import (
    NORMAL_SHARES,
    CgroupLimits,
    DeviceLimits,
    Read,
    Usage,
    Writes,
    counter,
    number,
)

NO_LIMIT = 1 << 62
"""Above any memory: the kernel prints its largest count of pages, in bytes, for none."""

QUICK = (
    "cpuacct.usage",
    "cpu.stat",
    "memory.usage_in_bytes",
    "memory.oom_control",
    "pids.current",
    "pids.events",
)
"""What tells within a second that something goes wrong, a microsecond each; first what changes with all others."""
USAGE = (
    *QUICK,
    "memory.stat",
    "memory.max_usage_in_bytes",
    "blkio.throttle.io_service_bytes_recursive",
    "blkio.throttle.io_serviced_recursive",
)
"""All of it: three times the work, for what changes little, or only adds up."""
NEEDED = (*QUICK[:-1], "memory.stat")
"""Without these there is no usage."""

_THROTTLES = {
    "read_bytes_per_s": "blkio.throttle.read_bps_device",
    "write_bytes_per_s": "blkio.throttle.write_bps_device",
    "read_operations_per_s": "blkio.throttle.read_iops_device",
    "write_operations_per_s": "blkio.throttle.write_iops_device",
}
LIMITS = (
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "cpu.shares",
    "pids.max",
    *_THROTTLES.values(),
)
"""What :func:`limits` reads."""
_IO_WEIGHTS = ("blkio.weight", "blkio.bfq.weight")


def limits(read: Read) -> CgroupLimits:
    """The limits that the files say."""
    quota = number(read("cpu.cfs_quota_us"), -1)
    devices: dict[str, dict[str, int]] = {}
    for field, name in _THROTTLES.items():
        for line in read(name).splitlines():
            device, rate = line.split()
            devices.setdefault(device, {})[field] = int(rate)
    return CgroupLimits(
        memory_bytes=_bytes(read("memory.limit_in_bytes")),
        memory_and_swap_bytes=_bytes(read("memory.memsw.limit_in_bytes")),
        cpu_quota_us=quota if quota is not None and quota >= 0 else None,
        cpu_period_us=number(read("cpu.cfs_period_us"), 100_000) or 100_000,
        cpu_weight=number(read("cpu.shares"), NORMAL_SHARES) or NORMAL_SHARES,
        pids=number(read("pids.max")),
        io=tuple(DeviceLimits(device=device, **rates) for device, rates in sorted(devices.items())),
    )


def usage(read: Read) -> Usage:
    """The usage that the files say."""
    cpu = read("cpu.stat")
    read_bytes, written_bytes = _io(read("blkio.throttle.io_service_bytes_recursive"))
    reads, writes = _io(read("blkio.throttle.io_serviced_recursive"))
    return Usage(
        int(read("cpuacct.usage")) / 1e9,
        counter(cpu, "throttled_time") / 1e9,
        counter(cpu, "nr_periods"),
        counter(cpu, "nr_throttled"),
        int(read("memory.usage_in_bytes")),
        counter(read("memory.stat"), "total_inactive_file"),
        number(read("memory.max_usage_in_bytes")),
        counter(read("memory.oom_control"), "oom_kill"),
        int(read("pids.current")),
        counter(read("pids.events"), "max"),
        read_bytes,
        written_bytes,
        reads,
        writes,
    )


def cpu(quota_us: int | None, period_us: int) -> Writes:
    """Sets the quota of each period."""
    return (
        ("cpu.cfs_period_us", str(period_us)),
        ("cpu.cfs_quota_us", "-1" if quota_us is None else str(quota_us)),
    )


def memory(limit: int, before: CgroupLimits, files: Collection[str]) -> Writes:
    """Sets the limit, swap included. The one without swap may never be above it, which says which goes first."""
    both = (("memory.limit_in_bytes", str(limit)), ("memory.memsw.limit_in_bytes", str(limit)))
    if both[1][0] not in files:
        return both[:1]
    grows = before.memory_and_swap_bytes is not None and limit > before.memory_and_swap_bytes
    return both[::-1] if grows else both


def cpu_weight(shares: int) -> Writes:
    """Sets the weight among its siblings."""
    return (("cpu.shares", str(shares)),)


def io_weight(hundredths: int, files: Collection[str]) -> Writes:
    """Sets the weight of its requests; 100 is normal. Nothing where the kernel has none."""
    return tuple((name, str(min(max(hundredths, 10), 1000))) for name in _IO_WEIGHTS if name in files)


def io(limits: DeviceLimits) -> Writes:
    """Sets the rates of one device; 0 takes one away."""
    return tuple(
        (name, f"{limits.device} {getattr(limits, field) or 0}") for field, name in _THROTTLES.items()
    )


def freeze(*, frozen: bool) -> Writes:
    """Asks for one of the two states."""
    return (("freezer.state", "FROZEN" if frozen else "THAWED"),)


def is_frozen(read: Read) -> bool:
    """Whether every process stands still; also by an ancestor's freeze."""
    return read("freezer.state").strip() == "FROZEN"


def _bytes(text: str) -> int | None:
    value = number(text)
    return value if value is not None and value < NO_LIMIT else None


def _io(text: str) -> tuple[int, int]:
    """Sums of the reads and the writes over lines of ``device operation count``."""
    reads = writes = 0
    for line in text.splitlines():
        parts = line.split()
        if parts[1] == "Read":
            reads += int(parts[2])
        elif parts[1] == "Write":
            writes += int(parts[2])
    return reads, writes
