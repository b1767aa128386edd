"""From the decision to kill to the last process gone, for five kinds of runaway, beside ``docker kill``.

Ours is what the host does (``Cgroup.kill``, found by the id of process 1 each time): one write on cgroup v2; on v1 all
are frozen and each is signalled. Then a descriptor of process 1 tells that the kernel has ended all of its namespace.
The peer is the engine's own kill, called over its API as ``docker kill`` does, until the same descriptor tells the
same. Each has a container of its own, made from the same create body as a plugin's. What the engine tidies up
afterwards is no part of either. A storm dies slowest, whoever kills it: each of its processes needs its share of the
container's quota to end.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from bench import runaway_program
from bench.figures import Figure, alone, at_most, beside, percentile
from bench.ground import PATIENCE_S, BenchError, Ground
from wirthforge_host.sandbox.cgroup import Cgroup

NAME = "kill"
ROUNDS = 20
PEER = "docker kill"
PROMISE, PROMISED_MS = "the promise: a second", 1000.0
RUNS_S = 0.3
"""How long a runaway runs before it is killed: a storm has then reached its limit of processes."""
PROGRAM = Path(runaway_program.__file__)


def packages() -> list[bytes]:
    """What the host's shelf must hold."""
    return []


async def measure(ground: Ground) -> list[Figure]:
    """Takes turns: ours, then the peer, then the other way round. Blocks: no host runs meanwhile."""
    ours: dict[str, list[float]] = {kind: [] for kind in runaway_program.KINDS}
    peers: dict[str, list[float]] = {kind: [] for kind in runaway_program.KINDS}
    for number in ground.rounds(NAME, ROUNDS):
        for kind in runaway_program.KINDS:
            turns = ((ours, _by_cgroup), (peers, _by_engine))
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
"""Kills a container by its id, or by the process 1 that it has."""


def _by_cgroup(_ground: Ground, container: str, pid: int) -> None:
    cgroup = Cgroup.of_process(pid, container=container)
    try:
        cgroup.kill(timeout_s=PATIENCE_S)
    finally:
        cgroup.close()


def _by_engine(ground: Ground, container: str, _pid: int) -> None:
    ground.client.kill(container)


def _seconds_to_end(ground: Ground, kind: str, kill: Kill) -> float:
    """Starts a runaway, lets it run, kills it, and times that until its last process is gone."""
    with ground.calling(PROGRAM, (kind,)) as (container, listening):
        _accepted(listening, kind)
        pid = int(ground.client.inspect_container(container)["State"]["Pid"])
        process = os.pidfd_open(pid)
        try:
            time.sleep(RUNS_S)
            began = time.perf_counter()
            kill(ground, container, pid)
            _await_end(process, kind)
            return time.perf_counter() - began
        finally:
            os.close(process)


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
