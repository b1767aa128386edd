"""The process that runs a plugin: it reads in ``plugin.toml`` what to run, runs it, and says why it ended."""

from __future__ import annotations

import gc
import sys
from collections.abc import Collection, Iterator
from importlib import import_module
from itertools import chain

from wirthforge_sdk.contracts.bridge import BEGIN, COMPILE, RECONNECT_S, REPAIRED, Exit
from wirthforge_sdk.contracts.framing import LineTooLongError
from wirthforge_sdk.runtime.connecting import NoHostError, connections
from wirthforge_sdk.runtime.host import Host, Line, Log
from wirthforge_sdk.runtime.lockdown import lock
from wirthforge_sdk.runtime.output import Printed
from wirthforge_sdk.runtime.project import Project
from wirthforge_sdk.runtime.wire import Connection, request

LOADED_AHEAD = (
    *(
        "asyncio",
        "base64",
        "collections.abc",
        "contextlib",
        "csv",
        "dataclasses",
        "datetime",
        "decimal",
        "email.message",
    ),
    *(
        "enum",
        "hashlib",
        "importlib.resources",
        "inspect",
        "json",
        "logging",
        "pathlib",
        "random",
        "re",
        "shutil",
    ),
    *(
        "statistics",
        "string",
        "tempfile",
        "textwrap",
        "traceback",
        "typing",
        "unicodedata",
        "urllib.parse",
        "uuid",
    ),
    "zoneinfo",
)
"""What plugins use most: who waits for one has the time. All of the standard library, whose names no release that is
started so may have (the host sees to it: a module of its own would not be found any more)."""

MAX_WORD_BYTES = 64
"""Of what the host says first."""


def run(
    socket_path: str,
    tree: str,
    ports: Collection[int] = (),
    *,
    waits: bool = False,
    before: int | None = None,
) -> int:
    """Runs the plugin in ``tree`` until the host ends the instance; returns the exit code (see ``bridge.Exit``).

    It may connect to these TCP ``ports``, where the runtime leads to what the release asked for. When it ``waits``,
    nothing is read of the tree before the host says that it is there. Where it takes the place of a worker that
    crashed, ``before`` says how: its exit code, or -n for signal n. The host is told, and may have gone meanwhile.
    """
    if waits:
        for name in LOADED_AHEAD:
            import_module(name)
        gc.freeze()
    line = Line()
    ways = _heard(line, connections(socket_path, first_s=0 if before is None else RECONNECT_S))
    try:
        # Before anything of the plugin is read: whatever is wrong with it can then be told.
        first = next(ways)
        if before is not None:
            first.send(request(REPAIRED, {"code": before}))
        word = first.word(MAX_WORD_BYTES) if waits else BEGIN
        if word == COMPILE:
            return _compile(first, Log(line), tree)
        if word != BEGIN:
            return Exit.NO_HOST
        return _run(chain([first], ways), Log(line), tree, ports)
    except NoHostError:
        return Exit.NO_HOST
    except LineTooLongError:
        return Exit.PROTOCOL_BROKEN


def _heard(line: Line, ways: Iterator[Connection]) -> Iterator[Connection]:
    """The same connections; what is said on ``line`` goes by the one of the moment."""
    for connection in ways:
        line.host = Host(connection)
        yield connection
        line.host = None


def _compile(connection: Connection, log: Log, tree: str) -> int:
    from wirthforge_sdk.runtime.compiling import compile_tree  # noqa: PLC0415 - no plugin ever needs it

    try:
        lock(tree)
    except OSError as error:
        log.write("error", f"the runtime cannot lock itself down: {error}", {})
        return Exit.NOT_LOCKED_DOWN
    compile_tree(tree, connection)
    return 0


def _run(ways: Iterator[Connection], log: Log, tree: str, ports: Collection[int]) -> int:
    try:
        project = Project(tree)
    except (OSError, ValueError) as error:
        log.write("error", f"plugin.toml: {error}", {})
        return Exit.MANIFEST_BROKEN
    try:
        lacking = lock(tree, ports)
    except OSError as error:
        log.write("error", f"the runtime cannot lock itself down: {error}", {})
        return Exit.NOT_LOCKED_DOWN
    if lacking:
        log.write("warning", "the runtime cannot lock down everything", {"lacking": lacking})
    if project.type == "mcp":
        from wirthforge_sdk.runtime.joiner import join  # noqa: PLC0415 - only one of the two is ever needed

        return join(ways, log, project)
    return serve(ways, log, project)


def serve(ways: Iterator[Connection], log: Log, project: Project) -> int:
    """Runs a Python plugin in this process."""
    sys.stdout = sys.stderr = Printed(log)
    try:
        plugin = project.load()
    except BaseException as error:  # noqa: BLE001 - the author's module may raise anything, SystemExit included
        import traceback  # noqa: PLC0415 - 9 ms that a plugin which loads never pays

        log.write("error", "".join(traceback.format_exception(error)), {"entry": project.entry})
        return Exit.CODE_FAILED
    gc.freeze()  # what is loaded now stays: collections need not look at it, and its pages stay shared
    plugin.serve(ways, project.about)
    return 0
