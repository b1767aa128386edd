"""A call of a plugin that sleeps, and of one that was stopped, beside a call of the same plugin awake, in turns.

``asleep``: its processes stand still; the call thaws them and is answered. ``stopped``: it has no sandbox; the call
starts it, cold, and is answered, beside ``enable`` and a call of the same plugin. ``freeze`` and ``thaw`` are the two
acts alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from bench.figures import Figure, alone, beside, percentile
from bench.ground import OPERATOR, PATIENCE_S, BenchError, Ground
from tests.fakes.packages import make_package
from wirthforge_sdk.contracts.host_api import CallIn, State

NAME = "idle"
PLUGIN = "demo/hello"
ROUNDS, STARTS = 200, 12
LOOK_S = 0.05
AWAKE, ENABLED = "awake", "enable and call"
BODY = CallIn(plugin=PLUGIN, function="greet", arguments={"name": "Ada"})


def packages() -> list[bytes]:
    """What the host's shelf must hold."""
    return [make_package(PLUGIN)]


async def measure(ground: Ground) -> list[Figure]:
    """First sleep, then stops."""
    awake, asleep, freeze, thaw = list[float](), list[float](), list[float](), list[float]()
    stopped, enabled = list[float](), list[float]()
    plugins = ground.wiring.plugins
    async with ground.wiring.running():
        await ground.wiring.installer.install(PLUGIN, OPERATOR)
        (one,) = ground.wiring.reconciler.fleet.of(PLUGIN)
        for _ in range(20):
            await _call(ground)
        for _ in ground.rounds(NAME, ROUNDS):
            awake.append(await _took(lambda: _call(ground)))
            freeze.append(await _took(lambda: one.sleep.begin(lambda: True)))
            thaw.append(await _took(one.sleep.end))
            await one.sleep.begin(lambda: True)
            asleep.append(await _took(lambda: _call(ground)))
        for _ in ground.rounds(f"{NAME}.stopped", STARTS):
            await _stopped(ground)
            stopped.append(await _took(lambda: _call(ground)))
            await plugins.disable(PLUGIN, OPERATOR)
            enabled.append(await _took(lambda: _enabled(ground)))
    return [
        *(
            beside(
                alone(f"{NAME}.asleep.p{percent}", 1e3 * percentile(asleep, percent), "ms", n=len(asleep)),
                AWAKE,
                1e3 * percentile(awake, percent),
            )
            for percent in (50, 99)
        ),
        alone(f"{NAME}.freeze.p50", 1e3 * percentile(freeze, 50), "ms", n=len(freeze)),
        alone(f"{NAME}.thaw.p50", 1e3 * percentile(thaw, 50), "ms", n=len(thaw)),
        beside(
            alone(f"{NAME}.stopped.p50", 1e3 * percentile(stopped, 50), "ms", n=len(stopped)),
            ENABLED,
            1e3 * percentile(enabled, 50),
        ),
    ]


async def _stopped(ground: Ground) -> None:
    """Has it stopped, as after an hour."""
    idle = ground.wiring.idle
    later_s = ground.wiring.policy.idle.stop_after_s + 1
    idle.monotonic = lambda: time.monotonic() + later_s
    try:
        # Who is just being settled is passed over, and looked at again.
        async with asyncio.timeout(PATIENCE_S):
            while (await ground.wiring.plugins.get(PLUGIN)).state is not State.IDLE:
                await idle.look()
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise BenchError("the plugin was not stopped, though nobody called it") from None
    finally:
        idle.monotonic = time.monotonic


async def _enabled(ground: Ground) -> None:
    await ground.wiring.plugins.enable(PLUGIN, OPERATOR)
    await _call(ground)


async def _took(act: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await act()
    return time.perf_counter() - began


async def _call(ground: Ground) -> None:
    if (answer := await ground.wiring.calls.call(BODY, OPERATOR)).is_error:
        raise BenchError(f"the plugin answered that it failed: {answer.content}")
