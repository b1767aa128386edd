"""Files of cgroup v2 (Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

from collections.abc import Collection

from wirthforge_host.sandbox.cgroup.models import (
    CgroupLimits,
    DeviceLimits,
    Read,
    Usage,
    Writes,
    counter,
    number,
    weight_of,
)

QUICK = ("cpu.stat", "memory.current", "memory.events", "pids.current", "pids.events")
"""What tells within a second that something goes wrong, a microsecond each; first what changes with all others."""
USAGE = (*QUICK, "memory.stat", "memory.peak", "io.stat")
"""All of it: three times the work, for what changes little, or only adds up."""
LIMITS = ("cpu.max", "cpu.weight", "memory.max", "memory.swap.max", "pids.max", "io.max")
"""What :func:`limits` reads."""
NEEDED = (*QUICK[:-1], "memory.stat")
"""Without these there is no usage."""

_RATES = {
    "read_bytes_per_s": "rbps",
    "write_bytes_per_s": "wbps",
    "read_operations_per_s": "riops",
    "write_operations_per_s": "wiops",
}


def limits(read: Read) -> CgroupLimits:
    """The limits that the files say."""
    quota, _, period = read("cpu.max").strip().partition(" ")
    memory_bytes = number(read("memory.max"))
    swap_bytes = number(read("memory.swap.max"))
    unbounded = memory_bytes is None or swap_bytes is None
    return CgroupLimits(
        memory_bytes=memory_bytes,
        memory_and_swap_bytes=None if unbounded else (memory_bytes or 0) + (swap_bytes or 0),
        cpu_quota_us=number(quota),
        cpu_period_us=int(period or 100_000),
        cpu_weight=number(read("cpu.weight"), 100) or 100,
        pids=number(read("pids.max")),
        io=tuple(sorted(map(_device, read("io.max").splitlines()), key=lambda limits: limits.device)),
    )


def usage(read: Read) -> Usage:
    """The usage that the files say."""
    cpu = read("cpu.stat")
    io = _io(read("io.stat"))
    return Usage(
        counter(cpu, "usage_usec") / 1e6,
        counter(cpu, "throttled_usec") / 1e6,
        counter(cpu, "nr_periods"),
        counter(cpu, "nr_throttled"),
        int(read("memory.current")),
        counter(read("memory.stat"), "inactive_file"),
        number(read("memory.peak")),
        counter(read("memory.events"), "oom_kill"),
        int(read("pids.current")),
        counter(read("pids.events"), "max"),
        io["rbytes"],
        io["wbytes"],
        io["rios"],
        io["wios"],
    )


def cpu(quota_us: int | None, period_us: int) -> Writes:
    """Sets the quota of each period."""
    return (("cpu.max", f"{'max' if quota_us is None else quota_us} {period_us}"),)


def memory(limit: int, before: CgroupLimits, files: Collection[str]) -> Writes:
    """Sets the limit, swap included: there is none beside it."""
    swap = before.memory_and_swap_bytes != before.memory_bytes and "memory.swap.max" in files
    return (*((("memory.swap.max", "0"),) if swap else ()), ("memory.max", str(limit)))


def cpu_weight(shares: int) -> Writes:
    """Sets the weight among its siblings."""
    return (("cpu.weight", str(weight_of(shares))),)


def io_weight(hundredths: int, files: Collection[str]) -> Writes:
    """Sets the weight of its requests; 100 is normal. Nothing where the kernel has none."""
    weights = {"io.weight": f"default {hundredths}", "io.bfq.weight": str(min(max(hundredths, 1), 1000))}
    return tuple((name, text) for name, text in weights.items() if name in files)


def io(limits: DeviceLimits) -> Writes:
    """Sets the rates of one device; ``max`` takes one away."""
    rates = " ".join(f"{key}={getattr(limits, field) or 'max'}" for field, key in _RATES.items())
    return (("io.max", f"{limits.device} {rates}"),)


def freeze(*, frozen: bool) -> Writes:
    """Asks for one of the two states."""
    return (("cgroup.freeze", "1" if frozen else "0"),)


def is_frozen(read: Read) -> bool:
    """Whether every process stands still; also by an ancestor's freeze."""
    return counter(read("cgroup.events"), "frozen") == 1


def _device(line: str) -> DeviceLimits:
    device, *pairs = line.split()
    said = dict(pair.split("=") for pair in pairs)
    return DeviceLimits(device=device, **{field: number(said.get(key, "")) for field, key in _RATES.items()})


def _io(text: str) -> dict[str, int]:
    """Sums over the devices."""
    sums = {"rbytes": 0, "wbytes": 0, "rios": 0, "wios": 0}
    for line in text.splitlines():
        for pair in line.split()[1:]:
            key, _, value = pair.partition("=")
            if key in sums:
                sums[key] += int(value)
    return sums
