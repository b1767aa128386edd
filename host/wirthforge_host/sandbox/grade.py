"""The grade of a sandbox: 0 to 100 explained points, from what is in force and never from what was asked for. Pure.

Weights follow from what an attacker gains where a line is missing:

- 12 each: **capabilities**, **system calls**. With either open, one kernel hole or one capability is a way out of the
  container; nearly every published escape needed one of them.
- 10: **network**. An open one is how data leaves, and how neighbours and metadata services are reached.
- 8 each: **user**, **privileges**, **file tree**. A root user, a setuid program or a writable disk make a hole a
  foothold.
- 6: **namespaces**, 4: **masked files**. They decide what is seen of the machine and of neighbours.
- 5: **devices**. One is enough to reach the hardware, but none is there unless an operator puts it there.
- 4: **memory**, 2 each: **processor**, **processes**, **disk**, **output**. Without them others stand still; nobody
  gets out.

These are 85, which an ordinary engine reaches. The rest is depth: a layer that holds when one above fails. 5: **another
kernel**, 4 each: **mapped users**, **mandatory access** (the engine's own AppArmor profile: 3), 2: **kernel's word**.

A privileged container has none of its points: what a line says is then not in force.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from wirthforge_host.sandbox.hardening import MASKED_PATHS, UIDS
from wirthforge_host.sandbox.models import ContainerSettings, EngineCapabilities
from wirthforge_host.sandbox.seccomp import profile

OTHER_KERNELS = ("runsc", "kata", "io.containerd.runsc", "io.containerd.kata")
"""How the names of runtimes begin that put a kernel of their own under a container: gVisor, Kata Containers."""

_CLOSED = {profile(tripwire=tripwire).digest for tripwire in (False, True)}
_OURS = {
    profile(egress=egress, tripwire=tripwire).digest for egress, tripwire in product((False, True), repeat=2)
}


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that is judged."""

    name: str
    points: int
    of: int
    reason: str


@dataclass(frozen=True, slots=True)
class Grade:
    """What a sandbox is worth."""

    points: int
    """0 to 100: the sum of the lines."""
    lines: tuple[Line, ...]


def grade(effective: ContainerSettings, engine: EngineCapabilities, *, kernel: bool = False) -> Grade:
    """Judges one container.

    Args:
        effective: Its settings as the engine reports them.
        engine: What the engine can enforce; some of it is its own setting, and no container's.
        kernel: Whether the kernel's own files were compared, too.
    """
    judged = [(name, of, *judge(effective, engine)) for name, of, judge in _JUDGES]
    told = (2, "its files say the same") if kernel else (0, "only the engine was asked what is in force")
    judged.append(("kernel's word", 2, *told))
    if effective.privileged is not False:
        judged = [(name, of, 0, "the container is privileged, which undoes it") for name, of, *_ in judged]
    lines = tuple(Line(name, points, of, reason) for name, of, points, reason in judged)
    return Grade(sum(line.points for line in lines), lines)


Judgement = tuple[int, str]
"""Points, and why."""


def _capabilities(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    if found.capabilities_added:
        return 0, f"has {', '.join(found.capabilities_added)}"
    return (
        (12, "none") if "ALL" in found.capabilities_dropped else (0, "those of the engine's default are left")
    )


def _system_calls(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    if found.runtime.startswith(OTHER_KERNELS):
        return 12, f"they are answered by the kernel of {found.runtime}"
    if found.seccomp in _OURS:
        return 12, "the shipped allow-list"
    return (
        (4, "the engine's own list") if found.seccomp == "engine default" else (0, f"filter {found.seccomp}")
    )


def _network(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    if found.network_mode != "none" or set(found.networks) - {"none"}:
        return 0, f"network {', '.join((found.network_mode, *found.networks))}"
    if found.seccomp in _CLOSED:
        return 10, "none, and no socket but Unix-domain ones"
    if found.seccomp in _OURS:
        return 9, "none; TCP inside the container alone, which ends in the host's relay"
    return 9, "none; the filter is not ours, and may let any socket be made"


def _user(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    user = found.user.partition(":")[0]
    if found.user != f"{user}:{user}" or not user.isdecimal() or int(user) not in UIDS:
        return 0, f"runs as {found.user or 'the image says'}, which others may have too"
    return (
        (8, f"{user}, of this instance alone") if not found.extra_groups else (4, "has other groups as well")
    )


def _privileges(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    return (
        (8, "no program gives new ones") if found.no_new_privileges else (0, "setuid programs give new ones")
    )


def _tree(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    writable = [mount.target for mount in found.mounts if not mount.read_only]
    if not found.read_only_root or writable or found.volumes_from:
        return 0, f"can write on a disk: {', '.join(writable) or 'its root or volumes'}"
    loose = [path for path, options in found.tmpfs if not {"noexec", "nosuid", "nodev"} <= set(options)]
    return (
        (8, "read-only; what can be written is in memory")
        if not loose
        else (4, f"{loose[0]} may be run from")
    )


def _namespaces(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    own = {
        "processes": (2, found.pid_mode == ""),
        "IPC": (2, found.ipc_mode in ("private", "none")),
        "names": (1, found.uts_mode == ""),
        "control groups": (1, found.cgroup_namespace == "private"),
    }
    shared = [name for name, judged in own.items() if not judged[1]]
    points = sum(worth for worth, is_own in own.values() if is_own)
    return points, f"shares {', '.join(shared)}" if shared else "all its own"


def _masked(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    seen = sorted(set(MASKED_PATHS) - set(found.masked_paths))
    if seen:
        return 0, f"{seen[0]} and {len(seen) - 1} more can be read"
    return (
        (4, "what tells about the machine")
        if "/proc/sys" in found.readonly_paths
        else (2, "/proc/sys is writable")
    )


def _devices(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    return (
        (5, "none but the standard ones")
        if not found.devices
        else (0, f"{len(found.devices)} of the machine's")
    )


def _memory(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    if not found.memory_bytes or found.memory_bytes < 0:
        return 0, "unbounded"
    swapless = found.memory_and_swap_bytes == found.memory_bytes
    return (
        (4, f"{found.memory_bytes} bytes, without swap") if swapless else (2, "bounded, and swap beside it")
    )


def _processor(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    bounded = (found.cpu_quota_us or 0) > 0 or (found.nano_cpus or 0) > 0
    return (2, "bounded") if bounded else (0, "unbounded")


def _processes(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    return (2, f"at most {found.pids}") if (found.pids or 0) > 0 else (0, "unbounded")


def _disk(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    reads = {limit[0] for limit in found.io_limits}
    if {"read_bytes", "read_operations"} <= reads:
        return 2, f"bounded on {found.io_limits[0][1]}"
    return 0, "reads of the image's files are unbounded"


def _output(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    if found.log_driver == "none":
        return 2, "goes nowhere at the engine"
    return 0, f"the engine's {found.log_driver} takes it, at its own cost"


def _other_kernel(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    if found.runtime.startswith(OTHER_KERNELS):
        return 5, f"{found.runtime} has one of its own"
    return 0, "shares the machine's"


def _mapped_users(found: ContainerSettings, engine: EngineCapabilities) -> Judgement:
    if engine.user_namespaces and found.user_namespace == "":
        return 4, "its ids are nobody's on the machine"
    return 0, "its ids are the machine's"


def _mandatory(found: ContainerSettings, _: EngineCapabilities) -> Judgement:
    if found.apparmor in ("", "unconfined"):
        return 0, "no AppArmor profile"
    return (4 if found.apparmor == "wirthforge-plugin" else 3), f"AppArmor profile {found.apparmor}"


_JUDGES: tuple[tuple[str, int, Callable[[ContainerSettings, EngineCapabilities], Judgement]], ...] = (
    ("capabilities", 12, _capabilities),
    ("system calls", 12, _system_calls),
    ("network", 10, _network),
    ("user", 8, _user),
    ("privileges", 8, _privileges),
    ("file tree", 8, _tree),
    ("namespaces", 6, _namespaces),
    ("devices", 5, _devices),
    ("masked files", 4, _masked),
    ("memory", 4, _memory),
    ("processor", 2, _processor),
    ("processes", 2, _processes),
    ("disk", 2, _disk),
    ("output", 2, _output),
    ("another kernel", 5, _other_kernel),
    ("mapped users", 4, _mapped_users),
    ("mandatory access", 4, _mandatory),
)
