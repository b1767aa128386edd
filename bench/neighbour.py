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
from wirthforge_host.sandbox.control import Control
from wirthforge_sdk.contracts.host_api import CallIn
from wirthforge_sdk.contracts.manifest import Function

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


@plugin.function
def begin() -> int:
    """Takes all that it may, from now on."""
    work = [churn, read, talk]
    try:
        for number in range(1000):
            threading.Thread(target=work[number] if number < len(work) else burn, daemon=True).start()
    except RuntimeError:
        return threading.active_count()
    return 0
'''


def packages() -> list[bytes]:
    """What the host's shelf must hold."""
    text = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    nothing = {"type": "object", "properties": {}, "additionalProperties": False}
    echo = Function(
        name="echo",
        description="Gives back what it got.",
        input_schema={**text, "additionalProperties": False},
        output_schema=_result("string"),
    )
    begin = Function(
        name="begin",
        description="Takes all that it may, from now on.",
        input_schema=nothing,
        output_schema=_result("integer"),
    )
    limits = '[resources]\ntier = "small"'
    return [
        make_package(QUIET, functions=[echo], source=QUIET_SOURCE, extra=limits),
        make_package(GREEDY, functions=[begin], source=GREEDY_SOURCE, extra=limits),
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


def _result(kind: str) -> dict[str, object]:
    return {"type": "object", "properties": {"result": {"type": kind}}, "required": ["result"]}
