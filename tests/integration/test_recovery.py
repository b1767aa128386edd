"""A host that is killed or stopped, and the one that comes after it."""

import asyncio
import os
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from tests.fakes.host_process import Place, host_process
from tests.fakes.packages import make_package
from tests.fakes.world import offered, remove_containers

engine = pytest.mark.engine
MANY = int(os.environ.get("RECOVERY_PLUGINS", "20"))
READY_S = 5.0
BOUND_S = 100.0

COUNTING = """
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()
counted = 0


@plugin.function
def count() -> int:
    "Counts its calls, in memory alone."
    global counted
    counted += 1
    return counted
"""


def counting(name):
    """A package whose plugin shows by its answers whether it was started anew."""
    return make_package(name, source=COUNTING, functions=offered(COUNTING))


@asynccontextmanager
async def place_on_engine(directory, packages, **settings):
    place = Place(directory=directory / "h", host_id=f"test-{os.urandom(8).hex()}", settings=settings)
    place.stock(packages)
    try:
        yield place
    finally:
        await remove_containers(place.host_id)


async def all_count(host, names):
    answers = await asyncio.gather(*(host.act("call", "count", plugin=name) for name in names))
    return [answer["structured"]["result"] for answer in answers]


async def containers(host, names):
    plugins = await asyncio.gather(*(host.act("plugin", name) for name in names))
    return {plugin["name"]: plugin["instance"]["container"] for plugin in plugins}


@pytest.mark.requirement("RES-10")
@engine
@pytest.mark.timeout(2 * BOUND_S)
@pytest.mark.parametrize("end", ["killed", "stopped"])
async def test_the_next_host_goes_on_with_every_plugin_where_it_was(tmp_path, end, record_property):
    names = [f"demo/p{number:03}" for number in range(MANY)]
    async with place_on_engine(tmp_path, map(counting, names), leave_running=end == "stopped") as place:
        async with host_process(place) as first:
            await asyncio.gather(*(first.act("install", name) for name in names))
            assert await all_count(first, names) == [1] * MANY
            before = await containers(first, names)
            moves = len(await first.act("audited", "plugin.state"))
            if end == "stopped":
                assert await first.stop() == 0
            else:
                await first.kill()
        began = time.monotonic()
        async with host_process(place) as second:
            await asyncio.gather(*(second.act("until", "running", plugin=name) for name in names))
            counted = await all_count(second, names)
            ready_s = time.monotonic() - began
            assert counted == [2] * MANY
            assert await containers(second, names) == before
            assert len(await second.act("containers")) == MANY
            adopted = await second.act("audited", "instance.adopt")
            assert Counter(each["outcome"] for each in adopted) == {"allowed": MANY}
            assert len(await second.act("audited", "plugin.state")) == moves
    record_property("ready_s", ready_s)
    sys.stderr.write(f"{MANY} plugins adopted; ready {ready_s:.2f} s after the process was started\n")
    assert ready_s < READY_S
