"""From the decision to kill to the last process gone, for five kinds of runaway, beside ``docker kill``.

Ours is what the host can do by itself: ``SIGKILL`` through a descriptor of the container's process 1. With it the
kernel ends every process of the PID namespace and waits for each before process 1 is gone, which the descriptor tells.
The peer is the engine's own kill, called over its API as ``docker kill`` does, until the same descriptor tells the
same. Each has a container of its own, made from the same create body as a plugin's. What the engine tidies up
afterwards is no part of either. A storm dies slowest, whoever kills it: each of its processes needs its share of the
container's quota to end.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from bench import runaway_program
from bench.figures import Figure, alone, at_most, beside, percentile
from bench.ground import BenchError, Ground

NAME = "kill"
ROUNDS = 20
PEER = "docker kill"
PROMISE, PROMISED_MS = "the promise: a second", 1000.0
RUNS_S = 0.3
"""How long a runaway runs before it is killed: a storm has then reached its limit of processes."""
PATIENCE_S = 30.0
PROGRAM = Path(runaway_program.__file__)
SOCKET = "begun.sock"


def packages() -> list[bytes]:
    """What the host's shelf must hold."""
    return []


async def measure(ground: Ground) -> list[Figure]:
    """Takes turns: ours, then the peer, then the other way round. Blocks: no host runs meanwhile."""
    ours: dict[str, list[float]] = {kind: [] for kind in runaway_program.KINDS}
    peers: dict[str, list[float]] = {kind: [] for kind in runaway_program.KINDS}
    for number in ground.rounds(NAME, ROUNDS):
        for kind in runaway_program.KINDS:
            turns = ((ours, _by_descriptor), (peers, _by_engine))
            for samples, act in turns if number % 2 else reversed(turns):
                samples[kind].append(_seconds_to_end(ground, kind, act))
    all_ours, all_peers = (list(chain.from_iterable(each.values())) for each in (ours, peers))
    last = alone(f"{NAME}.p99", 1000 * percentile(all_ours, 99), "ms", n=len(all_ours))
    return [
        beside(last, PROMISE, PROMISED_MS, at_most(1.0)),
        *(_figure(f"{NAME}.all", percent, all_ours, all_peers) for percent in (50, 99)),
        *(
            _figure(f"{NAME}.{kind}", percent, ours[kind], peers[kind])
            for kind in ours
            for percent in (50, 99)
        ),
    ]


def _figure(name: str, percent: int, ours: list[float], peers: list[float]) -> Figure:
    figure = alone(f"{name}.p{percent}", 1000 * percentile(ours, percent), "ms", n=len(ours))
    return beside(figure, PEER, 1000 * percentile(peers, percent))


Kill = Callable[[Ground, str, int], None]
"""Kills a container by its id, or by a descriptor of its process 1."""


def _by_descriptor(_ground: Ground, _container: str, process: int) -> None:
    signal.pidfd_send_signal(process, signal.SIGKILL)


def _by_engine(ground: Ground, container: str, _process: int) -> None:
    ground.client.kill(container)


def _seconds_to_end(ground: Ground, kind: str, kill: Kill) -> float:
    """Starts a runaway, lets it run, kills it, and times that until its last process is gone."""
    arguments = (f"/plugin/{PROGRAM.name}", f"/run/wirthforge/{SOCKET}", kind)
    body, name, bridge = ground.peer(PROGRAM, arguments)
    client = ground.client
    with socket.socket(socket.AF_UNIX) as listening:
        listening.settimeout(PATIENCE_S)
        listening.bind(str(bridge / SOCKET))
        bridge.chmod(0o711)
        (bridge / SOCKET).chmod(0o666)
        listening.listen(1)
        container = client.create_container_from_config(body, name)["Id"]
        try:
            client.start(container)
            _accepted(listening, kind)
            state = client.inspect_container(container)["State"]
            process = os.pidfd_open(state["Pid"])
            try:
                time.sleep(RUNS_S)
                began = time.perf_counter()
                kill(ground, container, process)
                _await_end(process, kind)
                return time.perf_counter() - began
            finally:
                os.close(process)
        finally:
            client.remove_container(container, force=True, v=True)


def _accepted(listening: socket.socket, kind: str) -> None:
    try:
        stream, _ = listening.accept()
    except TimeoutError as error:
        raise BenchError(f"the program '{kind}' did not begin: look at the engine's log") from error
    stream.close()


def _await_end(process: int, kind: str) -> None:
    poller = select.poll()
    poller.register(process, select.POLLIN)
    if not poller.poll(PATIENCE_S * 1000):
        raise BenchError(f"the program '{kind}' still runs {PATIENCE_S:g} s after it was killed")
