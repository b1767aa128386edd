"""Upgrades and rollbacks of real sandboxes under load."""

import asyncio

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import PLUGIN, offered, world_on_engine
from wirthforge_host.errors import PluginUnavailableError
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.upgrades_api import RollbackIn, UpgradeState

pytestmark = pytest.mark.engine

SOURCE = """
import os
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function(inline=True)
def version() -> str:
    return "{version}"

@plugin.function
def die() -> bool:
    os._exit(3)
"""
ROUNDS = 10
CALLERS = 4
BOUND_S = 120.0


def release(version):
    source = SOURCE.replace("{version}", version)
    return make_package(PLUGIN, version, source=source, functions=offered(source))


@pytest.mark.requirement("CORE-4", "HOT-1", "HOT-2")
async def test_real_releases_are_swapped_under_load_and_no_call_fails(tmp_path):
    old, new = release("1.0.0"), release("1.1.0")
    async with asyncio.timeout(BOUND_S), world_on_engine(tmp_path / "h", old, probation_s=3600) as host:
        await host.install()
        host.source.put(new)
        upgrades, answers, stop = host.wiring.plugins.upgrades, [], asyncio.Event()

        async def call():
            while not stop.is_set():
                answers.append((await host.call("version")).structured["result"])

        callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
        for _ in range(ROUNDS):
            await host.wiring.installer.upgrade(PLUGIN, "*", host.operator)
            assert (await host.call("version")).structured == {"result": "1.1.0"}
            (frozen,) = host.wiring.reconciler.fleet.parked(PLUGIN)
            assert frozen.paused
            await upgrades.roll_back(PLUGIN, RollbackIn(), host.operator)
            assert (await host.call("version")).structured == {"result": "1.0.0"}
            assert (await host.plugin()).instance.id == frozen.id
        stop.set()
        await asyncio.gather(*callers)
        assert set(answers) == {"1.0.0", "1.1.0"}

        await host.wiring.installer.upgrade(PLUGIN, "*", host.operator)
        with pytest.raises(PluginUnavailableError):
            await host.call("die")
        async with host.wiring.events.subscribe() as events:
            while (last := (await upgrades.of_plugin(PLUGIN))[0]).state is not UpgradeState.ROLLED_BACK:
                await anext(events)
        assert "3" in last.cause
        assert (await host.call("version")).structured == {"result": "1.0.0"}
        assert (await host.disable()).state is State.STOPPED
        assert (await host.containers(), await host.instances()) == ([], [])
