"""From what is wanted to a container that is locked down: one pure function.

Nothing here looks at a clock, a disk or an engine, so that the same request always gives the same spec and
each rule can be tested and read by itself. ``docs/sandbox.md`` says what each rule stops.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from wirthforge_host.errors import PolicyViolationError
from wirthforge_host.sandbox.models import (
    BRIDGE_TARGET,
    CODE_TARGET,
    LABEL_DIGEST,
    LABEL_HOST,
    LABEL_INSTANCE,
    LABEL_PLUGIN,
    LABEL_RELEASE,
    LABEL_RUNTIME,
    LABEL_SPEC,
    ContainerSettings,
    ContainerSpec,
    EngineCapabilities,
    ImageInfo,
    Mount,
    SandboxRequest,
    digest_of_json,
    environment_digest,
)
from wirthforge_host.sandbox.seccomp import profile
from wirthforge_host.sandbox.suitability import suitable_runtime
from wirthforge_sdk.contracts.bridge import EGRESS_PROXY, egress_addresses
from wirthforge_sdk.contracts.policy import HOUSE_POLICY, SecurityPolicy
from wirthforge_sdk.contracts.resources import MIB, Limits

UIDS = range(61_000, 65_534)
"""Above what distributions give out, below ``nobody``, and inside a remapped range of 65,536."""
PERIOD_US = 10_000
"""The engine's own 100 ms let a plugin at its limit stand still for 50 ms (p99), five times as long."""
SMALLEST_QUOTA_US = 1_000
"""The kernel takes no smaller one; below a tenth of a core the period grows instead."""

NODE = "node"
"""The runtime whose programs take their heap's bound from the environment."""
FILE_BYTES = 64 * MIB
FILES_IN_TMP = 2048
ENVIRONMENT = (
    ("HOME", "/tmp"),  # noqa: S108 the container's own tmpfs
    ("LANG", "C.UTF-8"),
    # One arena: eight a core reserve more than the smallest sandbox has. What a MiB used stays for the next (mallopt).
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", str(4 * MIB)),
    ("MALLOC_TRIM_THRESHOLD_", str(8 * MIB)),
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("TMPDIR", "/tmp"),  # noqa: S108
)
"""The same for every plugin. Secrets go over the bridge: a process can always read its own environment."""

_PROXY = "http://{}:{}".format(*EGRESS_PROXY)
PROXIES = tuple(
    (written, value)
    for name, value in (
        ("ALL_PROXY", _PROXY),
        ("HTTPS_PROXY", _PROXY),
        ("HTTP_PROXY", _PROXY),
        # Nothing is reached without: an operator's image must not make an exception.
        ("NO_PROXY", ""),
    )
    for written in (name, name.lower())
)
"""What is added for a plugin that asks for connections: programs read one or the other spelling."""

HEAP_SHARE = 0.5
"""Of the memory limit, what a Node.js program's objects may take, since V8 sees the machine's memory alone; the rest is
for the engine, its threads, buffers outside the heap, the runtime, and ``/tmp``."""

LOW_PORTS = (("net.ipv4.ip_unprivileged_port_start", "0"),)
"""In the container's own network, where the runtime listens on the ports that were asked for, such as 443. Docker sets
it by itself since 20.10; others do not."""

_MASKED_IN_PROC = """
    acpi asound buddyinfo bus cgroups cmdline config.gz consoles crypto devices diskstats dma driver
    dynamic_debug execdomains fb fs interrupts iomem ioports irq kallsyms kcore key-users keys kmsg
    kpagecgroup kpagecount kpageflags latency_stats locks mdstat misc modules mtrr pagetypeinfo partitions
    pressure sched_debug schedstat scsi slabinfo softirqs swaps sysrq-trigger sysvipc timer_list timer_stats
    tty vmallocinfo vmstat zoneinfo
"""
MASKED_PATHS = (*(f"/proc/{name}" for name in _MASKED_IN_PROC.split()), "/sys")
"""Seen as empty. The engines' default lists leave most of /sys and what tells about neighbours readable."""

LOCKED_DOWN = ContainerSettings(
    # What depends on the request is empty here; ``harden`` fills it in.
    image=None,
    entrypoint=(),
    command=(),
    environment=(),
    environment_digest="",
    working_directory="/",
    hostname="plugin",
    stop_signal="SIGTERM",
    stop_timeout_s=5,
    healthcheck=(),
    healthcheck_interval_s=3600,
    stdin=False,
    terminal=False,
    labels=(),
    restart_policy="no",
    auto_remove=False,
    init=False,
    runtime="",
    user="",
    extra_groups=(),
    privileged=False,
    capabilities_added=(),
    capabilities_dropped=("ALL",),
    no_new_privileges=True,
    seccomp="",
    apparmor="",
    other_security_options=(),
    network_mode="none",
    networks=("none",),
    published_ports=(),
    extra_hosts=(),
    # Without these the engine writes the machine's resolvers into the container, network or not.
    dns=("127.0.0.1",),
    dns_search=(".",),
    dns_options=(),
    ipc_mode="private",
    pid_mode="",
    uts_mode="",
    user_namespace="",
    cgroup_namespace="private",
    cgroup_parent="",
    read_only_root=True,
    mounts=(),
    volumes_from=(),
    tmpfs=(),
    devices=(),
    sysctls=(),
    masked_paths=MASKED_PATHS,
    readonly_paths=("/proc/sys",),
    memory_bytes=None,
    memory_and_swap_bytes=None,
    memory_reservation_bytes=None,
    memory_swappiness=None,
    out_of_memory_kill=True,
    # Of everything on the machine, a plugin goes first.
    out_of_memory_score=900,
    cpu_period_us=None,
    cpu_quota_us=None,
    # A quarter of the default weight: the host and its neighbours come first under load.
    cpu_shares=256,
    nano_cpus=0,
    pids=None,
    shared_memory_bytes=8 * MIB,
    ulimits=(),
    io_limits=(),
    log_driver="none",
)
"""What is the same for every plugin."""

_INSTANCE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def harden(
    request: SandboxRequest,
    image: ImageInfo,
    engine: EngineCapabilities,
    policy: SecurityPolicy = HOUSE_POLICY,
) -> ContainerSpec:
    """Says everything about the container for a request.

    Args:
        request: What is wanted.
        image: What the engine has under the request's image.
        engine: What the engine can enforce.
        policy: What the operator requires beyond what every sandbox has.

    Returns:
        The spec; the same for the same arguments.

    Raises:
        EngineUnsuitableError: The engine cannot enforce something no plugin may run without, here or anywhere.
        PolicyViolationError: The image is not one that plugins of this kind may run in.
        ValueError: The caller is wrong: a uid out of range, an instance id or a path of the wrong form.
    """
    runtime = suitable_runtime(engine, policy.require)
    _check_image(request, image)
    _check_request(request)
    environment = _environment(request)
    allowed = profile(egress=bool(request.destinations), tripwire=policy.sandbox.tripwire)
    settings = replace(
        _settings(request, image, engine, policy),
        runtime=runtime,
        environment=tuple(environment),
        environment_digest=environment_digest(environment),
        seccomp=allowed.digest,
        **_egress(request.destinations),
    )
    spec = ContainerSpec(
        name=f"wirthforge-{request.instance_id}",
        settings=settings,
        environment=tuple(environment.items()),
        removed_environment=tuple(sorted(set(image.environment) - set(environment))),
        seccomp_profile=allowed.text,
    )
    return _labelled(spec)


def spec_digest(spec: ContainerSpec) -> str:
    """What identifies a spec: a running container whose label says the same can be adopted as it is."""
    settings = asdict(spec.settings)
    settings["labels"] = sorted(label for label in spec.settings.labels if label[0] != LABEL_SPEC)
    return digest_of_json({"name": spec.name, "settings": settings, "removed": spec.removed_environment})


def bandwidth(cpus: float) -> tuple[int, int]:
    """Quota and period in microseconds that give ``cpus`` cores."""
    period_us = max(PERIOD_US, math.ceil(SMALLEST_QUOTA_US / cpus))
    return max(SMALLEST_QUOTA_US, round(period_us * cpus)), period_us


def limited(spec: ContainerSpec, limits: Limits) -> ContainerSpec:
    """The same container with other limits, as far as they can be changed while it runs."""
    quota_us, period_us = bandwidth(limits.cpus)
    rates = {"bytes": limits.io_bytes_per_s, "operations": limits.io_operations_per_s}
    settings = replace(
        spec.settings,
        memory_bytes=limits.memory_bytes,
        memory_and_swap_bytes=limits.memory_bytes,
        cpu_quota_us=quota_us,
        cpu_period_us=period_us,
        pids=limits.pids,
        io_limits=tuple(
            (what, device, rates[what.partition("_")[2]]) for what, device, _ in spec.settings.io_limits
        ),
    )
    return replace(spec, settings=settings)


LIVE_SETTINGS = (
    "memory_bytes",
    "memory_and_swap_bytes",
    "memory_reservation_bytes",
    "cpu_period_us",
    "cpu_quota_us",
    "pids",
    "io_limits",
)
"""Settings that follow from limits that can be changed while a container runs."""


def made_with(spec: ContainerSpec, found: ContainerSettings) -> ContainerSpec:
    """The same container, made with the limits of ``found`` as far as they can be changed while it runs."""
    settings = replace(spec.settings, **{name: getattr(found, name) for name in LIVE_SETTINGS})
    return _labelled(replace(spec, settings=settings))


def _labelled(spec: ContainerSpec) -> ContainerSpec:
    labels = dict(spec.settings.labels) | {LABEL_SPEC: spec_digest(spec)}
    return replace(spec, settings=replace(spec.settings, labels=tuple(sorted(labels.items()))))


def _check_image(request: SandboxRequest, image: ImageInfo) -> None:
    made_for = image.labels.get(LABEL_RUNTIME, "no plugin runtime")
    if made_for != request.runtime:
        fault = f"is made for {made_for}, not for {request.runtime}"
    elif image.volumes:
        fault = f"declares volumes ({', '.join(image.volumes)}), with which plugins could fill the disk"
    elif not image.entrypoint:
        fault = "declares no entrypoint"
    else:
        return
    raise PolicyViolationError(f"image {request.image} {fault}", image=request.image)


def _check_request(request: SandboxRequest) -> None:
    if request.uid not in UIDS:
        raise ValueError(f"uid {request.uid} is not in {UIDS.start}..{UIDS.stop - 1}")
    if not _INSTANCE.fullmatch(request.instance_id):
        raise ValueError(f"instance id {request.instance_id!r} is not lower-case letters, digits and hyphens")
    for path in (request.bridge_directory, request.code_directory):
        # Two levels at least: "/", "/etc" or "/var" would show a plugin the machine.
        if not path.is_absolute() or ".." in path.parts or len(path.parts) <= 2:  # noqa: PLR2004 root and one name
            raise ValueError(f"{path} is not the absolute path of a directory of the host's own")


def _settings(
    request: SandboxRequest, image: ImageInfo, engine: EngineCapabilities, policy: SecurityPolicy
) -> ContainerSettings:
    limits = request.limits
    quota_us, period_us = bandwidth(limits.cpus)
    binds = (_bind(BRIDGE_TARGET, request.bridge_directory), _bind(CODE_TARGET, request.code_directory))
    return replace(
        LOCKED_DOWN,
        image=image.id,
        entrypoint=image.entrypoint,
        command=_command(request),
        # Whether a plugin is well is asked over the bridge. This only shows that the container can still
        # start a process, and seldom, because the engine runs it inside, at the plugin's expense.
        healthcheck=("CMD", image.entrypoint[0], "--version"),
        labels=_labels(request),
        user=f"{request.uid}:{request.uid}",
        apparmor=engine.apparmor,
        mounts=tuple(sorted(binds)),
        tmpfs=(("/tmp", _tmpfs_options(request)),),  # noqa: S108
        memory_bytes=limits.memory_bytes,
        memory_and_swap_bytes=limits.memory_bytes,
        memory_reservation_bytes=limits.memory_bytes * 3 // 4,
        memory_swappiness=0 if engine.swappiness else None,
        cpu_period_us=period_us,
        cpu_quota_us=quota_us,
        pids=limits.pids,
        ulimits=_ulimits(limits, processes=policy.cap.pids),
        io_limits=_io_limits(limits, engine.io_device),
    )


def _environment(request: SandboxRequest) -> dict[str, str]:
    return dict(sorted((*ENVIRONMENT, *_heap(request), *(PROXIES if request.destinations else ()))))


def _heap(request: SandboxRequest) -> tuple[tuple[str, str], ...]:
    if request.runtime != NODE:
        return ()
    megabytes = int(request.limits.memory_bytes * HEAP_SHARE) // MIB
    return (("NODE_OPTIONS", f"--max-old-space-size={megabytes}"),)


def _command(request: SandboxRequest) -> tuple[str, ...]:
    return (*request.command, *(("--egress", ",".join(request.destinations)) if request.destinations else ()))


def _egress(destinations: tuple[str, ...]) -> dict[str, Any]:
    """What else is different for a plugin that asks for connections. The network stays ``none``."""
    if not destinations:
        return {}
    hosts = (f"{host}:{address}" for host, address in egress_addresses(destinations).items())
    return {"extra_hosts": tuple(sorted(hosts)), "sysctls": LOW_PORTS}


def _labels(request: SandboxRequest) -> tuple[tuple[str, str], ...]:
    return (
        (LABEL_PLUGIN, request.plugin),
        (LABEL_RELEASE, request.version),
        (LABEL_DIGEST, request.digest),
        (LABEL_INSTANCE, request.instance_id),
        (LABEL_HOST, request.host_id),
    )


def _bind(target: str, source: Path) -> Mount:
    # Not recursive: what is mounted below the source on the machine is not the plugin's business.
    return Mount(target=target, source=str(source), read_only=True, propagation="rprivate", recursive=False)


def _tmpfs_options(request: SandboxRequest) -> tuple[str, ...]:
    # A bound on names too: they take kernel memory of which the size says nothing.
    bounds = (f"size={request.limits.tmpfs_bytes}", f"nr_inodes={FILES_IN_TMP}")
    # The instance owns it: some runtimes give the mount the mode of the image's directory, whatever is asked
    # for.
    owner = (f"uid={request.uid}", f"gid={request.uid}", "mode=0700")
    return tuple(sorted(("rw", "noexec", "nosuid", "nodev", *owner, *bounds)))


def _ulimits(limits: Limits, *, processes: int) -> tuple[tuple[str, int, int], ...]:
    bounds = {
        # Nothing fits a byte, and the kernel starts no crash handler for it; for 0 it does (fs/coredump.c).
        "core": 1,
        "fsize": max(FILE_BYTES, limits.tmpfs_bytes),
        "memlock": 64 * 1024,
        "msgqueue": 0,
        "nice": 0,
        "nofile": limits.open_files,
        # Counted a user, which is one reason why each instance has its own. The most that an operator can give while
        # it runs, since this one cannot be raised then: the plugin's own limit is the control group's.
        "nproc": processes,
        "rtprio": 0,
        "sigpending": 256,
        "stack": 8 * MIB,
    }
    return tuple((name, bound, bound) for name, bound in sorted(bounds.items()))


def _io_limits(limits: Limits, device: str | None) -> tuple[tuple[str, str, int], ...]:
    # Without a device nothing is bounded: what can be read is read-only, and a policy can require the bound.
    if device is None:
        return ()
    return (
        ("read_bytes", device, limits.io_bytes_per_s),
        ("read_operations", device, limits.io_operations_per_s),
        ("write_bytes", device, limits.io_bytes_per_s),
        ("write_operations", device, limits.io_operations_per_s),
    )
