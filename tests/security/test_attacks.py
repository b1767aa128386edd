"""The battery of ``wirthforge demo attack``, against a plugin that a host installed and started."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from wirthforge_sdk.cli.battery.layers import LAYERS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
LEAST = 120
GROUPS = {
    "bridge",
    "devices",
    "exhaustion",
    "files",
    "floods",
    "identity",
    "memory",
    "mounts",
    "namespaces",
    "network",
    "programs",
    "staying",
    "surface",
    "tracing",
}


@pytest.fixture(scope="module")
def battery() -> subprocess.CompletedProcess[str]:
    """The command, run once."""
    command = Path(sys.executable).with_name("wirthforge")
    return subprocess.run(
        [str(command), "demo", "attack", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )


@pytest.fixture(scope="module")
def findings(battery: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in battery.stdout.splitlines()]


@pytest.mark.requirement("ISO-6", "TST-1")
def test_nothing_is_reached_and_the_exit_status_says_so(battery, findings):
    assert [(each["attack"], each["detail"]) for each in findings if each["reached"]] == []
    assert battery.returncode == 0, battery.stderr[-2000:]


@pytest.mark.requirement("ISO-6")
def test_the_battery_covers_every_group_and_names_each_attack_once(findings):
    assert len(findings) >= LEAST
    assert {each["group"] for each in findings} == GROUPS
    assert Counter(each["attack"] for each in findings).most_common(1)[0][1] == 1


def test_each_attack_was_stopped_by_a_layer_that_is_documented(findings):
    assert {each["stopped_by"] for each in findings} <= LAYERS.keys()


def test_each_attack_is_on_record(findings):
    assert [each["attack"] for each in findings if not isinstance(each["audit_id"], int)] == []
    assert all(
        each.keys() == {"attack", "group", "reached", "stopped_by", "detail", "audit_id"} for each in findings
    )
