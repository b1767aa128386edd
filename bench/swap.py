"""Calls while a plugin is upgraded and rolled back under load, beside calls of the same run while it is not.

Callers that never pause call one inline function. Meanwhile the plugin is upgraded and rolled back, again and again: an
upgrade starts and examines a sandbox of the other release beside the one that serves, a rollback thaws the old one. A
call is of a *switch* when it was open within 20 ms of one, of an *upgrade* when it was open while that went on, and
else it is the peer's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.figures import Figure, alone, at_most, beside, percentile
from bench.ground import OPERATOR, BenchError, Ground
from tests.fakes.packages import make_package
from tests.fakes.world import offered
from wirthforge_host.events import Event
from wirthforge_sdk.contracts.host_api import CallIn
from wirthforge_sdk.contracts.upgrades_api import RollbackIn

NAME = "swap"
PLUGIN = "demo/swapped"
OLD, NEW = "1.0.0", "1.1.0"
PEER = "the same without a swap"
COLD = "the upgrade, with its cold start"
ROUNDS = 50
"""Upgrades, and as many rollbacks."""
CALLERS = 8
PAUSE_S = 0.3
"""Before each swap, so that there are calls to compare with."""
MARGIN_S = 0.02
"""Around the moment of a switch."""

SOURCE = '''from wirthforge_sdk.runtime import Plugin

plugin = Plugin()


@plugin.function(inline=True)
def version() -> str:
    """Says which release answers."""
    return "{version}"
'''


def packages() -> list[bytes]:
    """What the host's shelf must hold."""
    made = []
    for version in (OLD, NEW):
        source = SOURCE.replace("{version}", version)
        made.append(make_package(PLUGIN, version, functions=offered(source), source=source))
    return made


class _Span(NamedTuple):
    """From when to when, on the clock of ``time.perf_counter``."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(slots=True)
class _Load:
    """Callers at work, and what became of their calls."""

    ground: Ground
    calls: list[_Span] = field(default_factory=list)
    failed: int = 0

    async def run(self) -> None:
        body = CallIn(plugin=PLUGIN, function="version", arguments={})
        while True:
            began = time.perf_counter()
            answer = await self.ground.wiring.calls.call(body, OPERATOR)
            self.failed += answer.is_error
            self.calls.append(_Span(began, time.perf_counter()))


async def measure(ground: Ground) -> list[Figure]:
    """The p99 of calls at a switch and during an upgrade, and how long it takes until a switch. No call may fail."""
    async with ground.wiring.running():
        await ground.wiring.installer.install(f"{PLUGIN}@{OLD}", OPERATOR)
        load = _Load(ground)
        callers = [asyncio.create_task(load.run()) for _ in range(CALLERS)]
        async with ground.wiring.events.subscribe() as events:
            switches: list[_Span] = []
            watching = asyncio.create_task(_watch(events, switches))
            upgrades: list[_Span] = []
            rollbacks: list[_Span] = []
            for _ in ground.rounds(NAME, ROUNDS):
                await asyncio.sleep(PAUSE_S)
                upgrades.append(await _timed(ground.wiring.installer.upgrade(PLUGIN, "*", OPERATOR)))
                await asyncio.sleep(PAUSE_S)
                back = ground.wiring.plugins.upgrades.roll_back(PLUGIN, RollbackIn(restore=False), OPERATOR)
                rollbacks.append(await _timed(back))
            watching.cancel()
        ended = [caller for caller in callers if caller.done()]
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    if ended or load.failed or len(switches) != len(upgrades) + len(rollbacks):
        raise BenchError(f"{len(ended) + load.failed} calls failed, {len(switches)} switches were seen")
    busy = [*switches, *upgrades, *rollbacks]
    steady = 1e3 * percentile([each.seconds for each in load.calls if not _within(each, busy)], 99)
    return [
        *(
            beside(_p99(f"{NAME}.call_at_{name}.p99", load.calls, spans), PEER, steady, target)
            for name, spans, target in (("switch", switches, at_most(2)), ("upgrade", upgrades, None))
        ),
        beside(
            _p50(f"{NAME}.rollback.p50", _until(switches, rollbacks)),
            COLD,
            _p50("", _until(switches, upgrades)).value,
        ),
    ]


async def _watch(events: AsyncIterator[Event], switches: list[_Span]) -> None:
    async for event in events:
        if event.type == "plugin.upgrade" and event.data["state"] in {"probation", "rolled_back"}:
            now = time.perf_counter()
            switches.append(_Span(now - MARGIN_S, now + MARGIN_S))


def _until(switches: Sequence[_Span], swaps: Sequence[_Span]) -> list[_Span]:
    """From the wish to the switch, of each: what comes after is the end of the instances that served."""
    at = [each.ended - MARGIN_S for each in switches]
    return [_Span(each.began, next(when for when in at if when > each.began)) for each in swaps]


async def _timed(work: Awaitable[None]) -> _Span:
    began = time.perf_counter()
    await work
    return _Span(began, time.perf_counter())


def _within(call: _Span, spans: Iterable[_Span]) -> bool:
    return any(call.began < span.ended and span.began < call.ended for span in spans)


def _p99(name: str, calls: Sequence[_Span], spans: Sequence[_Span]) -> Figure:
    found = [1e3 * each.seconds for each in calls if _within(each, spans)]
    return alone(name, percentile(found, 99), "ms", n=len(found))


def _p50(name: str, spans: Sequence[_Span]) -> Figure:
    return alone(name, 1e3 * percentile([each.seconds for each in spans], 50), "ms", n=len(spans))
