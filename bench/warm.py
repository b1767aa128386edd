"""From the decision to start a plugin to its first answered call: in a blank sandbox, beside a cold start of the same.

One host, one engine, one plugin, in turns. Both begin where ``Instances.open`` begins (the release was verified at
install, approved, and is not running) and end with the answer to the first call; both have the same limits, the same
settings read back, the same handshake. The blank is there, as it is between two starts; making it is not measured here.
``enable`` is the same from the operator's request on, with what is written down before a start.

Two plugins: ``packed`` has eight modules with 320 classes and 24 KB of data, which it reads; ``hello`` is one module.
"""

from __future__ import annotations

import asyncio
import time

from bench.figures import Figure, Target, alone, at_most, beside, percentile
from bench.ground import OPERATOR, BenchError, Ground
from bench.phases import Phases
from tests.fakes.packages import GREET, make_package
from wirthforge_host.bridge.session import Session
from wirthforge_host.plugins.calls import Calls
from wirthforge_host.plugins.instances import Instances
from wirthforge_host.plugins.pool import Pool
from wirthforge_host.plugins.roster import Roster
from wirthforge_host.sandbox.control import Control
from wirthforge_host.sandbox.service import Sandboxes
from wirthforge_sdk.contracts.host_api import CallIn

NAME = "warm"
ROUNDS = 24
HELLO, PACKED = "demo/hello", "demo/packed"
COLD = "cold start"
FULL_S = 60.0
"""How long a blank may take to be there."""

TARGETS = {(PACKED, 50): at_most(0.03), (PACKED, 95): at_most(0.05), (HELLO, 50): at_most(0.02)}

POINTS = (
    (Instances, "open", "open"),
    (Calls, "call", "first_call"),
    (Pool, "take", "take"),
    (Sandboxes, "fit", "fit"),
    (Roster, "give", "give"),
    (Control, "thaw", "thaw"),
    (Session, "open", "handshake"),
    (Session, "list_tools", "list_tools"),
)

MODULES, CLASSES, DATA_BYTES = 8, 40, 24 * 1024

_CLASS = '''
class Shape{number}:
    """One of many."""

    def __init__(self, size: int) -> None:
        self.size = size

    def area(self) -> int:
        return self.size * {number}
'''

_ENTRY = '''from importlib import resources

from wirthforge_sdk.runtime import Plugin
{imports}

plugin = Plugin()


@plugin.function
def greet(name: str) -> str:
    """Greets somebody."""
    return f"Hello, {{name}}! {{len(resources.files('shapes').joinpath('data.txt').read_bytes())}}"
'''


def packages() -> list[bytes]:
    """What the host's shelf must hold."""
    files = {
        f"src/shapes/part{part}.py": "".join(
            _CLASS.format(number=number) for number in range(part * CLASSES, (part + 1) * CLASSES)
        )
        for part in range(MODULES)
    }
    files |= {"src/shapes/__init__.py": "", "src/shapes/data.txt": "wirthforge " * (DATA_BYTES // 11)}
    imports = "\n".join(f"import shapes.part{part}" for part in range(MODULES))
    packed = make_package(PACKED, source=_ENTRY.format(imports=imports), functions=(GREET,), files=files)
    return [make_package(HELLO), packed]


async def measure(ground: Ground) -> list[Figure]:
    """Takes turns: warm, then cold, then the other way round."""
    pool = ground.wiring.instances.pool
    off, on = pool.settings, pool.settings.model_copy(update={"warm_pool": 1})
    pool.settings = on
    phases = Phases(POINTS)
    figures: list[Figure] = []
    async with ground.wiring.running():
        for plugin in (PACKED, HELLO):
            await ground.wiring.installer.install(plugin, OPERATOR)
            await ground.wiring.plugins.disable(plugin, OPERATOR)
            found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
            with phases.watched():
                for number in ground.rounds(f"{NAME}.{plugin}", ROUNDS):
                    for is_warm in (True, False) if number % 2 else (False, True):
                        async with asyncio.timeout(FULL_S):
                            await pool.full()
                        pool.settings = on if is_warm else off
                        found[is_warm].append(await _round(ground, phases, plugin, is_warm=is_warm))
                        pool.settings = on
            figures += _figures(plugin, found)
    return figures


async def _round(ground: Ground, phases: Phases, plugin: str, *, is_warm: bool) -> dict[str, float]:
    """Seconds by phase, and ``whole`` and ``enable``."""
    wiring = ground.wiring
    body = CallIn(plugin=plugin, function="greet", arguments={"name": "Ada"})
    phases.begin()
    began = time.perf_counter()
    await wiring.plugins.enable(plugin, OPERATOR)
    answer = await wiring.calls.call(body, OPERATOR)
    enabled = time.perf_counter() - began
    told = (await wiring.plugins.effective(plugin)).start
    await wiring.plugins.disable(plugin, OPERATOR)
    if answer.is_error:
        raise BenchError(f"the plugin answered that it failed: {answer.content}")
    if told != ("warm" if is_warm else "cold"):
        raise BenchError(f"{plugin} was started {told}")
    seconds = {phase: phases.seconds[phase] for phase in phases.names}
    return seconds | {"whole": seconds["open"] + seconds["first_call"], "enable": enabled}


def _figures(plugin: str, found: dict[bool, list[dict[str, float]]]) -> list[Figure]:
    short = plugin.partition("/")[2]
    figures = [
        _figure(f"{NAME}.{short}.p{percent}", "whole", percent, found, TARGETS.get((plugin, percent)))
        for percent in (50, 95)
    ]
    figures += [_figure(f"{NAME}.{short}.enable.p50", "enable", 50, found, None)]
    for phase in (*dict.fromkeys(phase for _, _, phase in POINTS),):
        value = 1000 * percentile([each[phase] for each in found[True]], 50)
        figures.append(alone(f"{NAME}.{short}.phase.{phase}.p50", value, "ms", n=len(found[True])))
    return figures


def _figure(
    name: str, phase: str, percent: int, found: dict[bool, list[dict[str, float]]], target: Target | None
) -> Figure:
    warm, cold = (
        1000 * percentile([each[phase] for each in found[is_warm]], percent) for is_warm in (True, False)
    )
    return beside(alone(name, warm, "ms", n=len(found[True])), COLD, cold, target)
