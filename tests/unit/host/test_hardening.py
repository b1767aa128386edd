"""The pure function that says everything about a container, and the profile it puts in."""

from __future__ import annotations

import json
import re
import resource
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.sandboxes import REQUEST
from wirthforge_host.errors import EngineUnsuitableError, PolicyViolationError
from wirthforge_host.sandbox.hardening import MASKED_PATHS, UIDS, harden, made_with, spec_digest
from wirthforge_host.sandbox.memory_engine import CAPABLE, IMAGE
from wirthforge_host.sandbox.models import ContainerSettings, ContainerSpec, digest_of_json
from wirthforge_host.sandbox.seccomp import TRIPWIRE, profile
from wirthforge_sdk.contracts.bridge import MAX_EGRESS_HOSTS, egress_addresses
from wirthforge_sdk.contracts.policy import HOUSE_POLICY, SecurityPolicy
from wirthforge_sdk.contracts.resources import MIB, TIERS, Limits, Tier


def hardened(**changes: Any) -> ContainerSpec:
    return harden(replace(REQUEST, **changes), IMAGE, CAPABLE)


def test_the_same_request_gives_the_same_spec() -> None:
    assert hardened() == hardened()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("network_mode", "none"),
        ("dns", ("127.0.0.1",)),
        ("user", "61007:61007"),
        ("privileged", False),
        ("capabilities_added", ()),
        ("capabilities_dropped", ("ALL",)),
        ("no_new_privileges", True),
        ("seccomp", profile().digest),
        ("read_only_root", True),
        ("devices", ()),
        ("working_directory", "/"),
        ("pid_mode", ""),
        ("uts_mode", ""),
        ("user_namespace", ""),
        ("ipc_mode", "private"),
        ("cgroup_namespace", "private"),
        ("restart_policy", "no"),
        ("log_driver", "none"),
        ("init", False),
        ("stdin", False),
        ("terminal", False),
        ("published_ports", ()),
        ("nano_cpus", 0),
        ("out_of_memory_kill", True),
    ],
)
def test_every_sandbox_is_locked_down_the_same_way(setting: str, value: object) -> None:
    for spec in (hardened(), hardened(limits=TIERS[Tier.LARGE], uid=61_007, command=("--debug",))):
        assert getattr(spec.settings, setting) == value


def test_only_the_bridge_and_the_code_are_bound_and_both_read_only() -> None:
    spec = hardened()
    assert [
        (mount.target, mount.read_only, mount.propagation, mount.recursive) for mount in spec.settings.mounts
    ] == [
        ("/plugin", True, "rprivate", False),
        ("/run/wirthforge", True, "rprivate", False),
    ]
    assert spec.source_of("/run/wirthforge") == REQUEST.bridge_directory
    assert spec.source_of("/plugin") == REQUEST.code_directory


@pytest.mark.requirement("RES-2")
def test_limits_become_what_the_kernel_enforces() -> None:
    settings = hardened(
        limits=Limits(
            cpus=0.5,
            memory_bytes=128 * MIB,
            pids=64,
            tmpfs_bytes=16 * MIB,
            open_files=256,
            storage_bytes=0,
            io_bytes_per_s=16 * MIB,
            io_operations_per_s=400,
            calls_per_s=100,
        )
    ).settings
    assert settings.memory_bytes == settings.memory_and_swap_bytes == 128 * MIB
    assert (settings.cpu_period_us, settings.cpu_quota_us) == (10_000, 5_000)
    assert settings.pids == 64
    [(path, options)] = settings.tmpfs
    assert path == "/tmp"
    assert {"noexec", "nosuid", "nodev", f"size={16 * MIB}", "nr_inodes=2048", "uid=61007"} <= set(options)
    bounds = {name: (soft, hard) for name, soft, hard in settings.ulimits}
    assert (bounds["nofile"], bounds["core"]) == ((256, 256), (1, 1))
    # The control group bounds this plugin; what a user may have bounds it too, wherever the operator moves that.
    assert bounds["nproc"] == (HOUSE_POLICY.cap.pids, HOUSE_POLICY.cap.pids)


OTHER_LIMITS = st.builds(
    dict,
    cpus=st.floats(0.05, 16),
    memory_bytes=st.integers(32, 4096).map(lambda mib: mib * MIB),
    pids=st.integers(4, 4096),
    io_bytes_per_s=st.integers(64 * 1024, 1024 * MIB),
    io_operations_per_s=st.integers(16, 100_000),
    calls_per_s=st.integers(1, 1_000),
    storage_bytes=st.integers(0, 1024 * MIB),
)


@given(OTHER_LIMITS, OTHER_LIMITS)
def test_what_was_made_with_other_live_limits_is_known_by_its_label(
    made: dict[str, Any], now: dict[str, Any]
) -> None:
    engine = replace(CAPABLE, io_device="/dev/vda")
    before, after = (
        harden(replace(REQUEST, limits=REQUEST.limits.model_copy(update=limits)), IMAGE, engine)
        for limits in (made, now)
    )
    assert made_with(after, before.settings) == before


@pytest.mark.parametrize("other", [{"tmpfs_bytes": 2 * MIB}, {"open_files": 99}])
def test_what_was_made_with_limits_that_only_a_start_changes_is_another(other: dict[str, Any]) -> None:
    before = hardened(limits=REQUEST.limits.model_copy(update=other))
    assert dict(made_with(hardened(), before.settings).settings.labels) != dict(before.settings.labels)


@pytest.mark.parametrize("other", [{"pids": None}, {"memory_bytes": 0}, {"cpu_quota_us": 99_000}])
def test_what_was_changed_past_the_host_is_another(other: dict[str, Any]) -> None:
    before = hardened()
    changed = made_with(before, replace(before.settings, **other))
    assert dict(changed.settings.labels) != dict(before.settings.labels)


def test_reads_and_writes_are_bounded_on_the_disk_that_the_engine_knows() -> None:
    assert hardened().settings.io_limits == ()
    known = harden(REQUEST, IMAGE, replace(CAPABLE, io_device="/dev/vda"))
    assert known.settings.io_limits == (
        ("read_bytes", "/dev/vda", 16 * MIB),
        ("read_operations", "/dev/vda", 400),
        ("write_bytes", "/dev/vda", 16 * MIB),
        ("write_operations", "/dev/vda", 400),
    )


EGRESS = ("api.example.org:443", "api.example.org:8443", "db.example.org:5432")


def test_a_plugin_that_asks_for_connections_is_shown_their_hosts_and_a_proxy_and_still_has_no_network() -> (
    None
):
    spec = hardened(destinations=EGRESS, command=("--debug",))
    settings = spec.settings
    assert settings.network_mode == "none"
    assert settings.command == ("--debug", "--egress", ",".join(EGRESS))
    assert settings.extra_hosts == ("api.example.org:127.77.0.1", "db.example.org:127.77.0.2")
    assert settings.sysctls == (("net.ipv4.ip_unprivileged_port_start", "0"),)
    environment = dict(spec.environment)
    for name in ("HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        assert environment[name] == "http://127.0.0.1:3128"
    assert environment["NO_PROXY"] == environment["no_proxy"] == ""
    assert settings.environment == tuple(sorted(environment))
    assert settings.seccomp == profile(egress=True).digest == digest_of_json(json.loads(spec.seccomp_profile))
    assert settings.seccomp != hardened().settings.seccomp


def test_nothing_else_differs_for_a_plugin_that_asks_for_connections() -> None:
    plain, asking = hardened().settings, hardened(destinations=EGRESS).settings
    differing = {
        field.name
        for field in fields(ContainerSettings)
        if getattr(plain, field.name) != getattr(asking, field.name)
    }
    assert differing == {
        "command",
        "environment",
        "environment_digest",
        "extra_hosts",
        "labels",
        "seccomp",
        "sysctls",
    }


def test_addresses_of_hosts_depend_on_the_hosts_alone() -> None:
    assert egress_addresses(reversed(EGRESS)) == egress_addresses(EGRESS)
    most = [f"h{number:02}:1" for number in range(MAX_EGRESS_HOSTS)]
    assert egress_addresses(most)["h63"] == "127.77.0.64"
    with pytest.raises(ValueError, match="65 hosts"):
        egress_addresses([*most, "one-more:1"])


@given(cpus=st.floats(min_value=0.05, max_value=16))
def test_any_share_of_the_processor_is_met_with_a_quota_the_kernel_takes(cpus: float) -> None:
    settings = hardened(limits=TIERS[Tier.SMALL].model_copy(update={"cpus": cpus})).settings
    assert settings.cpu_period_us is not None
    assert settings.cpu_quota_us is not None
    assert 10_000 <= settings.cpu_period_us <= 20_000
    assert settings.cpu_quota_us >= 1_000
    assert settings.cpu_quota_us / settings.cpu_period_us == pytest.approx(cpus, rel=0.02)


def test_swappiness_is_set_only_where_the_engine_takes_it() -> None:
    assert hardened().settings.memory_swappiness is None
    old = harden(REQUEST, IMAGE, replace(CAPABLE, cgroup_version=1, swappiness=True))
    assert old.settings.memory_swappiness == 0


def test_the_profile_of_an_engine_with_apparmor_is_asked_for() -> None:
    assert hardened().settings.apparmor == ""
    engine = replace(CAPABLE, apparmor="wirthforge-plugin")
    assert harden(REQUEST, IMAGE, engine).settings.apparmor == "wirthforge-plugin"


@pytest.mark.parametrize(
    "capability",
    ["memory_limit", "swap_limit", "cpu_quota", "pids_limit", "seccomp", "no_new_privileges", "no_network"],
)
def test_an_engine_that_cannot_enforce_a_limit_runs_nothing(capability: str) -> None:
    lacking: dict[str, Any] = {capability: False}
    with pytest.raises(EngineUnsuitableError, match="lacks") as caught:
        harden(REQUEST, IMAGE, replace(CAPABLE, **lacking))
    assert len(caught.value.details["lacking"]) == 1


def required(**rules: Any) -> SecurityPolicy:
    return SecurityPolicy.model_validate({"require": rules})


@pytest.mark.requirement("SCH-3")
@pytest.mark.parametrize(
    ("rule", "having"),
    [
        ("apparmor", {"apparmor": "docker-default"}),
        ("user_namespaces", {"user_namespaces": True}),
        ("io_limits", {"io_device": "/dev/vda"}),
    ],
)
def test_an_engine_without_what_the_operator_requires_runs_nothing(rule: str, having: dict[str, Any]) -> None:
    with pytest.raises(EngineUnsuitableError, match=rf"rule require\.{rule} ") as caught:
        harden(REQUEST, IMAGE, CAPABLE, required(**{rule: True}))
    assert caught.value.details["rule"] == f"require.{rule}"
    harden(REQUEST, IMAGE, replace(CAPABLE, **having), required(**{rule: True}))


def test_the_first_required_runtime_that_the_engine_has_is_used() -> None:
    engine = replace(CAPABLE, runtimes=("kata", "runc", "runsc"))
    assert harden(REQUEST, IMAGE, engine).settings.runtime == "runc"
    chosen = required(runtimes=["krun", "runsc", "kata"])
    assert harden(REQUEST, IMAGE, engine, chosen).settings.runtime == "runsc"
    with pytest.raises(EngineUnsuitableError, match=r"require\.runtimes .* krun") as caught:
        harden(REQUEST, IMAGE, engine, required(runtimes=["krun"]))
    assert caught.value.details["rule"] == "require.runtimes"


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (replace(IMAGE, labels={}), "made for no plugin runtime"),
        (replace(IMAGE, labels={"wirthforge.runtime": "node"}), "made for node, not for python"),
        (replace(IMAGE, volumes=("/data",)), "/data"),
        (replace(IMAGE, entrypoint=()), "no entrypoint"),
    ],
)
def test_an_image_that_is_not_the_operators_for_this_runtime_is_refused(image: Any, reason: str) -> None:
    with pytest.raises(PolicyViolationError, match=reason):
        harden(REQUEST, image, CAPABLE)


@pytest.mark.parametrize(
    "change",
    [
        {"uid": 0},
        {"uid": 1000},
        {"uid": UIDS.start - 1},
        {"uid": UIDS.stop},
        {"instance_id": ""},
        {"instance_id": "../x"},
        {"instance_id": "a" * 64},
        {"bridge_directory": Path("relative")},
        {"bridge_directory": Path("/")},
        {"code_directory": Path("/etc")},
        {"code_directory": Path("/var/lib/../../etc/x")},
    ],
)
def test_a_request_no_working_host_makes_is_a_programming_error(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not"):
        hardened(**change)


def test_a_heap_of_node_is_bounded_by_half_the_memory_and_python_knows_nothing_of_it() -> None:
    limits = REQUEST.limits.model_copy(update={"memory_bytes": 300 * 1024 * 1024})
    image = replace(IMAGE, labels={**IMAGE.labels, "wirthforge.runtime": "node"})
    of_node = harden(replace(REQUEST, runtime="node", limits=limits), image, CAPABLE)
    assert dict(of_node.environment)["NODE_OPTIONS"] == "--max-old-space-size=150"
    assert "NODE_OPTIONS" not in dict(harden(replace(REQUEST, limits=limits), IMAGE, CAPABLE).environment)


def test_both_images_have_the_same_allow_list_of_system_calls() -> None:
    image = replace(IMAGE, labels={**IMAGE.labels, "wirthforge.runtime": "node"})
    of_node = harden(replace(REQUEST, runtime="node"), image, CAPABLE)
    assert of_node.seccomp_profile == harden(REQUEST, IMAGE, CAPABLE).seccomp_profile


def test_what_the_image_puts_in_the_environment_is_taken_out() -> None:
    spec = harden(REQUEST, replace(IMAGE, environment=("GPG_KEY", "PATH")), CAPABLE)
    assert spec.removed_environment == ("GPG_KEY",)
    assert spec.settings.environment == (
        "HOME",
        "LANG",
        "MALLOC_ARENA_MAX",
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_TRIM_THRESHOLD_",
        "PATH",
        "PYTHONDONTWRITEBYTECODE",
        "TMPDIR",
    )


def test_labels_say_what_runs_and_identify_the_spec() -> None:
    labels = dict(hardened().settings.labels)
    assert labels == {
        "wirthforge.plugin": "acme/notes",
        "wirthforge.release": "1.2.0",
        "wirthforge.digest": REQUEST.digest,
        "wirthforge.instance": "9f2c",
        "wirthforge.host": "host-1",
        "wirthforge.spec": spec_digest(hardened()),
    }


@pytest.mark.parametrize(
    "setting", [field.name for field in fields(ContainerSettings) if field.name != "labels"]
)
def test_a_spec_that_differs_in_any_setting_has_another_digest(setting: str) -> None:
    spec = hardened()
    other: dict[str, Any] = {setting: "something else"}
    assert spec_digest(replace(spec, settings=replace(spec.settings, **other))) != spec_digest(spec)


@pytest.mark.parametrize(
    "path",
    ["/sys", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/scsi", "/proc/acpi"],
)
def test_what_tells_about_the_machine_is_masked(path: str) -> None:
    assert path in hardened().settings.masked_paths


def test_what_programs_need_of_proc_stays_visible() -> None:
    assert not set(MASKED_PATHS) & {
        f"/proc/{name}" for name in ("self", "meminfo", "stat", "cpuinfo", "uptime", "net")
    }


def rules(**variant: bool) -> list[dict[str, Any]]:
    return list(json.loads(profile(**variant).text)["syscalls"])


def allowed(**variant: bool) -> set[str]:
    return {name for rule in rules(**variant) if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}


def test_the_profile_refuses_what_it_does_not_name() -> None:
    table = json.loads(profile().text)
    assert table["defaultAction"] == "SCMP_ACT_ERRNO"
    assert [entry["subArchitectures"] for entry in table["archMap"]] == [[], []]
    assert {rule["action"] for rule in rules()} == {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"}
    assert digest_of_json(table) == profile().digest


def test_egress_adds_tcp_sockets_to_the_profile_and_nothing_else() -> None:
    added = [rule for rule in rules(egress=True) if rule not in rules()]
    assert rules(egress=True)[: len(rules())] == rules()
    assert {tuple(rule["names"]) for rule in added} == {("socket",)}
    found = {
        tuple((arg["index"], arg["value"], arg.get("valueTwo")) for arg in rule["args"]) for rule in added
    }
    assert found == {
        ((0, family, None), (1, 0xF, 1), (2, protocol, None)) for family in (2, 10) for protocol in (0, 6)
    }


def test_the_tripwire_makes_deadly_what_was_refused_before_and_nothing_else() -> None:
    strict = SecurityPolicy.model_validate({"sandbox": {"tripwire": True}})
    assert not set(TRIPWIRE) & {name for rule in rules(egress=True) for name in rule["names"]}
    added = [rule for rule in rules(tripwire=True) if rule not in rules()]
    assert [(rule["names"], rule["action"]) for rule in added] == [
        (sorted(TRIPWIRE), "SCMP_ACT_KILL_PROCESS")
    ]
    assert len(set(TRIPWIRE)) == len(TRIPWIRE)
    for destinations in ((), EGRESS):
        spec = harden(replace(REQUEST, destinations=destinations), IMAGE, CAPABLE, strict)
        assert spec.settings.seccomp == profile(egress=bool(destinations), tripwire=True).digest
        assert digest_of_json(json.loads(spec.seccomp_profile)) == spec.settings.seccomp


def test_each_variant_of_the_profile_has_a_digest_of_its_own() -> None:
    variants = [
        profile(egress=egress, tripwire=tripwire) for egress in (False, True) for tripwire in (False, True)
    ]
    assert len({variant.digest for variant in variants}) == 4


def test_the_profile_allows_at_most_two_hundred_calls() -> None:
    assert len(allowed()) <= 200


FORBIDDEN = """
    acct add_key adjtimex bpf chroot clock_settime clone3 delete_module execveat fanotify_init
    finit_module fsmount fsopen init_module io_setup io_uring_setup ioperm iopl kcmp kexec_load
    keyctl memfd_secret mincore modify_ldt mount mount_setattr move_mount move_pages
    name_to_handle_at open_by_handle_at open_tree perf_event_open personality pidfd_getfd pivot_root
    process_vm_readv process_vm_writev ptrace quotactl reboot request_key setns setuid setgid
    setgroups settimeofday setxattr shmget msgget semget mq_open swapon sync syslog umount2 unshare
    userfaultfd vhangup vmsplice splice
"""


@pytest.mark.parametrize("call", FORBIDDEN.split())
def test_the_profile_never_allows(call: str) -> None:
    assert call not in allowed()


@pytest.mark.parametrize(
    "call",
    [
        "socket",
        "socketpair",
        "clone",
        "memfd_create",
        "mknod",
        "mknodat",
        "ioctl",
        "prctl",
        "setrlimit",
        "prlimit64",
    ],
)
def test_the_profile_allows_only_with_checked_arguments(call: str) -> None:
    naming = [rule for rule in rules() if call in rule["names"]]
    assert naming
    assert all(rule.get("args") for rule in naming)


@pytest.mark.parametrize(("call", "index"), [("setrlimit", 0), ("prlimit64", 1)])
def test_every_limit_but_that_of_core_dumps_can_be_set(call: str, index: int) -> None:
    checked = [rule["args"][0] for rule in rules() if rule["names"] == [call]]
    bits = [each for each in checked if each["index"] == index]
    assert {each["op"] for each in bits} == {"SCMP_CMP_MASKED_EQ"}
    asking = [each for each in checked if each not in bits]
    assert asking == ([{"index": 2, "value": 0, "op": "SCMP_CMP_EQ"}] if call == "prlimit64" else [])
    for high in (0, 1 << 32, 1 << 63):  # the kernel looks at the low half alone
        for limit in range(16):
            admitted = any((high | limit) & each["value"] == each["valueTwo"] for each in bits)
            assert admitted is (limit != resource.RLIMIT_CORE)


def test_no_rule_names_one_argument_twice_which_would_turn_and_into_or() -> None:
    for rule in rules():
        indices = [argument["index"] for argument in rule.get("args", ())]
        assert len(indices) == len(set(indices)), rule["comment"]


REVIEW = (Path(__file__).parents[3] / "docs" / "sandbox.md").read_text(encoding="utf-8")


def reviewed(title: str) -> dict[str, str]:
    """What the table under a header of docs/sandbox.md says of each call it names."""
    table = REVIEW.split(f"\n| {title} |", 1)[1].split("\n\n", 1)[0]
    rows = [line.split(" | ", 1) for line in table.splitlines()[2:]]
    named = [(call, reason) for calls, reason in rows for call in re.findall(r"`(\w+)`", calls)]
    assert len(named) == len(dict(named)), "a call is named twice"
    return dict(named)


def test_the_review_gives_a_reason_for_each_call_of_the_profile_and_for_no_other() -> None:
    plain, checked = reviewed("calls | why they are left"), reviewed("call | only with | so that")
    assert not set(plain) & set(checked)
    assert plain.keys() | checked.keys() == allowed()
    assert set(checked) == {name for rule in rules() if rule.get("args") for name in rule["names"]}


@pytest.mark.parametrize("call", ["ioctl", "prctl"])
def test_the_review_names_each_number_that_a_call_may_be_given(call: str) -> None:
    numbers = {rule["comment"].removesuffix(".") for rule in rules() if rule["names"] == [call]}
    condition = reviewed("call | only with | so that")[call].split(" | ")[0]
    assert set(condition.split(", ")) == numbers


def test_the_review_names_the_calls_of_the_tripwire_and_those_said_not_to_exist() -> None:
    listed = REVIEW.split("**With the tripwire**", 1)[1].split("end their process", 1)[0]
    assert sorted(re.findall(r"`(\w+)`", listed)) == sorted(TRIPWIRE)
    [absent] = [rule for rule in rules() if rule["action"] == "SCMP_ACT_ERRNO"]
    assert all(f"`{name}`" in REVIEW for name in absent["names"])
