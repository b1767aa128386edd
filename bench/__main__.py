"""``python -m bench [NAME …] [--json] [--quick]``: measures, and says what it found on stdout.

Exit code 0: every figure was measured, whether or not it meets its target. 1: one could not be measured;
stderr says why and what to do. 2: the command line is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import docker.errors
import uvloop

from bench import (
    audit,
    balance,
    bridge,
    cold_start,
    density,
    events,
    http,
    idle,
    kill,
    monitoring,
    neighbour,
    package,
    repair,
    revocation,
    rpc,
    storage,
    stream,
    swap,
    warm,
)
from bench.figures import Figure, table
from bench.ground import BenchError, Effort, Ground, machine, prepared
from wirthforge_sdk.errors import WirthForgeError

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One module of figures."""

    packages: Callable[[], list[bytes]]
    measure: Callable[[Ground], Awaitable[list[Figure]]]


BENCHMARKS = {
    module.NAME: Benchmark(module.packages, module.measure)
    for module in (
        cold_start,
        bridge,
        rpc,
        http,
        balance,
        swap,
        events,
        storage,
        neighbour,
        monitoring,
        kill,
        package,
        audit,
        revocation,
        stream,
        warm,
        idle,
        density,
        repair,
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    wanted = _parsed(arguments)
    code, shown = 0, []
    try:
        for name in wanted.names or BENCHMARKS:
            try:
                figures = _run(BENCHMARKS[name], Effort(wanted.quick))
            except (BenchError, WirthForgeError, docker.errors.DockerException, OSError) as error:
                print(f"error: {name} could not be measured: {error}", file=sys.stderr)
                code = 1
                continue
            shown += figures
            if wanted.json:
                print("\n".join(figure.as_json() for figure in figures), flush=True)
    except KeyboardInterrupt:
        print("interrupted; nothing is left behind", file=sys.stderr)
        return INTERRUPTED
    if shown and not wanted.json:
        print(f"{table(shown)}\n\nmachine: {shown[0].machine}")
    return code


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measures, each figure beside a peer's."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all by default"
    )
    parser.add_argument("--json", action="store_true", help="one JSON line per figure")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a measurement")
    wanted = parser.parse_args(arguments)
    for name in wanted.names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark '{name}'; there are: {', '.join(BENCHMARKS)}")
    return wanted


def _run(benchmark: Benchmark, effort: Effort) -> list[Figure]:
    with prepared(benchmark.packages(), effort) as ground:
        told = machine(ground.client)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(_measured(benchmark, ground))
    return [replace(figure, machine=told) for figure in figures]


async def _measured(benchmark: Benchmark, ground: Ground) -> list[Figure]:
    return await benchmark.measure(ground)


if __name__ == "__main__":
    # Tidying up is the same whoever ends us; a shell starts what runs in its background with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    sys.exit(main())
