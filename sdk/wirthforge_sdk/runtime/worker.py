"""The process that runs a plugin: it reads in ``plugin.toml`` what to run, runs it, and says why it ended."""

from __future__ import annotations

import gc
import socket
import sys
import tomllib
from importlib import import_module
from typing import Any

from wirthforge_sdk.contracts.bridge import Exit
from wirthforge_sdk.runtime.host import Host, Line, Log
from wirthforge_sdk.runtime.output import Printed
from wirthforge_sdk.runtime.plugin import Plugin
from wirthforge_sdk.runtime.session import About
from wirthforge_sdk.runtime.wire import Connection, LineTooLongError


class Project:
    """What a plugin tree says about itself; the host verified it, so only what is used is read.

    Raises:
        OSError: ``plugin.toml`` cannot be read.
        ValueError: It is not TOML, or does not say what to run.
    """

    def __init__(self, tree: str) -> None:
        with open(f"{tree}/plugin.toml", "rb") as file:  # noqa: PTH123 - pathlib is 5 ms of every cold start
            table = tomllib.load(file)
        try:
            runtime: dict[str, Any] = table["runtime"]
            self.type = str(runtime["type"])
            self.entry = str(runtime["entry"])
            self.arguments = [str(argument) for argument in runtime.get("arguments", [])]
            self.about = About(str(table["name"]), str(table["version"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"plugin.toml does not say what to run: {error} is missing or wrong") from error
        self.path = [f"{tree}/src", f"{tree}/vendor"]

    def load(self) -> Plugin:
        """Imports the entry of a Python plugin.

        Raises:
            Exception: Whatever its code raises; TypeError if the entry is no Plugin.
        """
        sys.path[:0] = self.path
        module, _, attribute = self.entry.partition(":")
        plugin = getattr(import_module(module), attribute)
        if not isinstance(plugin, Plugin):
            raise TypeError(f"{self.entry} is of type {type(plugin).__name__}: let it be a Plugin")
        return plugin


def run(socket_path: str, tree: str) -> int:
    """Runs the plugin in ``tree`` until the host hangs up; returns the exit code (see ``bridge.Exit``)."""
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
