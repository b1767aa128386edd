"""Sustained overuse on a real engine: the kernel's figures lead to a lower quota, and back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import PLUGIN, World, offered, world_on_engine
from wirthforge_host.sandbox.hardening import bandwidth
from wirthforge_sdk.contracts.host_api import State

POLICY = """
[monitoring]
period_s = 0.2
[enforcement]
warn_after_s = 1
throttle_after_s = 2
recover_s = 1
throttle_to = 0.4
"""
BURNER = """
import threading
import time

from wirthforge_sdk.runtime import Plugin

plugin = Plugin()
stop = threading.Event()


def burn():
    while not stop.is_set():
        sum(range(1000))


@plugin.function
def begin() -> bool:
    "Burns from now on."
    threading.Thread(target=burn, daemon=True).start()
    return True


@plugin.function
def end() -> bool:
    "Rests."
    stop.set()
    return True
"""
BOUND_S = 30.0


@pytest.mark.engine
@pytest.mark.requirement("RES-8")
async def test_a_plugin_that_burns_for_long_is_throttled_in_the_kernel_and_restored_when_it_rests(
    tmp_path: Path,
):
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    burner = make_package(source=BURNER, functions=offered(BURNER))
    async with world_on_engine(tmp_path / "h", burner, policy=policy) as host:
        await host.install()
        instance = host.wiring.reconciler.live(PLUGIN)
        cgroup = await host.wiring.containment.control.cgroup(instance.container_id)
        await host.call("begin")
        throttled = await host.until(State.THROTTLED, patience_s=BOUND_S)
        assert throttled.cause.startswith("it was near its limit of cpu")
        limits = cgroup.limits()
        assert (limits.cpu_quota_us, limits.cpu_period_us) == bandwidth(instance.limits.cpus * 0.4)
        await host.call("end")
        await host.until(State.RUNNING, patience_s=BOUND_S)
        limits = cgroup.limits()
        assert (limits.cpu_quota_us, limits.cpu_period_us) == bandwidth(instance.limits.cpus)
        cgroup.close()
        told = [
            (each.actor, each.detail["action"], each.detail["lifted"])
            for each in await host.audited("resource.enforce")
        ]
        assert told == [
            ("host:enforcement", "warn", False),
            ("host:enforcement", "throttle", False),
            ("host:enforcement", "throttle", True),
        ]


@pytest.mark.engine
@pytest.mark.requirement("ISO-7")
async def test_a_plugin_at_its_quota_runs_only_when_nobody_else_wants_to(tmp_path: Path):
    policy = tmp_path / "policy.toml"
    policy.write_text("[monitoring]\nperiod_s = 0.2\n")
    burner = make_package(source=BURNER, functions=offered(BURNER))
    async with world_on_engine(tmp_path / "h", burner, policy=policy) as host:
        await host.install()
        instance = host.wiring.reconciler.live(PLUGIN)
        state = await host.wiring.engine.state(instance.container_id)
        idle = idle_file(state.pid)
        assert idle.read_text() == "0\n"
        await host.call("begin")
        await until_reads(host, idle, "1\n")
        await host.call("end")
        await until_reads(host, idle, "0\n")


def idle_file(pid: int) -> Path:
    """``cpu.idle`` of a process's group."""
    groups = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    (names, path) = next(
        (names, path) for names, path in groups.items() if "cpu" in names.split(",") or not names
    )
    root = Path("/sys/fs/cgroup", "cpu" if names else "")
    return root / path.lstrip("/") / "cpu.idle"


async def until_reads(host: World, file: Path, text: str) -> None:
    """Returns once ``file`` says ``text``; looked at after each reading of resources."""
    async with asyncio.timeout(BOUND_S):
        async for _ in host.wiring.resources.rounds():
            if await asyncio.to_thread(file.read_text) == text:
                return
