"""What many idle plugins cost: memory of the whole machine, and a cold start beside them.

N instances run, each has answered a call, and then sleeps as an idle one does. Memory is what the kernel says is
available (``MemAvailable``), before and after: containers' shims, the engine and the host's own share are in it;
divided by N. The peer, *bare container*: as many containers from the same create body whose Python waits in
``signal.pause()``, measured in the same way before ours. A cold start is from ``enable`` to the first answer of another
plugin, with the N there and, as its peer, with none.
"""

from __future__ import annotations

import asyncio
import time

from bench.figures import Figure, alone, at_most, beside, percentile
from bench.ground import OPERATOR, BenchError, Ground
from tests.fakes.packages import make_package
from wirthforge_host.plugins.pool import available_memory
from wirthforge_sdk.contracts.host_api import CallIn
from wirthforge_sdk.contracts.resources import MIB

NAME = "density"
MANY, FEW = 100, 20
EACH = 8
"""Instances of one plugin at most, by the policy's own cap."""
STARTS = 12
IDLE, OTHER = "demo/idle", "demo/other"
PEER, ALONE = "bare container", "none beside it"
WAITS = "import signal; signal.pause()"
PROMISE, PROMISED_MB = "the promise: 18 MB", 18.0
LOOKS, LOOK_S = 100, 0.1
SETTLE_S = 2.0
"""Before memory is read: what ends takes a moment to be given back."""


def packages() -> list[bytes]:
    """What the host's shelf must hold."""
    names = [OTHER, *(f"{IDLE}{number}" for number in range(-(-MANY // EACH)))]
    return [make_package(name) for name in names]


async def measure(ground: Ground) -> list[Figure]:
    """The peer's memory, cold starts with nothing beside them, ours, cold starts beside it."""
    many = FEW if ground.effort.quick else MANY
    bare_mb = await asyncio.to_thread(_bare, ground, many)
    async with ground.wiring.running():
        await ground.wiring.installer.install(OTHER, OPERATOR)
        alone_s = await _starts(ground)
        before = await _available()
        names = await _filled(ground, many)
        slept = await _asleep(ground)
        ours_mb = (before - await _available()) / many / MIB
        beside_s = await _starts(ground)
        answered_s = [await _call(ground, name) for name in names]
    if slept < many:
        raise BenchError(f"only {slept} of {many} instances fell asleep")
    if min(bare_mb, ours_mb) <= 0:
        raise BenchError("others gave memory back meanwhile: measure while the machine does nothing else")
    memory = alone(f"{NAME}.memory", ours_mb, "MB", n=many)
    start = alone(f"{NAME}.cold_start.p50", 1e3 * percentile(beside_s, 50), "ms", n=len(beside_s))
    return [
        beside(memory, PROMISE, PROMISED_MB, at_most(1.0)),
        beside(alone(f"{NAME}.memory.bare", ours_mb, "MB", n=many), PEER, bare_mb),
        beside(start, ALONE, 1e3 * percentile(alone_s, 50), at_most(1.2)),
        alone(f"{NAME}.first_call_again.p50", 1e3 * percentile(answered_s, 50), "ms", n=len(answered_s)),
    ]


def _bare(ground: Ground, many: int) -> float:
    """MB of each of as many bare containers."""
    before, made = _settled(), list[str]()
    try:
        for _ in range(many):
            body, name, _directory = ground.peer(None, ("-c", WAITS))
            made.append(ground.client.create_container_from_config(body, name)["Id"])
            ground.client.start(made[-1])
        return (before - _settled()) / many / MIB
    finally:
        for container in made:
            ground.client.remove_container(container, force=True, v=True)


async def _filled(ground: Ground, many: int) -> list[str]:
    """Plugins with as many instances together, each called once."""
    names = []
    for number in range(-(-many // EACH)):
        name = f"{IDLE}{number}"
        await ground.wiring.installer.install(name, OPERATOR)
        count = min(EACH, many - number * EACH)
        await ground.wiring.scaling.scale(name, count, OPERATOR)
        if len(ground.wiring.reconciler.fleet.of(name)) < count:
            raise BenchError(f"not all of {many} instances started: raise WIRTHFORGE_HOST_MAX_INSTANCES")
        for _ in range(count):
            await _call(ground, name)
        names.append(name)
    return names


async def _asleep(ground: Ground) -> int:
    """Lets all sleep, as after a minute; how many do."""
    idle, fleet = ground.wiring.idle, ground.wiring.reconciler.fleet
    later_s = ground.wiring.policy.idle.pause_after_s + 1
    instances = [each for name in fleet.plugins() for each in fleet.of(name)]
    idle.monotonic = lambda: time.monotonic() + later_s
    try:
        for _ in range(LOOKS):
            # Who is just being settled is passed over, and looked at again.
            await idle.look()
            if all(each.sleep.is_asleep for each in instances):
                break
            await asyncio.sleep(LOOK_S)
    finally:
        idle.monotonic = time.monotonic
    return sum(each.sleep.is_asleep for each in instances)


async def _starts(ground: Ground) -> list[float]:
    """Seconds from ``enable`` to the first answer, each time."""
    took = []
    for _ in ground.rounds(NAME, STARTS):
        await ground.wiring.plugins.disable(OTHER, OPERATOR)
        began = time.perf_counter()
        await ground.wiring.plugins.enable(OTHER, OPERATOR)
        await _call(ground, OTHER)
        took.append(time.perf_counter() - began)
    await ground.wiring.plugins.disable(OTHER, OPERATOR)
    return took


async def _call(ground: Ground, plugin: str) -> float:
    began = time.perf_counter()
    body = CallIn(plugin=plugin, function="greet", arguments={"name": "Ada"})
    if (answer := await ground.wiring.calls.call(body, OPERATOR)).is_error:
        raise BenchError(f"{plugin} answered that it failed: {answer.content}")
    return time.perf_counter() - began


async def _available() -> int:
    return await asyncio.to_thread(_settled)


def _settled() -> int:
    time.sleep(SETTLE_S)
    return available_memory()
