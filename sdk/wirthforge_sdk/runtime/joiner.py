"""Runs an unmodified MCP stdio server and joins its standard streams to the bridge, line by line.

The server's lines go out as they are; what it prints that is no JSON object, and its stderr, become log
records. When the host is gone the server goes on, and ``handover`` joins it to the next.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import IO

from wirthforge_sdk.contracts.bridge import Exit
from wirthforge_sdk.runtime.connecting import NoHostError
from wirthforge_sdk.runtime.fetching import fetched, left_in_files
from wirthforge_sdk.runtime.handover import Handover
from wirthforge_sdk.runtime.host import Log
from wirthforge_sdk.runtime.output import Printed
from wirthforge_sdk.runtime.project import Project
from wirthforge_sdk.runtime.wire import CHUNK_BYTES, Connection, LineTooLongError, lines_of

GRACE_S = 2.0
"""How long a server may take to end after its input ended."""
HOME = "/tmp"  # noqa: S108 - the only writable directory there is
NODE = "/opt/wirthforge/node"
"""In the image for Node.js; elsewhere, as at a build, the one on the path."""


def start(
    project: Project, errors: int = subprocess.PIPE, told: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[bytes]:
    """Starts the server as :func:`command_of` says. Of our environment it has what it is ``told`` alone."""
    return subprocess.Popen(
        command_of(project),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        cwd=HOME,
        env={**project.environment, **_surroundings(project), **told},
    )


def command_of(project: Project) -> list[str]:
    """``node ENTRY``, ``python -m MODULE``, or what a console script ``MODULE:FUNCTION`` does; and the arguments."""
    if project.interpreter == "node":
        return [
            NODE if os.path.exists(NODE) else "node",  # noqa: PTH110 - pathlib is 5 ms of every cold start
            f"{project.tree}/{project.entry}",
            *project.arguments,
        ]
    module, _, function = project.entry.partition(":")
    script = (
        f"import sys; from {module} import {function} as main; sys.argv[0] = '{module}'; sys.exit(main())"
    )
    code = ["-c", script] if function else ["-m", module]
    return [sys.executable, "-P", "-B", *code, *project.arguments]


def _surroundings(project: Project) -> dict[str, str]:
    path = {"PATH": os.environ.get("PATH", os.defpath)}  # noqa: TID251 - where programs are, and nothing else of it
    ours = {"HOME": HOME, "LANG": "C.UTF-8", "TZ": "UTC"} | path
    return ours if project.interpreter == "node" else ours | {"PYTHONPATH": ":".join(project.path)}


def join(connections: Iterator[Connection], log: Log, project: Project) -> int:
    """Runs the server until it ends or the host ends the instance; returns the exit code."""
    # The host's: the ways out, where the release asks for connections, and the bound of a Node.js heap.
    given = {name: value for name, value in os.environ.items() if _is_given(name)}  # noqa: TID251
    first = fetched(connections, project.secrets)
    if first is None:
        return 0
    try:
        files = left_in_files(first.secrets)
    except OSError as error:
        log.write("error", f"a secret cannot be put into a file: {error}", {})
        return Exit.CODE_FAILED
    child = start(project, told={**files, **given})
    ways = chain([(first.connection, first.said)], ((each, each.batches()) for each in connections))
    printed = Printed(log, "warning")
    handover = Handover()
    reasons: list[Exit] = []
    threads = [
        threading.Thread(target=_feed, args=(ways, handover, child, reasons), daemon=True),
        threading.Thread(target=_answer, args=(handover, child, printed), daemon=True),
        threading.Thread(target=_listen, args=(child.stderr, printed), daemon=True),
    ]
    for thread in threads:
        thread.start()
    code = child.wait()
    for thread in threads[1:]:
        thread.join(GRACE_S)  # what it said last is still in the pipes; a grandchild may hold them open
    if reasons:
        return reasons[0]
    return code if code >= 0 else 128 - code


def _is_given(name: str) -> bool:
    return name.lower().endswith("_proxy") or name == "NODE_OPTIONS"


def _feed(
    ways: Iterator[tuple[Connection, Iterator[list[bytes]]]],
    handover: Handover,
    child: subprocess.Popen[bytes],
    reasons: list[Exit],
) -> None:
    """Hosts to server, until there is none; then the server has a moment to end by itself."""
    assert child.stdin is not None  # noqa: S101 - start() asks for all three pipes
    try:
        for connection, said in ways:
            _write(child.stdin, handover.begin(connection))
            for lines in said:
                passing, answers = handover.from_host(lines)
                _write(child.stdin, passing)
                if answers:
                    connection.send(b"\n".join(answers))
        child.stdin.close()
        child.wait(GRACE_S)
    except LineTooLongError:
        reasons.append(Exit.PROTOCOL_BROKEN)
        child.kill()
    except NoHostError:
        reasons.append(Exit.NO_HOST)
        child.kill()
    except (OSError, subprocess.TimeoutExpired):
        child.kill()


def _write(pipe: IO[bytes], lines: list[bytes]) -> None:
    if lines:
        pipe.write(b"\n".join(lines) + b"\n")
        pipe.flush()


def _answer(handover: Handover, child: subprocess.Popen[bytes], printed: Printed) -> None:
    """Server to host."""
    assert child.stdout is not None  # noqa: S101 - as above
    try:
        for lines in lines_of(child.stdout.read1):  # type: ignore[attr-defined]
            for noise in (line for line in lines if not line.startswith(b"{")):
                printed.write(noise.decode(errors="replace") + "\n")
            connection, messages = handover.from_server(line for line in lines if line.startswith(b"{"))
            if connection is not None and messages:
                connection.send(b"\n".join(messages))
    except LineTooLongError as error:
        printed.write(f"the server was stopped: {error}\n")
        child.kill()


def _listen(errors: IO[bytes] | None, printed: Printed) -> None:
    """Server's stderr to the log."""
    assert errors is not None  # noqa: S101 - as above
    while chunk := errors.read1(CHUNK_BYTES):  # type: ignore[attr-defined]
        printed.write(chunk.decode(errors="replace"))
