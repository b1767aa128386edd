"""Reading back: what is compared, and how Docker's answers are put into the form that is compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from tests.fakes.sandboxes import REQUEST
from wirthforge_host.sandbox import docker_forms as forms
from wirthforge_host.sandbox.hardening import harden
from wirthforge_host.sandbox.memory_engine import CAPABLE, IMAGE
from wirthforge_host.sandbox.models import ContainerSettings, ContainerSpec, Mount
from wirthforge_host.sandbox.readback import compare

Answer = dict[str, Any]

SPEC = harden(
    REQUEST,
    replace(IMAGE, environment=("GPG_KEY",)),
    replace(CAPABLE, io_device="/dev/vda"),
)


def inspect_answer(spec: ContainerSpec = SPEC) -> Answer:
    """What an engine that does as it was told answers: the create body, and what it adds to it."""
    body = json.loads(json.dumps(forms.create_body(spec)))
    host = body.pop("HostConfig")
    return {
        "Image": spec.settings.image,
        "AppArmorProfile": "",
        "Config": body,
        "HostConfig": host | {"Binds": None, "PortBindings": None, "Links": None, "VolumesFrom": None},
        "Mounts": [
            {
                "Type": mount["Type"],
                "Source": mount["Source"],
                "Destination": mount["Target"],
                "RW": not mount["ReadOnly"],
                "Propagation": mount["BindOptions"]["Propagation"],
            }
            for mount in host["Mounts"]
        ],
        "NetworkSettings": {"Networks": {"none": {}}},
    }


def differences(answer: Answer) -> set[str]:
    return {mismatch.setting for mismatch in compare(SPEC, forms.settings(answer))}


def test_an_engine_that_did_as_it_was_told_differs_in_nothing() -> None:
    assert compare(SPEC, forms.settings(inspect_answer())) == ()


@pytest.mark.parametrize("setting", [field.name for field in fields(ContainerSettings)])
def test_a_difference_in_any_setting_is_found_and_named(setting: str) -> None:
    changed: dict[str, Any] = {setting: "something else"}
    [mismatch] = compare(SPEC, replace(SPEC.settings, **changed))
    assert (mismatch.setting, mismatch.found) == (setting, "something else")
    assert mismatch.wanted == getattr(SPEC.settings, setting)
    assert setting in str(mismatch)


@pytest.mark.parametrize(
    "setting",
    [field.name for field in fields(ContainerSettings) if getattr(SPEC.settings, field.name) is not None],
)
def test_a_setting_the_engine_does_not_report_is_a_difference(setting: str) -> None:
    unknown: dict[str, Any] = {setting: None}
    assert [mismatch.setting for mismatch in compare(SPEC, replace(SPEC.settings, **unknown))] == [setting]


def test_a_setting_reported_unasked_is_a_difference() -> None:
    assert [m.setting for m in compare(SPEC, replace(SPEC.settings, memory_swappiness=0))] == [
        "memory_swappiness"
    ]


def test_no_is_not_the_same_as_zero() -> None:
    lax: dict[str, Any] = {"privileged": 0}
    assert [mismatch.setting for mismatch in compare(SPEC, replace(SPEC.settings, **lax))] == ["privileged"]


def in_host(**changes: object) -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        answer["HostConfig"].update(changes)

    return change


def in_config(**changes: object) -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        answer["Config"].update(changes)

    return change


def with_another_mount(answer: Answer) -> None:
    answer["Mounts"].append(
        {"Type": "bind", "Source": "/etc", "Destination": "/etc2", "RW": True, "Propagation": "rprivate"}
    )


def with_a_writable_bind(answer: Answer) -> None:
    answer["Mounts"][0]["RW"] = True


def with_a_recursive_bind(answer: Answer) -> None:
    answer["HostConfig"]["Mounts"][0]["BindOptions"]["NonRecursive"] = False


def with_another_network(answer: Answer) -> None:
    answer["NetworkSettings"]["Networks"]["bridge"] = {}


def with_an_option(text: str) -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        answer["HostConfig"]["SecurityOpt"].append(text)

    return change


def without_options(answer: Answer) -> None:
    answer["HostConfig"]["SecurityOpt"] = None


def with_a_laxer_profile(answer: Answer) -> None:
    options = answer["HostConfig"]["SecurityOpt"]
    options[1] = options[1].replace("SCMP_ACT_ERRNO", "SCMP_ACT_LOG")


def with_a_variable(answer: Answer) -> None:
    answer["Config"]["Env"].append("LD_PRELOAD=/plugin/evil.so")


def with_another_value(answer: Answer) -> None:
    answer["Config"]["Env"] = [
        entry.replace("/usr/local/bin", "/plugin") for entry in answer["Config"]["Env"]
    ]


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        (in_host(Privileged=True), {"privileged"}),
        (in_host(CapAdd=["SYS_ADMIN"]), {"capabilities_added"}),
        (in_host(CapDrop=None), {"capabilities_dropped"}),
        (in_host(NetworkMode="host"), {"network_mode"}),
        (in_host(PidMode="host"), {"pid_mode"}),
        (in_host(IpcMode="shareable"), {"ipc_mode"}),
        (in_host(UTSMode="host"), {"uts_mode"}),
        (in_host(UsernsMode="host"), {"user_namespace"}),
        (in_host(CgroupnsMode="host"), {"cgroup_namespace"}),
        (in_host(ReadonlyRootfs=False), {"read_only_root"}),
        (in_host(MaskedPaths=[]), {"masked_paths"}),
        (in_host(ReadonlyPaths=None), {"readonly_paths"}),
        (in_host(Memory=0), {"memory_bytes"}),
        (in_host(MemorySwap=-1), {"memory_and_swap_bytes"}),
        (in_host(PidsLimit=None), {"pids"}),
        (in_host(CpuQuota=0), {"cpu_quota_us"}),
        (in_host(OomKillDisable=True), {"out_of_memory_kill"}),
        (in_host(Ulimits=None), {"ulimits"}),
        (in_host(Tmpfs={"/tmp": "rw,exec"}), {"tmpfs"}),
        (in_host(Devices=[{"PathOnHost": "/dev/kvm"}]), {"devices"}),
        (in_host(DeviceRequests=[{"Driver": "nvidia"}]), {"devices"}),
        (in_host(DeviceCgroupRules=["c *:* rwm"]), {"devices"}),
        (in_host(Sysctls={"net.ipv4.ip_forward": "1"}), {"sysctls"}),
        (in_host(GroupAdd=["0"]), {"extra_groups"}),
        (in_host(VolumesFrom=["other"]), {"volumes_from"}),
        (in_host(PortBindings={"80/tcp": []}), {"published_ports"}),
        (in_host(PublishAllPorts=True), {"published_ports"}),
        (in_host(ExtraHosts=["db:10.0.0.1"]), {"extra_hosts"}),
        (in_host(Dns=None), {"dns"}),
        (in_host(LogConfig={"Type": "json-file"}), {"log_driver"}),
        (in_host(RestartPolicy={"Name": "always"}), {"restart_policy"}),
        (in_host(Runtime="other"), {"runtime"}),
        (in_host(BlkioDeviceReadBps=None), {"io_limits"}),
        (in_host(BlkioDeviceWriteIOps=[{"Path": "/dev/vda", "Rate": 1_000_000}]), {"io_limits"}),
        (in_host(BlkioDeviceReadIOps=[{"Path": "/dev/vdb", "Rate": 400}]), {"io_limits"}),
        (in_config(User=""), {"user"}),
        (in_config(WorkingDir="/proc/self/fd/8"), {"working_directory"}),
        (in_config(Entrypoint=["/bin/sh"]), {"entrypoint"}),
        (in_config(Healthcheck=None), {"healthcheck", "healthcheck_interval_s"}),
        (in_config(Tty=True), {"terminal"}),
        (in_config(Labels={}), {"labels"}),
        (with_another_mount, {"mounts"}),
        (with_a_writable_bind, {"mounts"}),
        (with_a_recursive_bind, {"mounts"}),
        (with_another_network, {"networks"}),
        (with_an_option("label=disable"), {"other_security_options"}),
        (with_an_option("apparmor=unconfined"), {"apparmor"}),
        (with_an_option("seccomp=unconfined"), {"seccomp"}),
        (with_an_option("no-new-privileges:false"), {"no_new_privileges"}),
        (without_options, {"no_new_privileges", "seccomp"}),
        (with_a_laxer_profile, {"seccomp"}),
        (with_a_variable, {"environment", "environment_digest"}),
        (with_another_value, {"environment_digest"}),
    ],
)
def test_each_way_an_engine_can_loosen_a_container_is_noticed(
    change: Callable[[Answer], None], settings: set[str]
) -> None:
    answer = inspect_answer()
    change(answer)
    assert differences(answer) == settings


def test_an_empty_answer_differs_wherever_something_protects() -> None:
    found = differences({})
    assert {
        "privileged",
        "read_only_root",
        "seccomp",
        "user",
        "masked_paths",
        "pids",
        "mounts",
        "runtime",
    } <= found


def test_a_label_of_the_image_is_not_a_difference() -> None:
    answer = inspect_answer()
    answer["Config"]["Labels"]["wirthforge.runtime"] = "python"
    assert differences(answer) == set()


def test_a_report_of_a_difference_shows_no_value_of_the_environment() -> None:
    answer = inspect_answer()
    answer["Config"]["Env"].append("TOKEN=hunter2")
    assert "hunter2" not in " ".join(map(str, compare(SPEC, forms.settings(answer))))


def test_effective_settings_are_plain_json() -> None:
    plain = SPEC.settings.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["mounts"][0]["target"] == "/plugin"


def test_a_mount_of_unknown_mode_counts_as_writable() -> None:
    answer = inspect_answer()
    del answer["Mounts"][0]["RW"]
    [mismatch] = compare(SPEC, forms.settings(answer))
    assert any(isinstance(mount, Mount) and not mount.read_only for mount in mismatch.found)
