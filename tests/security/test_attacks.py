"""The battery of `wirthforge demo attack`: no attack reaches anything, each is stopped by a layer and is on record."""

from __future__ import annotations

import ast
import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.security.depth import LAYERS_OFF, findings
from wirthforge_sdk.cli.battery.catalogue import HOSTILE_PROJECT
from wirthforge_sdk.cli.battery.layers import LAYERS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

COMMAND = [str(Path(sys.executable).with_name("wirthforge")), "demo", "attack", "--json"]
LEAST = 120
GROUPS = {
    "mounts", "namespaces", "tracing", "surface", "identity", "programs", "devices", "files", "network",
    "memory", "exhaustion", "bridge", "floods", "staying",
}  # fmt: skip
KEYS = ["attack", "group", "reached", "stopped_by", "detail", "audit_id"]


def names() -> list[str]:
    """Of all attacks, read from their sources: they run in a sandbox and nowhere else."""
    found = []
    for path in sorted((HOSTILE_PROJECT / "src" / "attacks").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(
                "attack(" in ast.unparse(d) for d in node.decorator_list
            ):
                found.append(node.name)
            elif isinstance(node, ast.Expr) and ast.unparse(node).startswith("calls({"):
                [table] = node.value.args  # type: ignore[attr-defined]
                found += [ast.literal_eval(key) for key in table.keys]
    return found


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, Any]]:
    """What one run of the command printed, by attack."""
    finished = subprocess.run(COMMAND, capture_output=True, text=True, timeout=550, check=False)
    rows = [json.loads(line) for line in finished.stdout.splitlines()]
    assert finished.returncode == any(row["reached"] for row in rows), finished.stderr
    return {row["attack"]: row for row in rows}


@pytest.mark.requirement("ISO-6", "TST-1")
@pytest.mark.parametrize("name", names())
def test_an_attack_is_stopped_by_a_layer_and_is_on_record(told: dict[str, dict[str, Any]], name: str) -> None:
    found = told[name]
    assert not found["reached"], found["detail"]
    assert found["stopped_by"] in LAYERS
    assert found["audit_id"] > 0
    assert list(found) == KEYS


@pytest.mark.requirement("ISO-6")
def test_the_battery_covers_every_group_and_names_each_attack_once(told: dict[str, dict[str, Any]]) -> None:
    assert {row["group"] for row in told.values()} == GROUPS
    assert set(told) == set(names())
    assert len(set(names())) == len(names()) >= LEAST


@pytest.mark.requirement("ISO-6")
def test_the_battery_reaches_what_no_filter_keeps_from_it() -> None:
    found = asyncio.run(findings(LAYERS_OFF["system-call filter"], ["surface"]))
    reached = {finding.attack.name for finding in found if finding.reached}
    assert {"personality", "shmget", "sync", "splice"} <= reached
    # What is refused even so is refused by what is left: no capabilities, and the runtime's own filter.
    assert not reached & {"reboot", "kexec_load", "init_module", "settimeofday", "bpf"}
