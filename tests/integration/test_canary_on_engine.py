"""Releases that are tried in real sandboxes under load."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import PLUGIN, offered, world_on_engine
from wirthforge_sdk.contracts.upgrades_api import CanaryIn, CanaryMode, RollbackIn, UpgradeState

pytestmark = pytest.mark.engine

SOURCE = """
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function(read_only=True)
def double(n: int) -> int:
    if {fails}:
        raise RuntimeError("broken")
    return 2 * n
"""
CALLERS = 4
BOUND_S = 150.0
TERMS = {"share": 0.5, "calls": 200, "error_margin": 0.1, "slowdown": 10, "agreement": 0.9, "for_s": 60}


def release(version, fails="n < 0"):
    source = SOURCE.replace("{fails}", fails)
    return make_package(PLUGIN, version, source=source, functions=offered(source))


@asynccontextmanager
async def under_load(host):
    """Calls without a pause; gives those that failed."""
    failed, stop = [], asyncio.Event()

    async def call(n):
        while not stop.is_set():
            answer = await host.call("double", n=n)
            if answer.structured != {"result": 2 * n}:
                failed.append(answer)

    callers = [asyncio.create_task(call(n)) for n in range(CALLERS)]
    try:
        yield failed
    finally:
        stop.set()
        await asyncio.gather(*callers)


async def decided(host, version, **wish):
    """The upgrade, once the trial is over."""
    canary = CanaryIn(**TERMS, **wish)
    async with host.wiring.events.subscribe() as events:
        await host.wiring.installer.upgrade(PLUGIN, version, host.operator, canary)
        over = (UpgradeState.PROBATION, UpgradeState.ROLLED_BACK, UpgradeState.FAILED)
        while (found := (await host.wiring.plugins.upgrades.of_plugin(PLUGIN))[0]).state not in over:
            await anext(events)
    return found


@pytest.mark.requirement("BEY-3", "HOT-2")
async def test_real_releases_are_tried_under_load_and_what_they_do_decides(tmp_path):
    packages = release("1.0.0"), release("1.1.0"), release("1.2.0", fails="n % 2")
    async with asyncio.timeout(BOUND_S), world_on_engine(tmp_path / "h", *packages, probation_s=3600) as host:
        await host.install(f"{PLUGIN}@1.0.0")
        async with under_load(host) as failed:
            # A shadow that fails is found, and no caller sees it.
            found = await decided(host, "1.2.0", mode=CanaryMode.SHADOW)
            assert (found.state, "it fails more often" in found.cause) == (UpgradeState.ROLLED_BACK, True)
            assert failed == []
            # One that is as good takes all calls, first as a shadow, then as itself.
            found = await decided(host, "1.1.0", mode=CanaryMode.SHADOW)
            assert (found.state, found.cause) == (UpgradeState.PROBATION, found.canary.evidence.told)
            assert found.canary.evidence.agreed == found.canary.evidence.pairs > 0
            assert failed == []
        await host.wiring.plugins.upgrades.roll_back(PLUGIN, RollbackIn(), host.operator)
        async with under_load(host) as failed:
            found = await decided(host, "1.1.0")
            assert (found.state, failed) == (UpgradeState.PROBATION, [])
        await host.wiring.plugins.upgrades.roll_back(PLUGIN, RollbackIn(), host.operator)
        async with under_load(host) as failed:
            found = await decided(host, "1.2.0")
            assert (found.state, "it fails more often" in found.cause) == (UpgradeState.ROLLED_BACK, True)
            seen = len(failed)
            for n in range(20):
                assert (await host.call("double", n=n)).structured == {"result": 2 * n}
        assert 0 < seen <= found.canary.evidence.new.failures + CALLERS
        assert len(await host.containers()) == 1
