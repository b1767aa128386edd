"""Sustained overuse on a real engine: the kernel's figures lead to a lower quota, and back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import PLUGIN, offered, world_on_engine
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
        async with asyncio.timeout(BOUND_S):
            assert (await host.until(State.THROTTLED)).cause.startswith("it was near its limit of cpu")
        limits = cgroup.limits()
        assert (limits.cpu_quota_us, limits.cpu_period_us) == bandwidth(instance.limits.cpus * 0.4)
        await host.call("end")
        async with asyncio.timeout(BOUND_S):
            await host.until(State.RUNNING)
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
