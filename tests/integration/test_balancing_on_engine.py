"""Several real sandboxes of one plugin, one of them killed while calls are inside."""

import asyncio
import os
import signal

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import PATIENCE_S, PLUGIN, offered, world_on_engine
from wirthforge_sdk.contracts.host_api import State

pytestmark = pytest.mark.engine

SOURCE = """
import os
import time
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function(idempotent=True)
def nap(seconds: float) -> int:
    plugin.log.info("napping")
    time.sleep(seconds)
    return os.getuid()
"""


@pytest.mark.requirement("RES-12")
async def test_real_instances_share_calls_and_one_that_is_killed_loses_none(tmp_path):
    package = make_package(source=SOURCE, functions=offered(SOURCE))
    async with world_on_engine(tmp_path / "h", package) as host:
        await host.install()
        await host.wiring.scaling.scale(PLUGIN, 3, host.operator)
        found = await host.plugin()
        uids = {each.uid for each in found.instances}
        assert len(uids) == 3
        assert set(await host.containers()) == {each.id for each in found.instances}
        answers = await asyncio.gather(*(host.call("nap", seconds=0.2) for _ in range(9)))
        shares = [answer.structured["result"] for answer in answers]
        assert [shares.count(uid) for uid in uids] == [3, 3, 3]

        victim = host.wiring.reconciler.fleet.of(PLUGIN)[0]
        calls = [asyncio.create_task(host.call("nap", seconds=0.5)) for _ in range(9)]
        async with asyncio.timeout(PATIENCE_S), host.wiring.logs.subscribe(PLUGIN, after=0) as lines:
            for _ in range(18):
                while (await anext(lines)).message != "napping":
                    pass
        os.kill(victim.pid, signal.SIGKILL)
        served = {(await call).structured["result"] for call in calls}
        assert victim.uid not in served
        assert (await host.plugin()).state is State.RUNNING
        async with asyncio.timeout(PATIENCE_S), host.wiring.events.subscribe() as events:
            while len(host.wiring.reconciler.fleet.of(PLUGIN)) < 3:
                await anext(events)
        await host.disable()
        assert (await host.containers(), await host.instances()) == ([], [])
