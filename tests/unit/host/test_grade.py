"""The grade of a sandbox: explained points for what is in force."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.sandboxes import REQUEST
from wirthforge_host.sandbox import docker_forms as forms
from wirthforge_host.sandbox.grade import Grade, grade
from wirthforge_host.sandbox.hardening import harden
from wirthforge_host.sandbox.memory_engine import CAPABLE, IMAGE
from wirthforge_host.sandbox.models import Mount

ENGINE = replace(CAPABLE, io_device="/dev/vda")
SETTINGS = harden(REQUEST, IMAGE, ENGINE).settings


def points(found: Grade) -> dict[str, int]:
    return {line.name: line.points for line in found.lines}


def test_all_lines_together_are_a_hundred_and_each_says_why() -> None:
    found = grade(SETTINGS, ENGINE)
    assert sum(line.of for line in found.lines) == 100
    assert found.points == sum(line.points for line in found.lines)
    assert all(line.reason and 0 <= line.points <= line.of for line in found.lines)


def test_what_every_sandbox_has_on_an_ordinary_engine_is_worth_eighty_five() -> None:
    assert grade(SETTINGS, ENGINE).points == 85


def test_every_further_layer_is_worth_points_up_to_a_hundred() -> None:
    engine = replace(ENGINE, user_namespaces=True)
    deep = replace(SETTINGS, runtime="runsc", apparmor="wirthforge-plugin")
    assert grade(deep, engine, kernel=True).points == 100
    assert grade(deep, engine).points == 98
    assert grade(replace(deep, apparmor="docker-default"), engine, kernel=True).points == 99
    assert grade(replace(deep, user_namespace="host"), engine, kernel=True).points == 96


def test_a_sandbox_with_egress_loses_a_point() -> None:
    asking = harden(replace(REQUEST, destinations=("db.example.org:5432",)), IMAGE, ENGINE).settings
    assert grade(asking, ENGINE).points == 84


LOOSENED: list[tuple[dict[str, Any], str, int]] = [
    ({"capabilities_added": ("SYS_ADMIN",)}, "capabilities", 0),
    ({"capabilities_dropped": ("MKNOD",)}, "capabilities", 0),
    ({"seccomp": "unconfined"}, "system calls", 0),
    ({"seccomp": "engine default"}, "system calls", 4),
    ({"seccomp": f"sha256:{'0' * 64}"}, "system calls", 0),
    ({"network_mode": "bridge"}, "network", 0),
    ({"networks": ("bridge", "none")}, "network", 0),
    ({"user": ""}, "user", 0),
    ({"user": "0:0"}, "user", 0),
    ({"user": "1000:1000"}, "user", 0),
    ({"user": "61007:0"}, "user", 0),
    ({"extra_groups": ("docker",)}, "user", 4),
    ({"no_new_privileges": False}, "privileges", 0),
    ({"read_only_root": None}, "file tree", 0),
    (
        {"mounts": (Mount("/plugin", "/srv/x", read_only=False, propagation="", recursive=False),)},
        "file tree",
        0,
    ),
    ({"tmpfs": (("/tmp", ("nodev", "nosuid", "rw")),)}, "file tree", 4),
    ({"pid_mode": "host"}, "namespaces", 4),
    ({"ipc_mode": "shareable"}, "namespaces", 4),
    ({"uts_mode": "host"}, "namespaces", 5),
    ({"cgroup_namespace": "host"}, "namespaces", 5),
    ({"masked_paths": SETTINGS.masked_paths[1:]}, "masked files", 0),
    ({"readonly_paths": ()}, "masked files", 2),
    ({"devices": ("/dev/kvm",)}, "devices", 0),
    ({"memory_bytes": 0}, "memory", 0),
    ({"memory_bytes": None}, "memory", 0),
    ({"memory_and_swap_bytes": -1}, "memory", 2),
    ({"cpu_quota_us": 0}, "processor", 0),
    ({"cpu_quota_us": None}, "processor", 0),
    ({"pids": -1}, "processes", 0),
    ({"pids": None}, "processes", 0),
    ({"io_limits": SETTINGS.io_limits[2:]}, "disk", 0),
    ({"log_driver": "json-file"}, "output", 0),
]


@pytest.mark.parametrize(("change", "line", "left"), LOOSENED, ids=[str(change) for change, *_ in LOOSENED])
def test_what_is_not_in_force_costs_the_points_of_its_line_and_of_no_other(
    change: dict[str, Any], line: str, left: int
) -> None:
    whole, loosened = points(grade(SETTINGS, ENGINE)), points(grade(replace(SETTINGS, **change), ENGINE))
    assert loosened.pop(line) == left < whole.pop(line)
    # An unknown filter may let sockets through, and the line of the network says so by one point.
    if "seccomp" in change:
        assert whole.pop("network") - loosened.pop("network") == 1
    assert loosened == whole


@given(st.lists(st.sampled_from([change for change, *_ in LOOSENED]), max_size=6))
def test_loosening_more_is_never_worth_more(changes: list[dict[str, Any]]) -> None:
    found, before = SETTINGS, grade(SETTINGS, ENGINE).points
    for change in changes:
        found = replace(found, **change)
    assert grade(found, ENGINE).points <= before
    assert (grade(found, ENGINE).points == before) == (found == SETTINGS)


def test_a_privileged_container_is_worth_nothing() -> None:
    found = grade(replace(SETTINGS, privileged=True), replace(ENGINE, user_namespaces=True), kernel=True)
    assert (found.points, {line.reason for line in found.lines}) == (
        0,
        {"the container is privileged, which undoes it"},
    )


def test_an_engine_that_says_nothing_is_given_nothing() -> None:
    assert grade(forms.settings({}), ENGINE).points == 0
