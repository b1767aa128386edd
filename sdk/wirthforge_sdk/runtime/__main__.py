"""``python -I -B -m wirthforge_sdk.runtime``: process 1 of a sandbox, or ``--describe`` of a plugin tree.

Process 1 throws away what is written to the inherited standard streams (an engine reads them outside the
sandbox's CPU limit, so a flood there would be free of charge), closes itself to other processes, loads what workers
need, and keeps one (``keeping``), and before it, with ``--egress``, the process that joins its connections to the
host's relay. With ``--wait begin`` the first worker loads what plugins need, connects, and reads nothing of the tree
before the host's word (``bridge.BEGIN``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from functools import partial

from wirthforge_sdk.contracts.bridge import CODE_DIRECTORY, EGRESS_PATH, EGRESS_PROXY, SOCKET_PATH
from wirthforge_sdk.runtime.keeping import Keeper
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
    socket_path, destinations = options.get("--socket", SOCKET_PATH), options.get("--egress")
    tree, ports = options.get("--tree", CODE_DIRECTORY), ports_of(destinations)

    def start(before: int | None) -> None:
        # Whoever comes after another is nobody's any more: the host says the word once.
        work(socket_path, tree, ports, waits="--wait" in options and before is None, before=before)

    # Here and not in the worker: one that takes another's place has it already.
    import wirthforge_sdk.runtime.worker  # noqa: F401, PLC0415 - not for --describe

    beside = partial(open_egress, destinations, socket_path)
    return Keeper(beside, start, is_sandboxed="--socket" not in options).run()


def silence() -> None:
    """Joins the three standard streams to the null device, for this process and all it starts."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


def open_egress(destinations: str | None, socket_path: str) -> int | None:
    """Starts what reaches the destinations, where there are any; returns its process id.

    Raises:
        OSError: It cannot listen.
    """
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


def work(socket_path: str, tree: str, ports: Collection[int], *, waits: bool, before: int | None) -> None:
    """Runs the plugin and ends the process, whatever threads of the plugin are still at."""
    code = 1
    try:
        from wirthforge_sdk.runtime.worker import run  # noqa: PLC0415 - it is loaded

        code = run(socket_path, tree, ports, waits=waits, before=before)
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
