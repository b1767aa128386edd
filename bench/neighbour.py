"""A quiet plugin's calls while its neighbour takes all that it may, beside the same calls while that one stands still.

The neighbour burns the processor in as many threads as it may have, churns through its memory, re-reads the image's
files past the page cache, and floods its log, all within the limits of the tier ``small``. Blocks of calls alternate:
the neighbour at full tilt, the neighbour frozen. What differs is what one tenant costs another.
"""

from __future__ import annotations

import time

from bench.figures import Figure, alone, at_most, beside, percentile
from bench.ground import OPERATOR, BenchError, Ground
from tests.fakes.packages import make_package
from tests.fakes.world import offered
from wirthforge_host.sandbox.control import Control
from wirthforge_sdk.contracts.host_api import CallIn

NAME = "neighbour"
QUIET, GREEDY = "demo/quiet", "demo/greedy"
PEER = "the neighbour frozen"
ROUNDS, BLOCK, WARM = 20, 400, 100

QUIET_SOURCE = '''from wirthforge_sdk.runtime import Plugin

plugin = Plugin()


@plugin.function(inline=True)
def echo(text: str) -> str:
    """Gives back what it got."""
    return text
'''

GREEDY_SOURCE = '''import os
import threading
from pathlib import Path

from wirthforge_sdk.runtime import Plugin

plugin = Plugin()
MIB = 1024 * 1024


def burn():
    while True:
        sum(range(10_000))


def churn():
    while True:
        held = [bytes(MIB) for _ in range(40)]
        del held


def read():
    files = [path for path in Path("/usr").rglob("*") if path.is_file()]
    while True:
        for path in files:
            with path.open("rb") as file:
                file.read()
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def talk():
    while True:
        plugin.log.info("x" * 200)


def burn_all():
    work = [churn, read]
    try:
        for number in range(1000):
            threading.Thread(target=work[number] if number < len(work) else burn, daemon=True).start()
    except RuntimeError:
        pass  # it has as many threads as it may
    burn()


@plugin.function
def begin() -> bool:
    """Takes all that it may, from now on."""
    # In a process of its own: else what burns would keep even this answer back.
    if os.fork() == 0:
        burn_all()
    threading.Thread(target=talk, daemon=True).start()
    return True
'''


def packages() -> list[bytes]:
    """What the host's shelf must hold."""
    quiet, greedy = ('[resources]\ntier = "large"', '[resources]\ntier = "small"')
    return [
        make_package(QUIET, functions=offered(QUIET_SOURCE), source=QUIET_SOURCE, extra=quiet),
        make_package(GREEDY, functions=offered(GREEDY_SOURCE), source=GREEDY_SOURCE, extra=greedy),
    ]


async def measure(ground: Ground) -> list[Figure]:
    """p50 and p99 of the quiet plugin's calls, disturbed beside undisturbed."""
    async with ground.wiring.running():
        for name in (QUIET, GREEDY):
            await ground.wiring.installer.install(name, OPERATOR)
        await _call(ground, GREEDY, "begin")
        greedy = ground.wiring.reconciler.live(GREEDY)
        if greedy is None:
            raise BenchError("the greedy plugin did not stay: `python -m bench cold_start` tells why")
        control = Control(ground.wiring.engine)
        disturbed: list[float] = []
        undisturbed: list[float] = []
        await _times(ground, WARM)
        for _ in ground.rounds(NAME, ROUNDS):
            disturbed += await _times(ground, BLOCK)
            await control.freeze(greedy.container_id)
            undisturbed += await _times(ground, BLOCK)
            await control.thaw(greedy.container_id)
    return [
        beside(
            alone(f"{NAME}.p{percent}", 1e6 * percentile(disturbed, percent), "us", n=len(disturbed)),
            PEER,
            1e6 * percentile(undisturbed, percent),
            at_most(1.2) if percent == 99 else None,
        )
        for percent in (50, 99)
    ]


async def _times(ground: Ground, count: int) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await _call(ground, QUIET, "echo", text="x" * 100)
        times.append(time.perf_counter() - began)
    await ground.wiring.audit.flush()
    return times


async def _call(ground: Ground, plugin: str, function: str, **arguments: str) -> None:
    answer = await ground.wiring.calls.call(
        CallIn(plugin=plugin, function=function, arguments=arguments), OPERATOR
    )
    if answer.is_error:
        raise BenchError(f"{plugin}.{function} answered that it failed: {answer.content}")
