"""What a sandbox is asked to be, what is sent to the engine, and what the engine says is in force.

One class, ``ContainerSettings``, describes a container in a normal form, both as wanted (in a
``ContainerSpec``) and as found (read back from an engine). Comparing the two is therefore comparing every
field, and a field added later is compared without anyone having to remember it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from wirthforge_sdk.contracts.resources import Limits

BRIDGE_TARGET = "/run/wirthforge"
"""Where an instance finds its bridge socket."""

CODE_TARGET = "/plugin"
"""Where an instance finds the files of its release."""

LABEL_PLUGIN = "wirthforge.plugin"
LABEL_RELEASE = "wirthforge.release"
LABEL_DIGEST = "wirthforge.digest"
LABEL_INSTANCE = "wirthforge.instance"
LABEL_HOST = "wirthforge.host"
LABEL_SPEC = "wirthforge.spec"
LABEL_RUNTIME = "wirthforge.runtime"
"""On images: what they run."""

LABELS = (LABEL_PLUGIN, LABEL_RELEASE, LABEL_DIGEST, LABEL_INSTANCE, LABEL_HOST, LABEL_SPEC)
"""The labels the host sets. An image may carry others; they say nothing about a sandbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRequest:
    """What the host wants a sandbox for. Everything else about the container follows from this."""

    instance_id: str
    """Lower-case letters, digits and hyphens, at most 63; unique on the engine. Also names the container."""
    plugin: str
    """``namespace/name``."""
    version: str
    digest: str
    """Of the package, ``sha256:<hex>``."""
    host_id: str
    uid: int
    """User and group id, of no other instance: the kernel counts some resources a user, not a container."""
    limits: Limits
    image: str
    """The operator's image, by name or id; never a plugin's choice."""
    runtime: str
    """What the image must be made for, by its label ``wirthforge.runtime``: ``python``, ``node`` …"""
    bridge_directory: Path
    """Absolute path on the engine's machine; bound read-only."""
    code_directory: Path
    """Absolute path on the engine's machine to the verified tree; bound read-only."""
    command: tuple[str, ...] = ()
    """Arguments for the image's runner."""
    destinations: tuple[str, ...] = ()
    """``host:port`` of every ``net.connect`` the release asks for, sorted. The relay decides on each connection; the
    sandbox only lets the runtime offer them inside (``contracts.bridge.EGRESS_ADDRESSES``)."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What matters of an image the engine has."""

    id: str
    """Content digest, ``sha256:<hex>``; containers are made from this, never from a name that can move."""
    labels: dict[str, str]
    entrypoint: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    """Names the image declares; a sandbox removes them."""
    volumes: tuple[str, ...] = ()
    """Paths for which an engine would make a writable volume; must be none."""


@dataclass(frozen=True, slots=True, order=True)
class Mount:
    """One directory of the engine's machine seen inside a container."""

    target: str
    source: str
    read_only: bool
    propagation: str
    recursive: bool
    kind: str = "bind"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSettings:
    """The settings of one container in normal form: sorted where order says nothing, units in names.

    As wanted, ``None`` means that the engine shall not be asked for it and must report nothing. As found,
    ``None`` means that the engine reports nothing.
    """

    # What runs.
    image: str | None
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: tuple[str, ...]
    """Names only; the values are in ``environment_digest``, so no report can leak one."""
    environment_digest: str
    working_directory: str
    hostname: str
    stop_signal: str
    stop_timeout_s: int | None
    healthcheck: tuple[str, ...]
    healthcheck_interval_s: int | None
    stdin: bool
    terminal: bool
    labels: tuple[tuple[str, str], ...]
    restart_policy: str
    auto_remove: bool
    init: bool | None
    runtime: str

    # Whose rights it has.
    user: str
    extra_groups: tuple[str, ...]
    privileged: bool | None
    capabilities_added: tuple[str, ...]
    capabilities_dropped: tuple[str, ...]
    no_new_privileges: bool
    seccomp: str
    """Digest of the profile in force, ``unconfined`` or ``engine default``."""
    apparmor: str
    """Name of the profile; empty where the engine has none."""
    other_security_options: tuple[str, ...]

    # What it sees.
    network_mode: str
    networks: tuple[str, ...]
    published_ports: tuple[str, ...]
    extra_hosts: tuple[str, ...]
    dns: tuple[str, ...]
    dns_search: tuple[str, ...]
    dns_options: tuple[str, ...]
    ipc_mode: str
    pid_mode: str
    uts_mode: str
    user_namespace: str
    cgroup_namespace: str
    cgroup_parent: str
    read_only_root: bool | None
    mounts: tuple[Mount, ...]
    volumes_from: tuple[str, ...]
    tmpfs: tuple[tuple[str, tuple[str, ...]], ...]
    """Path and its sorted options."""
    devices: tuple[str, ...]
    sysctls: tuple[tuple[str, str], ...]
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]

    # What it may use.
    memory_bytes: int | None
    memory_and_swap_bytes: int | None
    memory_reservation_bytes: int | None
    memory_swappiness: int | None
    out_of_memory_kill: bool | None
    out_of_memory_score: int | None
    cpu_period_us: int | None
    cpu_quota_us: int | None
    cpu_shares: int | None
    nano_cpus: int | None
    pids: int | None
    shared_memory_bytes: int | None
    ulimits: tuple[tuple[str, int, int], ...]
    """Name, soft and hard limit."""
    io_limits: tuple[tuple[str, str, int], ...]
    """What of which device, such as ``read_bytes`` of ``/dev/vda``, and how much of it a second."""
    log_driver: str

    def as_dict(self) -> dict[str, Any]:
        """JSON types only, for ``wirthforge inspect --effective``."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything that is sent to the engine: pure data."""

    name: str
    settings: ContainerSettings
    environment: tuple[tuple[str, str], ...]
    removed_environment: tuple[str, ...]
    """Names the image declares and the container must not have."""
    seccomp_profile: str
    """JSON text; its digest is ``settings.seccomp``."""

    def source_of(self, target: str) -> Path:
        """The directory of the engine's machine that is seen at ``target``.

        Raises:
            KeyError: Nothing is bound there.
        """
        return Path({mount.target: mount.source for mount in self.settings.mounts}[target])


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One setting that is not in force as it was asked for."""

    setting: str
    wanted: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.setting}: wanted {self.wanted!r}, found {self.found!r}"

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerState:
    """One container as it is now."""

    id: str
    name: str
    labels: dict[str, str]
    running: bool
    """The process exists; also true while paused."""
    paused: bool
    exit_code: int | None
    """``None`` before the first exit; 128 + signal number when a signal ended it."""
    oom_killed: bool
    pid: int | None
    """Of the container's first process, on the engine's machine; ``None`` when it does not run."""
    started_at: str | None
    """RFC 3339, as the engine tells it; ``None`` before the first start."""

    @property
    def ending(self) -> str:
        """Why it does not run any more, for people; empty while it does."""
        if self.oom_killed:
            return "it ran out of memory"
        return "" if self.running else f"its process ended with exit code {self.exit_code}"


class EventKind(StrEnum):
    """What happened to a container."""

    EXITED = "exited"
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"
    """Events were dropped because nobody read them: look at the containers themselves."""


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """Something that happened without the host doing it, or because it did."""

    kind: EventKind
    container_id: str
    """Empty for ``LOST``."""
    instance_id: str
    exit_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCapabilities:
    """The row of the published capability matrix for one engine."""

    driver: str
    version: str
    api_version: str
    cgroup_version: int
    memory_limit: bool
    swap_limit: bool
    swappiness: bool
    cpu_quota: bool
    pids_limit: bool
    io_device: str | None
    """The disk under the engine's images, whose reads and writes it can bound; ``None`` where it is not known which,
    or the engine cannot."""
    seccomp: bool
    no_new_privileges: bool
    no_network: bool
    apparmor: str
    """Name of the AppArmor profile for plugins; empty where the engine has no AppArmor."""
    user_namespaces: bool
    """User ids are remapped: root in a container is nobody outside."""
    uid_offset: int = 0
    """What the machine adds to a container's user ids; 0 where they are not mapped."""
    gid_offset: int = 0
    live_update: bool
    """Limits of a running container can be changed."""
    live_restore: bool
    """Containers outlive a restart of the engine."""
    runtimes: tuple[str, ...]
    default_runtime: str

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return {**asdict(self), "runtimes": list(self.runtimes)}


def digest_of_json(value: Any) -> str:
    """``sha256:<hex>`` of a JSON value, whatever its key order and spacing were."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def environment_digest(environment: dict[str, str]) -> str:
    """Digest of names and values, so that both can be compared and neither has to be shown."""
    return digest_of_json(environment)
