"""A real sandbox that nobody calls sleeps, is stopped, and answers; and as many run as the load takes."""

import asyncio
import time

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import PATIENCE_S, PLUGIN, offered, world_on_engine
from wirthforge_host.plugins import scaling
from wirthforge_host.sandbox.cgroup import Cgroup
from wirthforge_sdk.contracts.host_api import State

pytestmark = pytest.mark.engine

SOURCE = """
import os
import threading
import time
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function(idempotent=True)
def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getuid()

@plugin.function
def work(seconds: float) -> bool:
    def burn():
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass
    threading.Thread(target=burn).start()
    return True
"""


async def rests(host, seconds):
    """As if nothing had been asked of it for so long."""
    host.wiring.idle.monotonic = lambda: time.monotonic() + seconds
    await host.wiring.idle.look()
    host.wiring.idle.monotonic = time.monotonic


async def until(condition):
    """Returns once it holds; not every change is told."""
    async with asyncio.timeout(25):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def is_frozen(instance):
    group = Cgroup.of_process(instance.pid, container=instance.container_id)
    try:
        return group.is_frozen()
    finally:
        group.close()


@pytest.mark.requirement("RES-14")
async def test_a_real_plugin_sleeps_answers_is_stopped_and_answers(tmp_path):
    package = make_package(source=SOURCE, functions=offered(SOURCE))
    async with world_on_engine(tmp_path / "h", package) as host:
        await host.install()
        fleet = host.wiring.reconciler.fleet
        (one,) = fleet.of(PLUGIN)
        await rests(host, 61)
        assert one.sleep.is_asleep
        assert is_frozen(one)
        answers = await asyncio.gather(*(host.call("nap", seconds=0.05) for _ in range(4)))
        assert {answer.structured["result"] for answer in answers} == {one.uid}
        assert not one.sleep.is_asleep
        assert not is_frozen(one)

        await host.call("work", seconds=30)
        async with asyncio.timeout(PATIENCE_S):
            async for usages in host.wiring.resources.rounds():
                if usages.items and usages.items[0].sample and usages.items[0].sample.cpus > 0.1:
                    break
        # It was called long ago then; what it does is of now.
        host.wiring.idle._busy[one.id] += 61
        await rests(host, 61)
        assert not one.sleep.is_asleep

        await rests(host, 3700)
        assert (await host.plugin()).state is State.IDLE
        assert await host.containers() == []
        answers = await asyncio.gather(*(host.call("nap", seconds=0.05) for _ in range(4)))
        assert not any(answer.is_error for answer in answers)
        assert len(await host.containers()) == 1
        await rests(host, 61)
        await host.disable()
        assert (await host.containers(), await host.instances()) == ([], [])


@pytest.mark.requirement("RES-12")
async def test_a_real_load_starts_more_and_its_end_stops_them_without_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "LOOK_S", 0.1)
    policy = tmp_path / "policy.toml"
    policy.write_text("[scaling]\nup_window_s = 1\ndown_window_s = 1\ncalls_per_instance = 2\n")
    package = make_package(source=SOURCE, functions=offered(SOURCE))
    async with world_on_engine(tmp_path / "h", package, policy=policy) as host:
        await host.install()
        await host.wiring.scaling.scale(PLUGIN, 1, host.operator, most=3)
        fleet, over, errors, served = host.wiring.reconciler.fleet, asyncio.Event(), [], set()

        async def caller():
            while not over.is_set():
                answer = await host.call("nap", seconds=0.05)
                errors.extend([answer] * answer.is_error)
                served.add(answer.structured["result"])

        callers = [asyncio.create_task(caller()) for _ in range(8)]
        await until(lambda: len(served) == 3)
        over.set()
        await asyncio.gather(*callers)
        await until(lambda: len(fleet.of(PLUGIN)) == 1)
        assert errors == []
        told = [record.detail for record in await host.audited("plugin.scaled")]
        assert [each["after"] for each in told][-1] == "1"
        assert (await host.plugin()).state is State.RUNNING
