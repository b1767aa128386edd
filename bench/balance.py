"""Calls a second of a plugin with three instances, beside the same plugin with one in the same run.

The function waits 10 ms and computes nothing, and its instance does one call at a time (``inline``): so the processors
are idle, and what is measured is whether calls find the instance that is free. Blocks alternate between the two; in
each, as many callers as there could be calls at work in three instances, twice over, always have one call open.
"""

from __future__ import annotations

import asyncio
import time

from bench.figures import Figure, alone, at_least, beside, percentile
from bench.ground import OPERATOR, BenchError, Ground
from tests.fakes.packages import make_package
from tests.fakes.world import offered
from wirthforge_sdk.contracts.host_api import CallIn

NAME = "balance"
ONE, THREE = "demo/one", "demo/three"
INSTANCES = 3
PEER = "one instance"
ROUNDS, BLOCK, CALLERS = 12, 120, 2 * INSTANCES

SOURCE = '''import time

from wirthforge_sdk.runtime import Plugin

plugin = Plugin()


@plugin.function(inline=True)
def wait() -> bool:
    """Waits 10 ms."""
    time.sleep(0.01)
    return True
'''


def packages() -> list[bytes]:
    """What the host's shelf must hold."""
    return [make_package(name, functions=offered(SOURCE), source=SOURCE) for name in (ONE, THREE)]


async def measure(ground: Ground) -> list[Figure]:
    """Calls a second, and how long they take, with three instances beside one."""
    async with ground.wiring.running():
        for name in (ONE, THREE):
            await ground.wiring.installer.install(name, OPERATOR)
        await ground.wiring.scaling.scale(THREE, INSTANCES, OPERATOR)
        if len(ground.wiring.reconciler.fleet.of(THREE)) < INSTANCES:
            raise BenchError("not all instances started: `python -m bench cold_start` tells why")
        rates: dict[str, list[float]] = {ONE: [], THREE: []}
        times: dict[str, list[float]] = {ONE: [], THREE: []}
        for name in (ONE, THREE):
            await _block(ground, name)
        for _ in ground.rounds(NAME, ROUNDS):
            for name in (ONE, THREE):
                took_s, of_each = await _block(ground, name)
                rates[name].append(BLOCK / took_s)
                times[name] += of_each
    return [
        beside(
            alone(f"{NAME}.calls", percentile(rates[THREE], 50), "calls/s", n=len(rates[THREE])),
            PEER,
            percentile(rates[ONE], 50),
            at_least(0.9 * INSTANCES),
        ),
        *(
            beside(
                alone(
                    f"{NAME}.p{percent}", 1e3 * percentile(times[THREE], percent), "ms", n=len(times[THREE])
                ),
                PEER,
                1e3 * percentile(times[ONE], percent),
            )
            for percent in (50, 99)
        ),
    ]


async def _block(ground: Ground, plugin: str) -> tuple[float, list[float]]:
    """How long :data:`BLOCK` calls took together, and each."""
    times: list[float] = []

    async def caller() -> None:
        for _ in range(BLOCK // CALLERS):
            began = time.perf_counter()
            answer = await ground.wiring.calls.call(
                CallIn(plugin=plugin, function="wait", arguments={}), OPERATOR
            )
            if answer.is_error:
                raise BenchError(f"{plugin}.wait answered that it failed: {answer.content}")
            times.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    took_s = time.perf_counter() - began
    await ground.wiring.audit.flush()
    return took_s, times
