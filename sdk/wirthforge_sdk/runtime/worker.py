"""The process that runs a plugin: it reads in ``plugin.toml`` what to run, runs it, and says why it ended."""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Collection

from wirthforge_sdk.contracts.bridge import Exit
from wirthforge_sdk.runtime.host import Host, Line, Log
from wirthforge_sdk.runtime.lockdown import lock
from wirthforge_sdk.runtime.output import Printed
from wirthforge_sdk.runtime.project import Project
from wirthforge_sdk.runtime.wire import Connection, LineTooLongError


def run(socket_path: str, tree: str, ports: Collection[int] = ()) -> int:
    """Runs the plugin in ``tree`` until the host hangs up; returns the exit code (see ``bridge.Exit``).

    It may connect to these TCP ``ports``, where the runtime leads to what the release asked for.
    """
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.connect(socket_path)
    except OSError:
        return Exit.NO_HOST
    with stream:
        connection = Connection(stream)
        log = Log(Line(Host(connection)))
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

            return join(connection, log, project)
        return serve(connection, log, project)


def serve(connection: Connection, log: Log, project: Project) -> int:
    """Runs a Python plugin in this process."""
    sys.stdout = sys.stderr = Printed(log)
    try:
        plugin = project.load()
    except BaseException as error:  # noqa: BLE001 - the author's module may raise anything, SystemExit included
        import traceback  # noqa: PLC0415 - 9 ms that a plugin which loads never pays

        log.write("error", "".join(traceback.format_exception(error)), {"entry": project.entry})
        return Exit.CODE_FAILED
    gc.freeze()  # what is loaded now stays: collections need not look at it, and its pages stay shared
    try:
        plugin.serve(connection, project.about)
    except LineTooLongError:
        return Exit.PROTOCOL_BROKEN
    return 0
