"""``python -I -B -m wirthforge_sdk.runtime``: process 1 of a sandbox, or ``--describe`` of a plugin tree.

Process 1 throws away what is written to the inherited standard streams (an engine reads them outside the
sandbox's CPU limit, so a flood there would be free of charge), closes itself to other processes, forks the worker
that runs the plugin (and before it, with ``--egress``, the process that joins its connections to the host's relay),
and then only reaps: orphans too, which nobody else would. With ``--wait begin`` the worker loads what plugins need,
connects, and reads nothing of the tree before the host's word (``bridge.BEGIN``).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection, Sequence
from types import FrameType

from wirthforge_sdk.contracts.bridge import CODE_DIRECTORY, EGRESS_PATH, EGRESS_PROXY, SOCKET_PATH, Exit
from wirthforge_sdk.runtime.lockdown import hide

USAGE = (
    "usage: python -m wirthforge_sdk.runtime [--socket PATH] [--tree PATH] [--egress HOST:PORT,…] [--wait begin]"
    " | --describe TREE | --describe-server TREE"
)
OPTIONS = {"--socket", "--tree", "--egress", "--wait", "--describe", "--describe-server"}
MISUSED = 64


def main(arguments: Sequence[str]) -> int:
    """Does what the arguments say; returns the exit code."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    if len(arguments) % 2 or not options.keys() <= OPTIONS or options.get("--wait", "begin") != "begin":
        sys.stderr.write(f"{USAGE}\n")
        return MISUSED
    for option in ("--describe", "--describe-server"):
        if option in options:
            from wirthforge_sdk.runtime.describe import describe  # noqa: PLC0415 - not on the way to a cold start

            return describe(options[option], as_server=option == "--describe-server")
    silence()
    hide()
    socket_path = options.get("--socket", SOCKET_PATH)
    try:
        egress = open_egress(options.get("--egress"), socket_path)
    except OSError:
        return Exit.EGRESS_FAILED
    worker = os.fork()
    if worker == 0:
        ports = ports_of(options.get("--egress"))
        work(socket_path, options.get("--tree", CODE_DIRECTORY), ports, waits="--wait" in options)
    try:
        return reap(worker)
    finally:
        if egress:
            os.kill(egress, signal.SIGKILL)


def silence() -> None:
    """Joins the three standard streams to the null device, for this process and all it starts."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


def open_egress(destinations: str | None, socket_path: str) -> int | None:
    """Starts what reaches the destinations, where there are any; returns its process id."""
    if not destinations:
        return None
    from wirthforge_sdk.runtime import egress  # noqa: PLC0415 - most plugins never pay for it

    relay = f"{socket_path.rpartition('/')[0]}/{EGRESS_PATH.rpartition('/')[2]}"
    return egress.start(destinations.split(","), relay)


def ports_of(destinations: str | None) -> frozenset[int]:
    """The TCP ports that lead to the destinations: their own, and the proxy's."""
    if not destinations:
        return frozenset()
    return frozenset({EGRESS_PROXY[1], *(int(each.rpartition(":")[2]) for each in destinations.split(","))})


def work(socket_path: str, tree: str, ports: Collection[int], *, waits: bool) -> None:
    """Runs the plugin and ends the process, whatever threads of the plugin are still at."""
    code = 1
    try:
        from wirthforge_sdk.runtime.worker import run  # noqa: PLC0415 - the reaper stays small without it

        code = run(socket_path, tree, ports, waits=waits)
    finally:
        os._exit(code)


def reap(worker: int) -> int:
    """Waits for every child until the worker ends; returns its exit code, 128 + n if signal n ended it."""

    def forward(number: int, _frame: FrameType | None) -> None:
        os.kill(worker, number)

    # The kernel gives process 1 no default action: without this a polite stop would be ignored.
    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    ended = status = 0
    while ended != worker:
        ended, status = os.wait()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
