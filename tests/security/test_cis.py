"""Section 5 of the CIS Docker Benchmark 1.6.0, "Container Runtime", on a plugin that the host started.

Each of its checks is one function of evidence: what the engine answers about the container and about itself, and what
the kernel says about the container's processes. It returns a complaint, which the benchmark calls a warning, or None.
That each can complain is shown on the same evidence with everything in it made careless.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.fakes.world import PLUGIN, SOCKET, worker, world_on_engine
from wirthforge_host.sandbox.kernel import KernelFacts
from wirthforge_sdk.contracts.host_api import EffectiveOut

pytestmark = pytest.mark.engine


@dataclass(frozen=True)
class Evidence:
    """What the checks are decided by."""

    container: dict[str, Any]
    """``GET /containers/<id>/json``."""
    engine: dict[str, Any]
    """``GET /info``."""
    image: str
    """Id of the operator's image now."""
    kernel: KernelFacts
    programs: tuple[str, ...]
    """Of all processes in the container."""
    told: EffectiveOut
    """What the host tells its operator."""

    @property
    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = self.container["HostConfig"]
        return settings

    @property
    def ports(self) -> dict[str, list[dict[str, str]] | None]:
        ports: dict[str, list[dict[str, str]] | None] = self.container["NetworkSettings"]["Ports"] or {}
        return ports


EVERY_INTERFACE = "0.0.0.0"  # noqa: S104 (what must not be)
PRIVILEGED_PORTS = range(1024)

Check = Callable[[Evidence], str | None]
CHECKS: dict[str, Check] = {}


def check(number: str, title: str) -> Callable[[Check], Check]:
    """Enters a check under its number and title in the benchmark."""

    def enter(found: Check) -> Check:
        CHECKS[f"{number} {title}"] = found
        return found

    return enter


def unless(fine: object, complaint: str) -> str | None:
    return None if fine else complaint


@check("5.1", "Ensure swarm mode is not Enabled, if not needed")
def swarm(seen: Evidence) -> str | None:
    return unless(seen.engine["Swarm"]["LocalNodeState"] == "inactive", "swarm mode is on")


@check("5.2", "Ensure that, if applicable, an AppArmor Profile is enabled")
def apparmor(seen: Evidence) -> str | None:
    profile = seen.container["AppArmorProfile"]
    if any(option.startswith("name=apparmor") for option in seen.engine["SecurityOptions"]):
        return unless(profile not in ("", "unconfined") and seen.kernel.apparmor == profile, "no profile")
    # Not applicable here, which the operator is told and not spared.
    (line,) = (line for line in seen.told.grade.lines if line.name == "mandatory access")
    honest = (line.points, line.reason) == (
        0,
        "no AppArmor profile",
    ) and profile == seen.kernel.apparmor == ""
    return unless(honest, "the machine has no AppArmor, and the host says otherwise")


@check("5.3", "Ensure that, if applicable, SELinux security options are set")
def security_options(seen: Evidence) -> str | None:
    return unless(seen.settings["SecurityOpt"], "no security options")


@check("5.4", "Ensure that Linux kernel capabilities are restricted within containers")
def capabilities(seen: Evidence) -> str | None:
    asked = not seen.settings["CapAdd"] and seen.settings["CapDrop"] == ["ALL"]
    return unless(asked and seen.kernel.capabilities == (), "has capabilities")


@check("5.5", "Ensure that privileged containers are not used")
def privileged(seen: Evidence) -> str | None:
    return unless(seen.settings["Privileged"] is False, "is privileged")


SENSITIVE = tuple(Path(f"/{name}") for name in ("boot", "dev", "etc", "lib", "proc", "sys", "usr"))


@check("5.6", "Ensure sensitive host system directories are not mounted on containers")
def sensitive(seen: Evidence) -> str | None:
    sources = [Path(mount["Source"]) for mount in seen.container["Mounts"]]
    bad = [
        str(source)
        for source in sources
        if source == Path("/") or any(source.is_relative_to(directory) for directory in SENSITIVE)
    ]
    return unless(not bad and not seen.kernel.other_mounts, f"mounts {', '.join(bad)}")


@check("5.7", "Ensure sshd is not run within containers")
def sshd(seen: Evidence) -> str | None:
    return unless(seen.programs and "sshd" not in seen.programs, "runs sshd")


@check("5.8", "Ensure privileged ports are not mapped within containers")
def privileged_ports(seen: Evidence) -> str | None:
    low = [
        port
        for port, bound in seen.ports.items()
        if bound and int(port.partition("/")[0]) in PRIVILEGED_PORTS
    ]
    return unless(not low, f"maps {low}")


@check("5.9", "Ensure that only needed ports are open on the container")
def open_ports(seen: Evidence) -> str | None:
    return unless(not seen.ports and not seen.settings["PublishAllPorts"], "needs no port and has some")


@check("5.10", "Ensure that the host's network namespace is not shared")
def host_network(seen: Evidence) -> str | None:
    own = "net" in seen.kernel.own_namespaces and seen.kernel.interfaces == ("lo",)
    return unless(seen.settings["NetworkMode"] != "host" and own, "shares the host's network")


@check("5.11", "Ensure that the memory usage for containers is limited")
def memory(seen: Evidence) -> str | None:
    return unless(seen.settings["Memory"] and seen.kernel.memory_bytes == seen.settings["Memory"], "no limit")


@check("5.12", "Ensure that CPU priority is set appropriately on containers")
def shares(seen: Evidence) -> str | None:
    return unless(seen.settings["CpuShares"] not in (0, 1024), "has the default's priority")


@check("5.13", "Ensure that the container's root filesystem is mounted as read only")
def read_only(seen: Evidence) -> str | None:
    in_force = seen.kernel.root_read_only and not seen.kernel.written_to_disk
    return unless(seen.settings["ReadonlyRootfs"] is True and in_force, "can write on a disk")


@check("5.14", "Ensure that incoming container traffic is bound to a specific host interface")
def interfaces(seen: Evidence) -> str | None:
    addresses = [each["HostIp"] for bound in seen.ports.values() for each in bound or ()]
    return unless(not {EVERY_INTERFACE, "::", ""} & set(addresses), "listens on every interface")


@check("5.15", "Ensure that the 'on-failure' container restart policy is set to '5'")
def restarts(seen: Evidence) -> str | None:
    policy = seen.settings["RestartPolicy"]
    bounded = policy["Name"] == "on-failure" and 0 < policy["MaximumRetryCount"] <= 5
    return unless(policy["Name"] in ("", "no") or bounded, "is restarted without end")


@check("5.16", "Ensure that the host's process namespace is not shared")
def processes(seen: Evidence) -> str | None:
    return unless(seen.settings["PidMode"] == "" and "pid" in seen.kernel.own_namespaces, "sees processes")


@check("5.17", "Ensure that the host's IPC namespace is not shared")
def ipc(seen: Evidence) -> str | None:
    return unless(
        seen.settings["IpcMode"] in ("private", "none") and "ipc" in seen.kernel.own_namespaces, "shares IPC"
    )


@check("5.18", "Ensure that host devices are not directly exposed to containers")
def devices(seen: Evidence) -> str | None:
    standard = ("full", "null", "random", "tty", "urandom", "zero")
    return unless(not seen.settings["Devices"] and seen.kernel.devices == standard, "has devices")


@check("5.19", "Ensure that the default ulimit is overwritten at runtime if needed")
def ulimits(seen: Evidence) -> str | None:
    asked = {each["Name"]: (each["Soft"], each["Hard"]) for each in seen.settings["Ulimits"] or ()}
    in_force = {name: (soft, hard) for name, soft, hard in seen.kernel.ulimits}
    return unless(
        {"nofile", "nproc", "core", "fsize"} <= asked.keys() and asked == in_force, "no own ulimits"
    )


@check("5.20", "Ensure mount propagation mode is not set to shared")
def propagation(seen: Evidence) -> str | None:
    modes = {mount["Propagation"] for mount in seen.container["Mounts"]}
    return unless(not modes & {"shared", "rshared"}, "shares its mounts")


@check("5.21", "Ensure that the host's UTS namespace is not shared")
def uts(seen: Evidence) -> str | None:
    return unless(seen.settings["UTSMode"] == "" and "uts" in seen.kernel.own_namespaces, "shares names")


@check("5.22", "Ensure the default seccomp profile is not Disabled")
def seccomp(seen: Evidence) -> str | None:
    off = any(option.endswith("seccomp=unconfined") for option in seen.settings["SecurityOpt"] or ())
    return unless(not off and seen.kernel.system_calls == "filtered", "all system calls are open")


@check("5.23", "Ensure that docker exec commands are not used with the privileged option")
def privileged_exec(seen: Evidence) -> str | None:
    return unless(not seen.container["ExecIDs"], "somebody runs a command in it")


@check("5.24", "Ensure that docker exec commands are not used with the user=root option")
def root_exec(seen: Evidence) -> str | None:
    user = seen.container["Config"]["User"].partition(":")[0]
    own = user.isdecimal() and int(user) > 0
    return unless(
        own and not seen.container["ExecIDs"] and seen.kernel.uids == (int(user),) * 4, "runs as root"
    )


@check("5.25", "Ensure that cgroup usage is confirmed")
def cgroup(seen: Evidence) -> str | None:
    return unless(seen.settings["CgroupParent"] == "", "is in another group than the engine's")


@check("5.26", "Ensure that the container is restricted from acquiring additional privileges")
def new_privileges(seen: Evidence) -> str | None:
    asked = {"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"}
    options = set(seen.settings["SecurityOpt"] or ())
    return unless(asked & options and seen.kernel.no_new_privileges, "may get more privileges")


@check("5.27", "Ensure that container health is checked at runtime")
def health(seen: Evidence) -> str | None:
    probe = seen.container["Config"].get("Healthcheck") or {}
    return unless(
        probe.get("Test") not in (None, [], ["NONE"]) and "Health" in seen.container["State"], "no probe"
    )


@check("5.28", "Ensure that Docker commands always make use of the latest version of their image")
def latest(seen: Evidence) -> str | None:
    return unless(
        seen.container["Image"] == seen.container["Config"]["Image"] == seen.image, "of an old image"
    )


@check("5.29", "Ensure that the PIDs cgroup limit is used")
def pids(seen: Evidence) -> str | None:
    limit = seen.settings["PidsLimit"]
    return unless(limit and limit > 0 and seen.kernel.pids == limit, "may make processes without end")


@check("5.30", "Ensure that Docker's default bridge 'docker0' is not used")
def bridge(seen: Evidence) -> str | None:
    return unless(seen.container["NetworkSettings"]["Networks"].keys() == {"none"}, "is on a network")


@check("5.31", "Ensure that the host's user namespaces are not shared")
def users(seen: Evidence) -> str | None:
    return unless(seen.settings["UsernsMode"] == "", "opts out of mapped users")


@check("5.32", "Ensure that the Docker socket is not mounted inside any containers")
def engine_socket(seen: Evidence) -> str | None:
    inside = [path for mount in seen.container["Mounts"] for path in (mount["Source"], mount["Destination"])]
    bad = [path for path in (*inside, *seen.kernel.other_mounts) if path.endswith("docker.sock")]
    return unless(not bad, "can drive the engine")


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Of one plugin, installed and started as any is."""
    return asyncio.run(_gathered(tmp_path_factory.mktemp("cis") / "h"))


async def _gathered(directory: Path) -> Evidence:
    async with world_on_engine(directory, worker()) as host:
        await host.install()
        instance = host.wiring.reconciler.live(PLUGIN)
        assert instance is not None
        found, _ = await host.wiring.instances.effective(instance)
        assert found.kernel is not None
        told = await host.wiring.plugins.effective(PLUGIN)
        image = host.wiring.settings.image
        return await asyncio.to_thread(_asked, instance.container_id, image, found.kernel, told)


def _asked(container: str, image: str, kernel: KernelFacts, told: EffectiveOut) -> Evidence:
    client = docker.APIClient(base_url=SOCKET, version="auto")
    try:
        return Evidence(
            container=client.inspect_container(container),
            engine=client.info(),
            image=client.inspect_image(image)["Id"],
            kernel=kernel,
            programs=tuple(row[-1] for row in client.top(container, "-eo pid,comm")["Processes"]),
            told=told,
        )
    finally:
        client.close()


@pytest.mark.requirement("ISO-1", "ISO-3", "ISO-5")
@pytest.mark.parametrize("name", CHECKS)
def test_the_benchmark_has_nothing_to_say_about_a_plugin(evidence: Evidence, name: str) -> None:
    assert CHECKS[name](evidence) is None


def test_it_is_the_whole_section() -> None:
    assert [name.partition(" ")[0] for name in CHECKS] == [f"5.{number}" for number in range(1, 33)]


@pytest.mark.parametrize("name", CHECKS)
def test_the_benchmark_warns_of_a_careless_container(evidence: Evidence, name: str) -> None:
    assert CHECKS[name](careless(evidence)) is not None


def careless(evidence: Evidence) -> Evidence:
    """The same container as somebody makes one who wants it to run, whatever it takes."""
    container, engine = copy.deepcopy(evidence.container), copy.deepcopy(evidence.engine)
    container |= {"AppArmorProfile": "unconfined", "ExecIDs": ["1"], "Image": "sha256:old"}
    container["Config"] |= {"User": "", "Healthcheck": None, "Image": "plugin:latest"}
    container["Mounts"] = [
        {"Source": "/etc", "Destination": "/host/etc", "Propagation": "shared"},
        {"Source": "/run/docker.sock", "Destination": "/run/docker.sock", "Propagation": "rprivate"},
    ]
    ports = {"22/tcp": [{"HostIp": EVERY_INTERFACE, "HostPort": "22"}]}
    container["NetworkSettings"] |= {"Ports": ports, "Networks": {"bridge": {}}}
    container["HostConfig"] |= dict.fromkeys(
        ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode"), "host"
    )
    container["HostConfig"] |= dict.fromkeys(("SecurityOpt", "CapDrop", "PidsLimit", "Ulimits"))
    container["HostConfig"] |= {
        "CapAdd": ["SYS_ADMIN"],
        "Privileged": True,
        "Memory": 0,
        "CpuShares": 0,
        "CgroupParent": "/mine",
        "ReadonlyRootfs": False,
        "Devices": [{"PathOnHost": "/dev/kmsg"}],
        "PublishAllPorts": True,
        "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
    }
    engine["Swarm"]["LocalNodeState"] = "active"
    kernel = replace(evidence.kernel, system_calls="not filtered")
    return replace(evidence, container=container, engine=engine, kernel=kernel, programs=("python", "sshd"))
