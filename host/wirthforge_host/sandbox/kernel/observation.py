"""Reading what the kernel says about a container. Blocking; it takes about a millisecond."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from wirthforge_host.errors import CgroupMissingError, CgroupUnreachableError, SandboxMismatchError
from wirthforge_host.sandbox.cgroup import Cgroup, CgroupLimits, weight_of
from wirthforge_host.sandbox.kernel.facts import NAMESPACES, SHARED_MEMORY, STANDARD_DEVICES, KernelFacts
from wirthforge_host.sandbox.kernel.mounts import IN_MEMORY, Mounted, tmpfs_options, visible
from wirthforge_host.sandbox.kernel.process import Process, fields_of, opened
from wirthforge_host.sandbox.models import ContainerSettings, ContainerSpec

ENGINES_MOUNTS = frozenset(
    {
        *("/", "/proc", "/dev", "/dev/pts", "/dev/mqueue", SHARED_MEMORY, "/sys", "/sys/fs/cgroup"),
        *("/etc/hostname", "/etc/hosts", "/etc/resolv.conf"),
        # Bound one by one where the runtime may make no devices: when user ids are mapped.
        *(f"/dev/{name}" for name in STANDARD_DEVICES),
    }
)
"""What an engine mounts without being asked."""

FALLBACK_INTERFACES = frozenset(
    {"erspan0", "gre0", "gretap0", "ip6_vti0", "ip6gre0", "ip6tnl0", "ip_vti0", "sit0", "tunl0"}
)
"""What tunnel drivers put into every new namespace: without an address, and nobody inside can give them one."""

_ULIMITS = {
    "core": "Max core file size",
    "cpu": "Max cpu time",
    "data": "Max data size",
    "fsize": "Max file size",
    "locks": "Max file locks",
    "memlock": "Max locked memory",
    "msgqueue": "Max msgqueue size",
    "nice": "Max nice priority",
    "nofile": "Max open files",
    "nproc": "Max processes",
    "rss": "Max resident set",
    "rtprio": "Max realtime priority",
    "rttime": "Max realtime timeout",
    "sigpending": "Max pending signals",
    "stack": "Max stack size",
}
"""The engine's name of a limit, and the kernel's in ``/proc/<pid>/limits``."""

_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_SYSTEM_CALLS = {"0": "not filtered", "1": "strict", "2": "filtered"}
_PROFILE = re.compile(r"(.+) \((\w+)\)")
_DEVICE_RATES = {
    "read_bytes": "read_bytes_per_s",
    "read_operations": "read_operations_per_s",
    "write_bytes": "write_bytes_per_s",
    "write_operations": "write_operations_per_s",
}


def observe(
    spec: ContainerSpec,
    pid: int,
    container: str,
    *,
    proc: Path = Path("/proc"),
    cgroups: Path = Path("/sys/fs/cgroup"),
) -> KernelFacts | None:
    """Reads what is in force for a container.

    Args:
        spec: What was asked for. What is read does not depend on it; it says which of the machine's directories,
            devices, masks and limits are told by the names that the spec has for them.
        pid: Of the container's first process, as the engine tells it.
        container: The engine's id.
        proc: Where the process file system is mounted.
        cgroups: Where control groups are mounted.

    Returns:
        None where this cannot be seen from here: the process ids are another machine's or another namespace's, files
        are not for this user, or control groups are not mounted.

    Raises:
        ProcessLookupError: It was the container's process, and has ended.
        SandboxMismatchError: It runs, and its files cannot be read or say something that no kernel is known to say.
    """
    with opened(proc / str(pid)) as process:
        if process is None:
            return None
        limits = _limits(pid, container, proc=proc, cgroups=cgroups)
        if limits is None:
            return None
        try:
            facts = _facts(spec, process, proc, limits)
        except PermissionError:
            return None
        except (OSError, ValueError) as error:
            process.require_alive()
            raise SandboxMismatchError(
                f"what is in force for {spec.name} cannot be read from the kernel's files: {error}", pid=pid
            ) from error
        # One that ended meanwhile has files without content: they say nothing about the container.
        process.require_alive()
        return facts


def _limits(pid: int, container: str, *, proc: Path, cgroups: Path) -> CgroupLimits | None:
    """The limits of the group that is named after the container; None when the process is in no such group."""
    try:
        cgroup = Cgroup.of_process(pid, container=container, root=cgroups, proc=proc)
    except (CgroupMissingError, CgroupUnreachableError):
        return None
    try:
        return cgroup.limits()
    except (CgroupMissingError, CgroupUnreachableError):
        return None
    finally:
        cgroup.close()


def _facts(spec: ContainerSpec, process: Process, proc: Path, limits: CgroupLimits) -> KernelFacts:
    wanted = spec.settings
    status = fields_of(process.text("status"))
    return KernelFacts(
        **_rights(status, process),
        own_namespaces=_other_than(process, proc, parent=status.get("PPid", "")),
        interfaces=_interfaces(process.text("net/dev")),
        devices=process.devices(),
        **_view(wanted, process, visible(process.text("mountinfo"))),
        ulimits=_ulimits(wanted, process.text("limits")),
        out_of_memory_score=int(process.text("oom_score_adj")),
        memory_bytes=limits.memory_bytes,
        memory_and_swap_bytes=limits.memory_and_swap_bytes,
        cpu_quota_us=limits.cpu_quota_us,
        cpu_period_us=limits.cpu_period_us,
        cpu_shares=_shares(wanted, limits),
        pids=limits.pids,
        io_limits=_io_limits(wanted, limits),
    )


def _rights(status: dict[str, str], process: Process) -> dict[str, Any]:
    gids = _numbers(status.get("Gid", ""))
    held = {name: status.get(name, "unknown") for name in _CAPABILITIES}
    calls = status.get("Seccomp", "unknown")
    return {
        "uids": _numbers(status.get("Uid", "")),
        "gids": gids,
        # Engines differ in whether a user's own group is one of these, too.
        "other_groups": tuple(sorted(set(_numbers(status.get("Groups", "-1"))) - set(gids[:1]))),
        "root_uid": _mapped_root(process, "uid_map"),
        "root_gid": _mapped_root(process, "gid_map"),
        "capabilities": tuple(f"{name} {which}" for name, which in held.items() if which.strip("0")),
        "no_new_privileges": status.get("NoNewPrivs") == "1",
        "system_calls": _SYSTEM_CALLS.get(calls, calls),
        "apparmor": _apparmor(process),
    }


def _view(wanted: ContainerSettings, process: Process, mounts: tuple[Mounted, ...]) -> dict[str, Any]:
    at = {mounted.point: mounted for mounted in mounts}
    asked = {mount.target for mount in wanted.mounts} | {path for path, _ in wanted.tmpfs}
    known = asked | {*wanted.masked_paths, *wanted.readonly_paths} | ENGINES_MOUNTS
    return {
        "root_read_only": "/" in at and at["/"].read_only,
        "binds": tuple(
            (mount.target, _source(process, at[mount.target], mount.source), at[mount.target].read_only)
            for mount in wanted.mounts
            if mount.target in at
        ),
        "tmpfs": tuple(
            (path, tmpfs_options(at[path], names))
            for path, names in _tmpfs_asked(wanted)
            if path in at and at[path].kind == "tmpfs"
        ),
        "other_mounts": tuple(sorted(at.keys() - known)),
        "written_to_disk": tuple(
            mounted.point for mounted in mounts if not mounted.read_only and mounted.kind not in IN_MEMORY
        ),
        "masked_paths": tuple(
            path
            for path in wanted.masked_paths
            if (at[path].hides if path in at else process.identity(path) is None)
        ),
        "readonly_paths": tuple(path for path in wanted.readonly_paths if path in at and at[path].read_only),
    }


def _source(process: Process, mounted: Mounted, asked: str) -> str:
    """The directory of the machine that is bound: the one asked for, or what the kernel calls the other one."""
    try:
        found = Path(asked).stat()
    except OSError:
        return f"{mounted.root} of a file system"
    same = process.identity(mounted.point) == (found.st_dev, found.st_ino)
    return asked if same else f"{mounted.root} of a file system"


def _tmpfs_asked(wanted: ContainerSettings) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Where file systems in memory shall be, and the options whose values matter there."""
    named = tuple((path, tuple(each.partition("=")[0] for each in options)) for path, options in wanted.tmpfs)
    return (*named, (SHARED_MEMORY, ("rw", "noexec", "nosuid", "nodev", "size")))


def _other_than(process: Process, proc: Path, *, parent: str) -> tuple[str, ...]:
    with opened(proc / "self") as host, opened(proc / parent) as engine:
        if host is None or engine is None:
            return ()
        return tuple(
            name
            for name in NAMESPACES
            if (own := process.namespace(name)) and own not in {host.namespace(name), engine.namespace(name)}
        )


def _apparmor(process: Process) -> str:
    # The module's own file first: the common one speaks for whichever module is the first (LSM stacking).
    for name in ("attr/apparmor/current", "attr/current"):
        try:
            told = _PROFILE.fullmatch(process.text(name).rstrip("\n\0"))
        except FileNotFoundError:
            continue
        except OSError:
            return ""  # EINVAL: no module of this kernel has anything to say
        if told is None:
            return ""
        return told[1] if told[2] == "enforce" else f"{told[1]}, only {told[2]}"
    return ""


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))


def _mapped_root(process: Process, name: str) -> int | None:
    """Which id outside is 0 inside (user_namespaces(7)); None where none is."""
    try:
        ranges = [_numbers(line) for line in process.text(name).splitlines()]
    except FileNotFoundError:
        return 0  # a kernel without user namespaces
    return next((outside for inside, outside, _ in ranges if inside == 0), None)


def _interfaces(text: str) -> tuple[str, ...]:
    names = {line.partition(":")[0].strip() for line in text.splitlines()[2:]}
    return tuple(sorted(names - FALLBACK_INTERFACES))


def _ulimits(wanted: ContainerSettings, text: str) -> tuple[tuple[str, int, int], ...]:
    # Columns, since names have spaces and some limits no unit.
    found = {line[:26].strip(): line[26:].split() for line in text.splitlines()[1:]}
    asked = [(name, found.get(_ULIMITS.get(name, ""), ())) for name, _, _ in wanted.ulimits]
    return tuple((name, _limit(values[0]), _limit(values[1])) for name, values in asked if len(values) > 1)


def _limit(text: str) -> int:
    return -1 if text == "unlimited" else int(text)


def _shares(wanted: ContainerSettings, limits: CgroupLimits) -> int | None:
    """In shares, when the weight is what a runtime makes of the shares that were asked for."""
    asked = wanted.cpu_shares
    return asked if asked is not None and limits.cpu_weight in _weights_of(asked) else limits.cpu_weight


def _weights_of(shares: int) -> set[int]:
    """What v1 has for shares (the same), and what runtimes make of them on v2: a line, and since runc 1.4 a curve.

    Source: ``ConvertCPUSharesToCgroupV2Value`` of opencontainers/cgroups.
    """
    exponent = (math.log2(shares) ** 2 + 125 * math.log2(shares)) / 612 - 7 / 34
    return {shares, weight_of(shares), math.ceil(10**exponent)}


def _io_limits(wanted: ContainerSettings, limits: CgroupLimits) -> tuple[tuple[str, str, int], ...]:
    names = {_device_number(device): device for _, device, _ in wanted.io_limits}
    found = (
        (what, names.get(each.device, each.device), rate)
        for each in limits.io
        for what, field in _DEVICE_RATES.items()
        if (rate := getattr(each, field)) is not None
    )
    return tuple(sorted(found))


def _device_number(device: str) -> str:
    number = Path(device).stat().st_rdev
    return f"{os.major(number)}:{os.minor(number)}"
