"""`make demo` as a newcomer runs it: every step seen, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--json"]

pytestmark = [pytest.mark.e2e, pytest.mark.engine, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def steps() -> dict[str, dict[str, Any]]:
    finished = subprocess.run(DEMO, capture_output=True, text=True, timeout=280, check=False)
    assert finished.returncode == 0, finished.stderr
    return {step["step"]: step for step in json.loads(finished.stdout)["steps"]}


@pytest.mark.requirement("PERM-1")
def test_an_install_waits_for_an_approval_and_then_runs(steps: dict[str, dict[str, Any]]) -> None:
    assert steps["Installed from the marketplace, and awaiting approval"]["state"] == "awaiting_approval"
    assert steps["Approved, and running in a sandbox of its own"]["state"] == "running"


@pytest.mark.requirement("TST-3")
def test_a_call_on_real_input_answers(steps: dict[str, dict[str, Any]]) -> None:
    [note] = steps["Called on real input"]["found"]["structured"]["result"]

    assert note["text"] == "The council meets on Thursday at nine; bring the harbour drawings."
    assert note["tags"] == ["council", "harbour"]


@pytest.mark.requirement("CORE-1")
def test_the_sandbox_in_force_is_closed(steps: dict[str, dict[str, Any]]) -> None:
    effective = steps["The effective sandbox, read back from the engine"]["effective"]

    assert effective["network_mode"] == "none"
    assert effective["read_only_root"] is True
    assert effective["capabilities_dropped"] == ["ALL"]
    assert effective["no_new_privileges"] is True
    assert effective["seccomp"].startswith("sha256:")
    assert effective["memory_bytes"] == effective["memory_and_swap_bytes"] > 0
    assert effective["pids"] > 0
    assert effective["user"].split(":")[0] != "0"


@pytest.mark.requirement("CORE-2")
def test_a_refusal_is_on_record_and_tells_the_caller_nothing(steps: dict[str, dict[str, Any]]) -> None:
    seen = steps["Refused for want of a permission, and on record"]

    assert seen["refusal"]["kind"] == "permission_denied"
    assert seen["record"]["outcome"] == "denied"
    assert seen["record"]["detail"]["permission"] == "events.publish:courier.delivered"
    assert "events.publish" not in json.dumps(seen["refusal"])


@pytest.mark.requirement("BEY-1")
def test_an_unmodified_mcp_server_answers(steps: dict[str, dict[str, Any]]) -> None:
    seen = steps["An unmodified MCP server runs as a plugin"]
    answer = json.loads(seen["answer"]["content"][0]["text"])

    assert answer["target"]["timezone"] == "Asia/Tokyo"
    assert answer["time_difference"] in {"+7.0h", "+8.0h"}


@pytest.mark.requirement("RES-10")
def test_nothing_is_left_behind(steps: dict[str, dict[str, Any]]) -> None:
    left = steps["Stopped, and nothing is left behind"]["left"]

    assert left == {"containers": [], "sockets": [], "processes": []}


def test_keep_leaves_both_running_and_says_where() -> None:
    finished = subprocess.run([*DEMO, "--keep"], capture_output=True, text=True, timeout=280, check=False)
    assert finished.returncode == 0, finished.stderr
    steps = {step["step"]: step for step in json.loads(finished.stdout)["steps"]}
    kept = steps["Left running"]
    try:
        listed = subprocess.run(
            [str(Path(sys.executable).with_name("wirthforge")), "list", "--json"],
            env={**os.environ, **kept["environment"]},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert {item["name"] for item in json.loads(listed.stdout)} >= {
            "demo/notes",
            "demo/mcp-time",
        }
        assert Path(kept["token_file"]).stat().st_mode & 0o077 == 0
    finally:
        for process in kept["processes"]:
            os.kill(process, signal.SIGTERM)
