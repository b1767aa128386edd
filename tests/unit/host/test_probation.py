"""A release that serves on probation: tested beside its calls, and followed by the one before without a pause."""

import asyncio

import pytest

from tests.fakes.world import PATIENCE_S, PLUGIN, run_plugin
from tests.unit.host.test_canary import eventually
from tests.unit.host.test_upgrades import (
    SOURCE,
    STORES,
    brisk,
    newest,
    release,
    served,
    serving,
    under_load,
    until,
    upgraded,
)
from wirthforge_host.sandbox.memory_engine import MemoryEngine
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.upgrades_api import UpgradeState

__all__ = ["brisk"]

PATIENT = '[health]\nfunction = "well"\ntimeout_s = 60\n'


def parked(host):
    return host.wiring.reconciler.fleet.parked(PLUGIN)


async def test_a_self_test_that_takes_its_time_holds_up_no_operator(tmp_path):
    slow = SOURCE.replace(
        "def well() -> bool:\n",
        f"def well() -> bool:\n    while Path({str(tmp_path / 'slow')!r}).exists(): time.sleep(0.002)\n",
    )
    packages = [release(version, source=slow, extra=PATIENT) for version in ("1.0.0", "1.1.0")]
    async with serving(tmp_path, *packages) as host:
        await upgraded(host)
        (tmp_path / "slow").touch()
        rounds = host.wiring.reconciler.swaps.probation._rounds

        async def is_tested():
            return PLUGIN in rounds and not rounds[PLUGIN].work.done()

        await eventually(is_tested)
        async with asyncio.timeout(PATIENCE_S):
            assert (await host.disable()).state is State.STOPPED
        (tmp_path / "slow").unlink()


@pytest.mark.requirement("HOT-2")
async def test_one_that_is_busy_is_tested_too(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        await upgraded(host)
        held = asyncio.create_task(host.call("hold", file=str(tmp_path / "go")))
        await host.logged("holding")
        await host.call("sicken", file=str(tmp_path / "sick"))
        found = asyncio.create_task(until(host, UpgradeState.ROLLED_BACK))
        assert (await found).cause == "its self-test well answered that it failed"
        (tmp_path / "go").touch()
        assert (await held).structured == {"result": "1.1.0"}


@pytest.mark.requirement("HOT-2")
async def test_without_old_instances_the_release_before_starts_beside_the_one_that_is_not_well(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0"), rollback_kept_s=0.0) as host:
        await upgraded(host)

        async def is_dropped():
            return not parked(host)

        await eventually(is_dropped)
        async with under_load(host) as answers:
            await host.call("sicken", file=str(tmp_path / "sick"))
            found = await until(host, UpgradeState.ROLLED_BACK)
            assert await served(host) == "1.0.0"
        assert (found.cause, set(answers)) == (
            "its self-test well answered that it failed",
            {"1.0.0", "1.1.0"},
        )


async def test_the_old_instances_are_kept_from_when_they_were_replaced_on(tmp_path):
    more = release("1.2.0", asks=(*STORES, "ui.notify"))
    async with serving(tmp_path, release("1.0.0"), release("1.1.0"), more, probation_s=0.01) as host:
        await upgraded(host, "1.1.0")
        await until(host, UpgradeState.DONE)
        [kept] = parked(host)
        kept.parked_at -= host.wiring.settings.rollback_kept_s
        await upgraded(host, "1.2.0")

        async def is_dropped():
            return not parked(host)

        await eventually(is_dropped)
        assert (await newest(host)).state is UpgradeState.AWAITING_APPROVAL


async def test_a_host_that_lets_its_plugins_go_on_leaves_only_those_that_serve(tmp_path):
    engine = MemoryEngine(process=run_plugin)
    packages = release("1.0.0"), release("1.1.0")
    async with serving(tmp_path, *packages, engine=engine, leave_running=True) as host:
        await upgraded(host)
        assert len(await host.containers()) == 2
        serves = (await host.plugin()).instance.id
    left = [state.labels["wirthforge.instance"] for state in await engine.of_host("a-test")]
    for state in await engine.of_host("a-test"):
        await engine.remove(state.id)
    assert left == [serves]
