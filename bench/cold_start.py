"""From ``enable`` of an installed, approved plugin to its first answered call, beside a bare ``docker run``.

The peer is a container of the same image made from the same create body: same limits, seccomp profile,
mounts, user, no network. Only its program differs: the image's Python prints one line. It is driven through
the engine's API as ``docker run`` does it (create, attach, start, read), not through the command line, whose
own start would count; and it is attached to before it starts, since the log driver is ``none`` and nothing
could be read afterwards. The clock stops at the line, not at the exit. What the peer does not do is what is
measured: the decisions and records of the host, the settings read back twice, the runtime's and the plugin's
imports, the handshake, the call.
"""

from __future__ import annotations

import time

from bench.figures import Figure, alone, at_most, beside, percentile
from bench.ground import OPERATOR, BenchError, Ground
from bench.phases import Phases
from tests.fakes.packages import make_package
from wirthforge_host.bridge.server import Endpoint
from wirthforge_host.bridge.session import Session
from wirthforge_host.plugins.calls import Calls
from wirthforge_host.sandbox.docker_engine import DockerEngine
from wirthforge_sdk.contracts.host_api import CallIn

NAME = "cold_start"
ROUNDS = 20
PLUGIN = "demo/hello"
PEER = "bare docker run"
TARGET = at_most(1.25)

POINTS = (
    (DockerEngine, "create", "create"),
    (DockerEngine, "start", "start"),
    (DockerEngine, "effective", "read_back"),
    (Endpoint, "accept", "connect"),
    (Session, "open", "handshake"),
    (Session, "list_tools", "handshake"),
    (Calls, "call", "first_call"),
)


def packages() -> list[bytes]:
    """What the host's shelf must hold."""
    return [make_package(PLUGIN)]


async def measure(ground: Ground) -> list[Figure]:
    """Takes turns: ours, then the peer, then the other way round."""
    phases = Phases(POINTS)
    ours: list[dict[str, float]] = []
    peers: list[dict[str, float]] = []
    async with ground.wiring.running():
        await ground.wiring.installer.install(PLUGIN, OPERATOR)
        await ground.wiring.plugins.disable(PLUGIN, OPERATOR)
        _peer(ground)
        with phases.watched():
            for number in ground.rounds(NAME, ROUNDS):
                if number % 2:
                    peers.append(_peer(ground))
                ours.append(await _ours(ground, phases))
                if not number % 2:
                    peers.append(_peer(ground))
    return [*(_figure("total", percent, ours, peers) for percent in (50, 95)), *_explained(ours, peers)]


def _explained(ours: list[dict[str, float]], peers: list[dict[str, float]]) -> list[Figure]:
    return [_figure(phase, 50, ours, peers) for phase in ours[0] if phase != "total"]


def _figure(phase: str, percent: int, ours: list[dict[str, float]], peers: list[dict[str, float]]) -> Figure:
    whole = phase == "total"
    name = f"{NAME}.p{percent}" if whole else f"{NAME}.phase.{phase}.p{percent}"
    figure = alone(name, 1000 * percentile([each[phase] for each in ours], percent), "ms", n=len(ours))
    if phase not in peers[0]:
        return figure
    peer = 1000 * percentile([each[phase] for each in peers], percent)
    return beside(figure, PEER, peer, TARGET if whole else None)


async def _ours(ground: Ground, phases: Phases) -> dict[str, float]:
    """Seconds by phase, ``rest`` and ``total``."""
    phases.begin()
    wiring = ground.wiring
    body = CallIn(plugin=PLUGIN, function="greet", arguments={"name": "Ada"})
    began = time.perf_counter()
    await wiring.plugins.enable(PLUGIN, OPERATOR)
    answer = await wiring.calls.call(body, OPERATOR)
    seconds = time.perf_counter() - began
    if answer.is_error:
        raise BenchError(f"the plugin answered that it failed: {answer.content}")
    parts = {phase: phases.seconds[phase] for phase in phases.names}
    await wiring.plugins.disable(PLUGIN, OPERATOR)
    return {"total": seconds, **parts, "rest": seconds - sum(parts.values())}


def _peer(ground: Ground) -> dict[str, float]:
    """The same of the bare container, up to its line. Blocks: nothing of the host runs meanwhile."""
    body, name, _ = ground.peer(None, ("-c", "print(1, flush=True)"))
    client = ground.client
    began = time.perf_counter()
    container = client.create_container_from_config(body, name)["Id"]
    try:
        created = time.perf_counter()
        output = client.attach(container, stdout=True, stream=True)
        try:
            attached = time.perf_counter()
            client.start(container)
            started = time.perf_counter()
            line = next(iter(output), b"")
            ended = time.perf_counter()
        finally:
            output.close()
    finally:
        client.remove_container(container, force=True, v=True)
    if line.strip() != b"1":
        raise BenchError("the bare container printed nothing: look at the engine's log")
    return {"total": ended - began, "create": created - began, "start": started - attached}
