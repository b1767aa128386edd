"""From an operator's revocation to the cut of what depends on it, while fifty plugins are busy, beside a host call.

Each plugin is a peer on a socket of its own: one call stands open that needs a grant, and others are made without a
pause. The time begins before the rule is revoked (its transaction and audit record are in it) and ends when the refusal
is read on the socket. The floor is a host call's round trip of the same peer in the same crowd.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bench.figures import Figure, alone, beside, percentile
from bench.ground import OPERATOR, Ground
from tests.fakes.plugin_peer import PluginPeer
from wirthforge_host.bridge import Bridge, Peer, Services
from wirthforge_host.bridge.exchange import Exchange
from wirthforge_host.configuration import Configurations
from wirthforge_host.wiring import Wiring
from wirthforge_sdk.contracts.host_api import ApprovalIn
from wirthforge_sdk.serving.clock import utc_now

NAME = "revocation"
PLUGINS = 50
PLUGINS_QUICK = 10
ROUNDS = 100
DIGEST = f"sha256:{'0' * 64}"
NEED = "plugins.call:bench/none.never"
CALL = {"plugin": "bench/none", "function": "never", "arguments": {}}
PEER = "host call round trip, p99"
BOUND_MS = 100.0
BREATH_S = 0.02
"""Between two calls of a busy peer: fifty of them make some two thousand calls a second."""


def packages() -> list[bytes]:
    """None: the plugins are peers."""
    return []


async def measure(ground: Ground) -> list[Figure]:
    """Takes turns: a round trip, then a revocation, of one peer after another."""
    count = PLUGINS_QUICK if ground.effort.quick else PLUGINS
    cuts: list[float] = []
    trips: list[float] = []
    async with ground.wiring.running(), _crowd(ground, count) as crowd:
        for number in ground.rounds(NAME, ROUNDS):
            busy = crowd[number % count]
            trips.append(await busy.round_trip())
            cuts.append(await busy.cut(ground.wiring))
    cut = alone(f"{NAME}.cut.p99", 1e3 * percentile(cuts, 99), "ms", n=len(cuts))
    return [
        beside(cut, PEER, 1e3 * percentile(trips, 99)),
        beside(alone(f"{NAME}.cut.bound", cut.value, "ms", n=len(cuts)), "what was promised", BOUND_MS),
        alone(f"{NAME}.cut.p50", 1e3 * percentile(cuts, 50), "ms", n=len(cuts)),
    ]


class _Never:
    """Calls of plugins that nobody answers."""

    async def call_for(self, *_: Any, **__: Any) -> dict[str, Any]:
        never: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        return await never


@dataclass
class _Busy:
    plugin: str
    peer: PluginPeer
    waiting: dict[int, asyncio.Future[dict[str, Any]]]
    last: int = 0

    async def read(self) -> None:
        while (message := await self.peer.receive()) is not None:
            if (waiting := self.waiting.pop(message["id"], None)) is not None:
                waiting.set_result(message)

    async def work(self) -> None:
        while True:
            await self.asked("host/permissions.list")
            await asyncio.sleep(BREATH_S)

    def asked(self, method: str, **params: Any) -> asyncio.Future[dict[str, Any]]:
        self.last += 1
        self.waiting[self.last] = asyncio.get_running_loop().create_future()
        self.peer.ask(method, self.last, **params)
        return self.waiting[self.last]

    async def round_trip(self) -> float:
        began = time.perf_counter()
        await self.asked("host/permissions.list")
        return time.perf_counter() - began

    async def cut(self, wiring: Wiring) -> float:
        await _grant(wiring, self.plugin)
        open_call = self.asked("host/plugins.call", **CALL)
        await self.asked("host/permissions.list")  # answered after the other has begun
        [rule] = await wiring.permissions.in_force(self.plugin)
        began = time.perf_counter()
        await wiring.permissions.revoke(rule.id, OPERATOR.actor)
        answer = await open_call
        seconds = time.perf_counter() - began
        assert answer["error"]["data"]["code"] == "PERMISSION_DENIED"
        return seconds


async def _grant(wiring: Wiring, plugin: str) -> None:
    approval = ApprovalIn(plugin=plugin, digest=DIGEST, grant=[NEED])
    async with wiring.database.transaction() as tx:
        await wiring.permissions.decide(tx, approval, OPERATOR.actor)


@asynccontextmanager
async def _crowd(ground: Ground, count: int) -> AsyncIterator[list[_Busy]]:
    wiring = ground.wiring
    exchange = Exchange()
    exchange.connect(_Never())
    services = Services(
        audit=wiring.audit,
        bus=wiring.bus,
        configurations=Configurations(wiring.database, wiring.audit, now=utc_now),
        secrets=wiring.secrets,
        events=wiring.events,
        logs=wiring.logs,
        storage=wiring.storage,
        requests=wiring.answers.requests,
        monotonic=time.monotonic,
        exchange=exchange,
    )
    bridge = Bridge(services)
    async with AsyncExitStack() as stack:
        crowd = []
        for number in range(count):
            plugin, directory = f"bench/p{number}", ground.directory / f"p{number}"
            rights = wiring.permissions.of(plugin, DIGEST)
            peer = Peer(
                instance=f"p{number}",
                plugin=plugin,
                digest="sha256:1",
                uid=os.getuid(),
                rights=rights,
                storage_bytes=0,
            )
            endpoint = await bridge.listen(peer, directory, on_lost=lambda: None)
            stack.push_async_callback(endpoint.close)
            accepting = asyncio.create_task(endpoint.accept(timeout_s=10))
            busy = _Busy(plugin, await PluginPeer.connect(directory / "bridge.sock"), {})
            await accepting
            for work in (busy.read(), busy.work()):
                stack.callback(asyncio.create_task(work).cancel)
            crowd.append(busy)
        yield crowd
