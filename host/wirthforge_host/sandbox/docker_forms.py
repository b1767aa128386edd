"""How Docker's API writes what ``models`` says: the create body, and inspect answers in normal form. Pure.

What only ever adds rights (capabilities, devices, mounts) counts as absent when an answer does not mention
it. What protects counts as missing, and so as a mismatch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from wirthforge_host.sandbox.models import (
    LABEL_INSTANCE,
    LABELS,
    ContainerEvent,
    ContainerSettings,
    ContainerSpec,
    ContainerState,
    EngineCapabilities,
    EventKind,
    ImageInfo,
    Mount,
    digest_of_json,
    environment_digest,
)

Json = Mapping[str, Any]

IO_LIMITS = {
    "read_bytes": "BlkioDeviceReadBps",
    "read_operations": "BlkioDeviceReadIOps",
    "write_bytes": "BlkioDeviceWriteBps",
    "write_operations": "BlkioDeviceWriteIOps",
}
"""How the engine calls what is bounded of a device."""

_REMAPPED = re.compile(r".*/(\d{1,10})\.(\d{1,10})/?")

UNKNOWN = "unknown"
NANOSECONDS = 1_000_000_000
OWN_PROFILE = "wirthforge-plugin"
"""``images/apparmor/wirthforge-plugin``."""
ENGINE_PROFILE = "docker-default"
"""What the engine loads by itself."""
NEVER = "0001-01-01"
"""How the engine writes the time of what has not happened."""


def create_body(spec: ContainerSpec) -> dict[str, Any]:
    """The body of ``POST /containers/create``."""
    wanted = spec.settings
    return {
        "Image": wanted.image,
        "Entrypoint": list(wanted.entrypoint),
        "Cmd": list(wanted.command),
        # A bare name takes what the image declares away.
        "Env": [f"{name}={value}" for name, value in spec.environment] + list(spec.removed_environment),
        "User": wanted.user,
        "WorkingDir": wanted.working_directory,
        "Hostname": wanted.hostname,
        "StopSignal": wanted.stop_signal,
        "StopTimeout": wanted.stop_timeout_s,
        "Healthcheck": {
            "Test": list(wanted.healthcheck),
            "Interval": (wanted.healthcheck_interval_s or 0) * NANOSECONDS,
        },
        "OpenStdin": wanted.stdin,
        "Tty": wanted.terminal,
        "Labels": dict(wanted.labels),
        "HostConfig": _rights(spec) | _view(wanted) | _limits(wanted),
    }


def _rights(spec: ContainerSpec) -> dict[str, Any]:
    wanted = spec.settings
    options = [
        f"no-new-privileges:{str(wanted.no_new_privileges).lower()}",
        f"seccomp={spec.seccomp_profile}",
    ]
    if wanted.apparmor:
        options.append(f"apparmor={wanted.apparmor}")
    return {
        "Privileged": wanted.privileged,
        "CapAdd": list(wanted.capabilities_added),
        "CapDrop": list(wanted.capabilities_dropped),
        "GroupAdd": list(wanted.extra_groups),
        "SecurityOpt": options + list(wanted.other_security_options),
        "Runtime": wanted.runtime,
        "RestartPolicy": {"Name": wanted.restart_policy, "MaximumRetryCount": 0},
        "AutoRemove": wanted.auto_remove,
        "Init": wanted.init,
        "LogConfig": {"Type": wanted.log_driver, "Config": {}},
    }


def _view(wanted: ContainerSettings) -> dict[str, Any]:
    return {
        "NetworkMode": wanted.network_mode,
        "Dns": list(wanted.dns),
        "DnsSearch": list(wanted.dns_search),
        "DnsOptions": list(wanted.dns_options),
        "ExtraHosts": list(wanted.extra_hosts),
        "IpcMode": wanted.ipc_mode,
        "PidMode": wanted.pid_mode,
        "UTSMode": wanted.uts_mode,
        "UsernsMode": wanted.user_namespace,
        "CgroupnsMode": wanted.cgroup_namespace,
        "CgroupParent": wanted.cgroup_parent,
        "ReadonlyRootfs": wanted.read_only_root,
        "Mounts": [
            {
                "Type": mount.kind,
                "Source": mount.source,
                "Target": mount.target,
                "ReadOnly": mount.read_only,
                "BindOptions": {"Propagation": mount.propagation, "NonRecursive": not mount.recursive},
            }
            for mount in wanted.mounts
        ],
        "Tmpfs": {path: ",".join(options) for path, options in wanted.tmpfs},
        "Devices": list(wanted.devices),
        "Sysctls": dict(wanted.sysctls),
        "MaskedPaths": list(wanted.masked_paths),
        "ReadonlyPaths": list(wanted.readonly_paths),
    }


def _limits(wanted: ContainerSettings) -> dict[str, Any]:
    return {
        "Memory": wanted.memory_bytes,
        "MemorySwap": wanted.memory_and_swap_bytes,
        "MemoryReservation": wanted.memory_reservation_bytes,
        "MemorySwappiness": wanted.memory_swappiness,
        "OomKillDisable": not wanted.out_of_memory_kill,
        "OomScoreAdj": wanted.out_of_memory_score,
        "CpuPeriod": wanted.cpu_period_us,
        "CpuQuota": wanted.cpu_quota_us,
        "CpuShares": wanted.cpu_shares,
        "NanoCpus": wanted.nano_cpus,
        "PidsLimit": wanted.pids,
        "ShmSize": wanted.shared_memory_bytes,
        "Ulimits": [{"Name": name, "Soft": soft, "Hard": hard} for name, soft, hard in wanted.ulimits],
        **{
            theirs: [
                {"Path": device, "Rate": rate} for what, device, rate in wanted.io_limits if what == ours
            ]
            for ours, theirs in IO_LIMITS.items()
        },
    }


def settings(answer: Json) -> ContainerSettings:
    """Puts an inspect answer into normal form."""
    host: Json = answer.get("HostConfig") or {}
    return ContainerSettings(
        **_found_program(answer),
        **_found_rights(answer, host),
        **_found_view(answer, host),
        **_found_limits(host),
    )


def _found_program(answer: Json) -> dict[str, Any]:
    config: Json = answer.get("Config") or {}
    environment = dict(entry.split("=", 1) for entry in config.get("Env") or () if "=" in entry)
    health: Json = config.get("Healthcheck") or {}
    interval = health.get("Interval")
    return {
        "image": answer.get("Image"),
        "entrypoint": tuple(config.get("Entrypoint") or ()),
        "command": tuple(config.get("Cmd") or ()),
        "environment": tuple(sorted(environment)),
        "environment_digest": environment_digest(environment),
        "working_directory": config.get("WorkingDir", UNKNOWN),
        "hostname": config.get("Hostname", UNKNOWN),
        "stop_signal": config.get("StopSignal", UNKNOWN),
        "stop_timeout_s": config.get("StopTimeout"),
        "healthcheck": tuple(health.get("Test") or ()),
        "healthcheck_interval_s": interval // NANOSECONDS if interval is not None else None,
        "stdin": bool(config.get("OpenStdin") or config.get("AttachStdin")),
        "terminal": bool(config.get("Tty")),
        "labels": tuple(sorted(item for item in (config.get("Labels") or {}).items() if item[0] in LABELS)),
        "user": config.get("User", UNKNOWN),
    }


def _found_rights(answer: Json, host: Json) -> dict[str, Any]:
    options = dict(_security_option(text) for text in host.get("SecurityOpt") or ())
    profile = options.pop("seccomp", None)
    apparmor = answer.get("AppArmorProfile") or options.get("apparmor", "")
    options.pop("apparmor", None)
    return {
        "no_new_privileges": options.pop("no-new-privileges", "false") in ("", "true"),
        "seccomp": _seccomp(profile),
        "apparmor": apparmor,
        "other_security_options": tuple(sorted(f"{name}={value}" for name, value in options.items())),
        "privileged": host.get("Privileged"),
        "capabilities_added": tuple(sorted(host.get("CapAdd") or ())),
        "capabilities_dropped": tuple(sorted(host.get("CapDrop") or ())),
        "extra_groups": tuple(sorted(host.get("GroupAdd") or ())),
        "runtime": host.get("Runtime", UNKNOWN),
        "restart_policy": (host.get("RestartPolicy") or {}).get("Name") or "no",
        "auto_remove": bool(host.get("AutoRemove")),
        "init": host.get("Init"),
        "log_driver": (host.get("LogConfig") or {}).get("Type", UNKNOWN),
    }


def _security_option(text: str) -> tuple[str, str]:
    # "name=value" today, "name:value" in older engines, and a bare "no-new-privileges".
    name = text.split("=", 1)[0].split(":", 1)[0]
    return name, text[len(name) + 1 :]


def _seccomp(profile: str | None) -> str:
    if profile is None or profile == "builtin":
        return "engine default"
    if profile == "unconfined":
        return profile
    try:
        return digest_of_json(json.loads(profile))
    except ValueError:
        return UNKNOWN


def _found_view(answer: Json, host: Json) -> dict[str, Any]:
    networks: Json = (answer.get("NetworkSettings") or {}).get("Networks") or {}
    ports = [*(host.get("PortBindings") or {}), *(["all"] if host.get("PublishAllPorts") else [])]
    devices = [
        json.dumps(device, sort_keys=True)
        for kind in ("Devices", "DeviceRequests", "DeviceCgroupRules")
        for device in host.get(kind) or ()
    ]
    return {
        "network_mode": host.get("NetworkMode", UNKNOWN),
        "networks": tuple(sorted(networks)),
        "published_ports": tuple(sorted(ports)),
        "extra_hosts": tuple(sorted([*(host.get("ExtraHosts") or ()), *(host.get("Links") or ())])),
        "dns": tuple(host.get("Dns") or ()),
        "dns_search": tuple(host.get("DnsSearch") or ()),
        "dns_options": tuple(host.get("DnsOptions") or ()),
        "ipc_mode": host.get("IpcMode", UNKNOWN),
        "pid_mode": host.get("PidMode", UNKNOWN),
        "uts_mode": host.get("UTSMode", UNKNOWN),
        "user_namespace": host.get("UsernsMode", UNKNOWN),
        "cgroup_namespace": host.get("CgroupnsMode", UNKNOWN),
        "cgroup_parent": host.get("CgroupParent", UNKNOWN),
        "read_only_root": host.get("ReadonlyRootfs"),
        "mounts": _mounts(answer, host),
        "volumes_from": tuple(sorted(host.get("VolumesFrom") or ())),
        "tmpfs": tuple(sorted((path, _words(text)) for path, text in (host.get("Tmpfs") or {}).items())),
        "devices": tuple(devices),
        "sysctls": tuple(sorted((host.get("Sysctls") or {}).items())),
        "masked_paths": tuple(host.get("MaskedPaths") or ()),
        "readonly_paths": tuple(host.get("ReadonlyPaths") or ()),
    }


def _words(options: str) -> tuple[str, ...]:
    return tuple(sorted(options.split(",")))


def _mounts(answer: Json, host: Json) -> tuple[Mount, ...]:
    asked: dict[str, Json] = {
        mount["Target"]: mount.get("BindOptions") or {} for mount in host.get("Mounts") or ()
    }
    found = (
        Mount(
            target=mount["Destination"],
            source=mount.get("Source", UNKNOWN),
            read_only=mount.get("RW") is False,
            propagation=mount.get("Propagation", UNKNOWN),
            recursive=asked.get(mount["Destination"], {}).get("NonRecursive") is not True,
            kind=mount.get("Type", UNKNOWN),
        )
        for mount in answer.get("Mounts") or ()
    )
    return tuple(sorted(found))


def _found_limits(host: Json) -> dict[str, Any]:
    ulimits = ((limit["Name"], limit["Soft"], limit["Hard"]) for limit in host.get("Ulimits") or ())
    io_limits = (
        (ours, limit["Path"], limit["Rate"])
        for ours, theirs in IO_LIMITS.items()
        for limit in host.get(theirs) or ()
    )
    return {
        "memory_bytes": host.get("Memory"),
        "memory_and_swap_bytes": host.get("MemorySwap"),
        "memory_reservation_bytes": host.get("MemoryReservation"),
        "memory_swappiness": host.get("MemorySwappiness"),
        # cgroup v2 knows no way to switch it off, and says nothing.
        "out_of_memory_kill": not host.get("OomKillDisable"),
        "out_of_memory_score": host.get("OomScoreAdj"),
        "cpu_period_us": host.get("CpuPeriod"),
        "cpu_quota_us": host.get("CpuQuota"),
        "cpu_shares": host.get("CpuShares"),
        "nano_cpus": host.get("NanoCpus"),
        "pids": host.get("PidsLimit"),
        "shared_memory_bytes": host.get("ShmSize"),
        "ulimits": tuple(sorted(ulimits)),
        "io_limits": tuple(sorted(io_limits)),
    }


def state(answer: Json) -> ContainerState:
    """Reads the state out of an inspect answer."""
    found: Json = answer["State"]
    started = not found["StartedAt"].startswith(NEVER)
    running = bool(found["Running"])
    return ContainerState(
        id=answer["Id"],
        name=answer["Name"].removeprefix("/"),
        labels=dict(answer["Config"].get("Labels") or {}),
        running=running,
        paused=bool(found["Paused"]),
        exit_code=found["ExitCode"] if started and not running else None,
        oom_killed=bool(found["OOMKilled"]),
        pid=found["Pid"] or None,
        started_at=found["StartedAt"] if started else None,
    )


def image(answer: Json) -> ImageInfo:
    """Reads what matters out of an image's inspect answer."""
    config: Json = answer.get("Config") or {}
    return ImageInfo(
        id=answer["Id"],
        labels=dict(config.get("Labels") or {}),
        entrypoint=tuple(config.get("Entrypoint") or ()),
        environment=tuple(sorted(entry.split("=", 1)[0] for entry in config.get("Env") or ())),
        volumes=tuple(sorted(config.get("Volumes") or ())),
    )


def capabilities(
    info: Json, *, api_version: str, disk: str | None = None, profiles: frozenset[str] = frozenset()
) -> EngineCapabilities:
    """Reads what an engine can enforce out of ``GET /info``.

    Args:
        info: The engine's answer.
        api_version: That it speaks.
        disk: The one under its images, where known.
        profiles: AppArmor profiles that its kernel enforces, where known.
    """
    security = {option.removeprefix("name=").split(",")[0] for option in info.get("SecurityOptions") or ()}
    warnings = " ".join(info.get("Warnings") or ())
    cgroup_version = int(info.get("CgroupVersion") or 1)
    # Told nowhere else: an engine that maps ids keeps its data in a directory named after whom its root is mapped to.
    mapped = _REMAPPED.fullmatch(info.get("DockerRootDir", "")) if "userns" in security else None
    return EngineCapabilities(
        driver="docker",
        version=info.get("ServerVersion", UNKNOWN),
        api_version=api_version,
        cgroup_version=cgroup_version,
        memory_limit=bool(info.get("MemoryLimit")),
        swap_limit=bool(info.get("SwapLimit")),
        swappiness=cgroup_version == 1,
        cpu_quota=bool(info.get("CpuCfsQuota") and info.get("CpuCfsPeriod")),
        pids_limit=bool(info.get("PidsLimit")),
        # The engine tells what it lacks in sentences only.
        io_device=None if "blkio throttle" in warnings or "io.max" in warnings else disk,
        seccomp="seccomp" in security,
        no_new_privileges=info.get("OSType") == "linux",
        no_network="null" in ((info.get("Plugins") or {}).get("Network") or ()),
        apparmor=(OWN_PROFILE if OWN_PROFILE in profiles else ENGINE_PROFILE)
        if "apparmor" in security
        else "",
        user_namespaces=bool(security & {"userns", "rootless"}),
        uid_offset=int(mapped[1]) if mapped else 0,
        gid_offset=int(mapped[2]) if mapped else 0,
        live_update=True,
        live_restore=bool(info.get("LiveRestoreEnabled")),
        runtimes=tuple(sorted(info.get("Runtimes") or ())),
        default_runtime=info.get("DefaultRuntime", UNKNOWN),
    )


def event(answer: Json) -> ContainerEvent | None:
    """Reads one line of ``GET /events``; ``None`` for what does not matter."""
    kind = {"die": EventKind.EXITED, "oom": EventKind.OUT_OF_MEMORY}.get(answer.get("Action", ""))
    if kind is None:
        return None
    actor: Json = answer.get("Actor") or {}
    attributes: Json = actor.get("Attributes") or {}
    code = attributes.get("exitCode")
    return ContainerEvent(
        kind,
        container_id=actor.get("ID", ""),
        instance_id=attributes.get(LABEL_INSTANCE, ""),
        exit_code=int(code) if kind is EventKind.EXITED and code is not None else None,
    )
