"""Events to a plugin, beside a call of the same plugin over the same socket in the same run.

An event is published as an application does and counts when the plugin has acknowledged it; a call is answered by
the same runtime. Blocks of both alternate. Kept events, each committed before publishing returns, are
measured from many publishers, who share commits, beside one who waits for each.
"""

from __future__ import annotations

import asyncio
import time

from bench.figures import Figure, alone, beside, percentile
from bench.ground import OPERATOR, PATIENCE_S, BenchError, Ground
from tests.fakes.packages import make_package
from wirthforge_host.bus import Retention
from wirthforge_host.plugins.instance import Instance
from wirthforge_sdk.contracts.host_api import ApprovalIn
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.contracts.resources import Tier

NAME = "events"
PLUGIN = "demo/listener"
PEER = "a call of the same plugin"
NEEDS = ("events.subscribe:bench.*",)
ROUNDS, BLOCK = 10, 100
BUSY_ROUNDS, TOPICS = 6, 16
SOURCE = '''from wirthforge_sdk.runtime import Event, Plugin

plugin = Plugin()
count = 0


@plugin.on_event("bench.*")
def heard(event: Event) -> None:
    """Counts."""
    global count
    count += 1


@plugin.function
def counted() -> int:
    """How many events it heard."""
    return count
'''
EXTRA = f'[resources]\ntier = "{Tier.LARGE}"\n[[events.subscriptions]]\ntopic = "bench.*"\nqueue = 10000'


def packages() -> list[bytes]:
    """What the host's shelf must hold."""
    result = {"type": "object", "properties": {"result": {"type": "integer"}}, "required": ["result"]}
    counted = Function(
        name="counted",
        description="How many events it heard.",
        input_schema={"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        output_schema=result,
    )
    return [make_package(PLUGIN, functions=[counted], source=SOURCE, permissions=NEEDS, extra=EXTRA)]


async def measure(ground: Ground) -> list[Figure]:
    """One in flight, many topics at once, and kept ones."""
    wiring = ground.wiring
    async with wiring.running():
        record = await wiring.plugins.get(await wiring.installer.install(PLUGIN, OPERATOR))
        approval = ApprovalIn(plugin=PLUGIN, digest=record.digest, grant=list(NEEDS))
        await wiring.plugins.approve(approval, OPERATOR)
        instance = wiring.reconciler.live(PLUGIN)
        if instance is None:
            raise BenchError("the plugin did not start: `python -m bench cold_start` tells why")
        deliveries = _Deliveries(instance)
        return [
            *await _latency(ground, instance, deliveries),
            await _rate(ground, deliveries),
            await _kept(ground, deliveries),
        ]


class _Deliveries:
    """Notes when the plugin has acknowledged events."""

    def __init__(self, instance: Instance) -> None:
        calls = instance.session._connection.calls  # noqa: SLF001 (timed from outside)
        request = calls.request
        self._left = 0
        self._done = asyncio.Event()

        async def noted(method: str, *args: object, **kwargs: object) -> object:
            answer = await request(method, *args, **kwargs)  # type: ignore[arg-type]
            if method == "events/deliver":
                self._left -= 1
                if self._left == 0:
                    self._done.set()
            return answer

        calls.request = noted  # type: ignore[method-assign]

    def expect(self, count: int) -> None:
        """So many are to come."""
        self._left = count
        self._done.clear()

    async def all(self) -> None:
        """Returns when they came."""
        async with asyncio.timeout(PATIENCE_S):
            await self._done.wait()


async def _latency(ground: Ground, instance: Instance, deliveries: _Deliveries) -> list[Figure]:
    ours: list[float] = []
    peers: list[float] = []
    for _ in ground.rounds(f"{NAME}, one in flight", ROUNDS):
        for number in range(BLOCK):
            deliveries.expect(1)
            began = time.perf_counter()
            await ground.wiring.bus.publish("application:bench", "bench.one", b"%d" % number)
            await deliveries.all()
            ours.append(time.perf_counter() - began)
        for _number in range(BLOCK):
            began = time.perf_counter()
            await instance.session.call("counted", {}, timeout_s=PATIENCE_S, call_id="bench")
            peers.append(time.perf_counter() - began)
    return [
        beside(
            alone(f"{NAME}.acknowledged.p{percent}", 1e6 * percentile(ours, percent), "us", n=len(ours)),
            PEER,
            1e6 * percentile(peers, percent),
        )
        for percent in (50, 99)
    ]


async def _rate(ground: Ground, deliveries: _Deliveries) -> Figure:
    rates = []
    count = TOPICS * BLOCK
    for _ in ground.rounds(f"{NAME}, {TOPICS} topics", BUSY_ROUNDS):
        deliveries.expect(count)
        began = time.perf_counter()
        for number in range(count):
            await ground.wiring.bus.publish("application:bench", f"bench.t{number % TOPICS}", b"1")
        await deliveries.all()
        rates.append(count / (time.perf_counter() - began))
    return alone(f"{NAME}.acknowledged.{TOPICS}_topics", percentile(rates, 50), "events/s", n=len(rates))


async def _kept(ground: Ground, deliveries: _Deliveries) -> Figure:
    bus = ground.wiring.bus
    await bus.keep("bench.kept", Retention(), by="operator:bench")
    together: list[float] = []
    singly: list[float] = []
    for _ in ground.rounds(f"{NAME}, kept", BUSY_ROUNDS):
        deliveries.expect(2 * BLOCK)
        began = time.perf_counter()
        await asyncio.gather(*(bus.publish("application:bench", "bench.kept", b"1") for _ in range(BLOCK)))
        together.append(BLOCK / (time.perf_counter() - began))
        began = time.perf_counter()
        for _number in range(BLOCK):
            await bus.publish("application:bench", "bench.kept", b"1")
        singly.append(BLOCK / (time.perf_counter() - began))
        await deliveries.all()
    figure = alone(f"{NAME}.kept.together", percentile(together, 50), "events/s", n=len(together))
    return beside(figure, "one publisher, a commit for each", percentile(singly, 50))
