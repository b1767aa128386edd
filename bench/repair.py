"""From the crash of a plugin's process to its next answered call, beside ``docker restart`` of an equal container.

Ours: the process is ended by ``SIGKILL``, as the kernel does it for memory, and calls are made until one is answered.
The peer: the engine is asked, over its API, to restart a bare container made from the same create body, without the
seconds it would leave for a polite end, until its program connects. Its program is a line of Python; ours is the
runtime and a plugin, whose own import is measured by itself and taken off: a restart would have to do that too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from bench.figures import Figure, alone, at_most, beside, percentile
from bench.ground import OPERATOR, BenchError, Ground
from bench.phases import Phases
from tests.fakes.packages import make_package
from tests.fakes.world import offered
from wirthforge_host.bridge.server import Endpoint
from wirthforge_host.bridge.session import Session
from wirthforge_host.errors import PluginUnavailableError
from wirthforge_host.plugins.instance import Instance
from wirthforge_sdk.contracts.bridge import REPAIRS
from wirthforge_sdk.contracts.host_api import CallIn

NAME = "repair"
PLUGIN = "demo/busy"
PEER = "docker restart"
ROUNDS = 12
PAUSE_S = 0.001
PATIENCE_S = 30.0
TARGET = at_most(0.05)
PROGRAM = Path(__file__).with_name("repair_program.py")
POINTS = (
    (Endpoint, "reopen", "listen"),
    (Endpoint, "accept", "connect"),
    (Session, "open", "handshake"),
    (Session, "list_tools", "handshake"),
)

SOURCE = """
import time
began = time.perf_counter()
import csv, decimal, email.message, html.parser, sqlite3, statistics, urllib.parse, xml.etree.ElementTree
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()


@plugin.function(read_only=True)
def took() -> float:
    "The seconds that its import took."
    return seconds


seconds = time.perf_counter() - began
"""


def packages() -> list[bytes]:
    """What the host's shelf must hold."""
    return [make_package(PLUGIN, source=SOURCE, functions=offered(SOURCE))]


async def measure(ground: Ground) -> list[Figure]:
    """Takes turns: ours, as often as one instance is repaired, then the peer as often."""
    phases = Phases(POINTS)
    ours: list[float] = []
    imports: list[float] = []
    parts: list[dict[str, float]] = []
    peers: list[float] = []
    async with ground.wiring.running():
        await ground.wiring.installer.install(PLUGIN, OPERATOR)
        await ground.wiring.plugins.disable(PLUGIN, OPERATOR)
        with phases.watched():
            for _ in ground.rounds(NAME, ROUNDS):
                await ground.wiring.plugins.enable(PLUGIN, OPERATOR)
                for _ in range(REPAIRS):
                    phases.begin()
                    seconds, imported = await _ours(ground)
                    ours.append(seconds)
                    imports.append(imported)
                    parts.append({name: phases.seconds[name] for name in phases.names})
                await ground.wiring.plugins.disable(PLUGIN, OPERATOR)
                peers += _peers(ground)
    peer = 1000 * percentile(peers, 50)
    rest = [whole - imported for whole, imported in zip(ours, imports, strict=True)]
    return [
        beside(_figure("without_import.p50", rest), PEER, peer, TARGET),
        beside(_figure("whole.p50", ours), PEER, peer),
        _figure("import.p50", imports),
        *(_figure(f"phase.{name}.p50", [each[name] for each in parts]) for name in phases.names),
    ]


def _figure(name: str, seconds: list[float]) -> Figure:
    return alone(f"{NAME}.{name}", 1000 * percentile(seconds, 50), "ms", n=len(seconds))


async def _ours(ground: Ground) -> tuple[float, float]:
    """Seconds from the kill to the answer, and those of the plugin's import."""
    (instance,) = ground.wiring.reconciler.fleet.of(PLUGIN)
    repairs, worker = instance.repairs, _worker_of(instance)
    body = CallIn(plugin=PLUGIN, function="took")
    await ground.wiring.calls.call(body, OPERATOR)
    began = time.perf_counter()
    os.kill(worker, signal.SIGKILL)
    while True:
        try:
            answer = await ground.wiring.calls.call(body, OPERATOR)
        except PluginUnavailableError:
            await asyncio.sleep(PAUSE_S)
            continue
        if instance.repairs > repairs:
            break
        # It was answered before the end was there.
        if time.perf_counter() - began > PATIENCE_S:
            raise BenchError(
                "the plugin was not repaired: `python -m bench cold_start` tells whether it starts"
            )
    return time.perf_counter() - began, float(answer.structured["result"])


def _worker_of(instance: Instance) -> int:
    """The only child of process 1."""
    (child,) = Path(f"/proc/{instance.pid}/task/{instance.pid}/children").read_text().split()
    return int(child)


def _peers(ground: Ground) -> list[float]:
    """Seconds of restarts until the program is there again. Blocks: nothing of the host runs meanwhile."""
    found = []
    with ground.calling(PROGRAM) as (container, listening):
        stream, _ = listening.accept()
        for _ in range(REPAIRS):
            began = time.perf_counter()
            ground.client.restart(container, timeout=0)
            stream.close()
            stream, _ = listening.accept()
            found.append(time.perf_counter() - began)
        stream.close()
    return found
