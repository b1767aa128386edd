"""What the kernel says about a container, and what it must say when the container is as it was asked for. Pure."""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import asdict, dataclass, replace
from typing import Any

from wirthforge_host.sandbox.kernel.mounts import asked_options
from wirthforge_host.sandbox.models import ContainerSettings, ContainerSpec, EngineCapabilities, Mismatch
from wirthforge_host.sandbox.readback import differences

PAGE = mmap.PAGESIZE

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")

SHARED_MEMORY = "/dev/shm"  # noqa: S108 (a mount point)
STANDARD_DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
"""What every container has (runtime-spec, config-linux.md, "Default Devices")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFacts:
    """One container's first process as the kernel has it, in a form in which it can be compared with a wish."""

    # Whose rights it has. Ids are the machine's.
    uids: tuple[int, ...]
    """Real, effective, saved and of the file system."""
    gids: tuple[int, ...]
    other_groups: tuple[int, ...]
    root_uid: int | None
    """Whom the machine takes the container's root for; 0 where ids are not mapped."""
    root_gid: int | None
    capabilities: tuple[str, ...]
    """Sets that are not empty, such as ``CapBnd 00000000a80425fb``."""
    no_new_privileges: bool
    system_calls: str
    """``filtered``, ``not filtered`` or ``strict``."""
    apparmor: str
    """Name of the profile that is enforced; empty where none is."""

    # What it sees.
    own_namespaces: tuple[str, ...]
    """Those that are neither the host's nor its parent's, which is the engine's."""
    interfaces: tuple[str, ...]
    devices: tuple[str, ...]
    """Of ``/dev``."""
    root_read_only: bool
    binds: tuple[tuple[str, str, bool], ...]
    """Where, which directory of the machine, and whether it can only be read."""
    tmpfs: tuple[tuple[str, tuple[str, ...]], ...]
    """Where, and its sorted options."""
    other_mounts: tuple[str, ...]
    """That nobody asked for."""
    written_to_disk: tuple[str, ...]
    """Mounts through which a disk, or a kernel interface, could be written."""
    masked_paths: tuple[str, ...]
    """Of those that shall be: they show nothing, or this kernel does not have them."""
    readonly_paths: tuple[str, ...]

    # What it may use.
    ulimits: tuple[tuple[str, int, int], ...]
    """Of those that were asked for: name, soft and hard limit. -1 is without limit."""
    out_of_memory_score: int
    memory_bytes: int | None
    memory_and_swap_bytes: int | None
    cpu_quota_us: int | None
    cpu_period_us: int
    cpu_shares: int | None
    pids: int | None
    io_limits: tuple[tuple[str, str, int], ...]
    """As in ``ContainerSettings``."""

    def as_dict(self) -> dict[str, Any]:
        """JSON types only, for ``wirthforge inspect --effective``."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def compare(
    spec: ContainerSpec, facts: KernelFacts, engine: EngineCapabilities, *, weighed: bool = True
) -> tuple[Mismatch, ...]:
    """Every fact that is not as was asked for, in the order of ``KernelFacts``; its setting begins with ``kernel.``.

    Less of the processor than was asked for is none: the host throttles so. Unless it is ``weighed``, neither is
    another weight: the host moves it while an instance runs, by priority and to let others go first.
    """
    wanted = expected(spec, engine)
    if not weighed:
        facts = replace(facts, cpu_shares=wanted.cpu_shares)
    if _cpus(facts) < _cpus(wanted):
        facts = replace(facts, cpu_quota_us=wanted.cpu_quota_us, cpu_period_us=wanted.cpu_period_us)
    return tuple(
        Mismatch(f"kernel.{each.setting}", each.wanted, each.found) for each in differences(wanted, facts)
    )


def expected(spec: ContainerSpec, engine: EngineCapabilities) -> KernelFacts:
    """What the kernel must say about a container that is as the spec asks."""
    wanted = spec.settings
    uid, gid = (int(number) for number in wanted.user.split(":"))
    uid, gid = uid + engine.uid_offset, gid + engine.gid_offset
    return KernelFacts(
        uids=(uid,) * 4,
        gids=(gid,) * 4,
        other_groups=tuple(sorted(int(group) + engine.gid_offset for group in wanted.extra_groups)),
        root_uid=engine.uid_offset,
        root_gid=engine.gid_offset,
        capabilities=(),
        no_new_privileges=wanted.no_new_privileges,
        system_calls="not filtered" if wanted.seccomp == "unconfined" else "filtered",
        apparmor=wanted.apparmor,
        own_namespaces=_own_namespaces(wanted, engine),
        interfaces=("lo",),
        devices=STANDARD_DEVICES,
        root_read_only=bool(wanted.read_only_root),
        binds=tuple((mount.target, mount.source, mount.read_only) for mount in wanted.mounts),
        tmpfs=_wanted_tmpfs(wanted, engine),
        other_mounts=(),
        written_to_disk=(),
        masked_paths=wanted.masked_paths,
        readonly_paths=wanted.readonly_paths,
        ulimits=wanted.ulimits,
        out_of_memory_score=wanted.out_of_memory_score or 0,
        # Whole pages are counted.
        memory_bytes=_whole_pages(wanted.memory_bytes),
        memory_and_swap_bytes=_whole_pages(wanted.memory_and_swap_bytes),
        cpu_quota_us=wanted.cpu_quota_us,
        cpu_period_us=wanted.cpu_period_us or 0,
        cpu_shares=wanted.cpu_shares,
        pids=wanted.pids,
        io_limits=wanted.io_limits,
    )


def _wanted_tmpfs(
    wanted: ContainerSettings, engine: EngineCapabilities
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    shared = ("rw", "noexec", "nosuid", "nodev", f"size={wanted.shared_memory_bytes or 0}")
    return tuple(
        (
            path,
            asked_options(options, uid_offset=engine.uid_offset, gid_offset=engine.gid_offset, page=PAGE),
        )
        for path, options in (*wanted.tmpfs, (SHARED_MEMORY, shared))
    )


def _own_namespaces(wanted: ContainerSettings, engine: EngineCapabilities) -> tuple[str, ...]:
    private = {
        "cgroup": wanted.cgroup_namespace == "private",
        "ipc": wanted.ipc_mode in ("private", "none"),
        "mnt": True,
        "net": wanted.network_mode == "none",
        "pid": wanted.pid_mode == "",
        "user": engine.user_namespaces and wanted.user_namespace == "",
        "uts": wanted.uts_mode == "",
    }
    return tuple(name for name in NAMESPACES if private[name])


def _whole_pages(size: int | None) -> int | None:
    return None if size is None else size // PAGE * PAGE


def _cpus(facts: KernelFacts) -> float:
    """How much of the processor it may have: cores, or no end of them."""
    if facts.cpu_quota_us is None or not facts.cpu_period_us:
        return math.inf
    return facts.cpu_quota_us / facts.cpu_period_us
