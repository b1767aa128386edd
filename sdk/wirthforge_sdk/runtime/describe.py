"""Asks a plugin tree what it offers: a Python plugin by its types, an MCP server by its tool list."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

import msgspec

from wirthforge_sdk.contracts.bridge import LEGACY, META_CAPABILITIES, META_CLIENT, META_PROTOCOL, MODERN
from wirthforge_sdk.runtime import wire
from wirthforge_sdk.runtime.functions import Options
from wirthforge_sdk.runtime.joiner import start
from wirthforge_sdk.runtime.project import Project

LIMIT_S = 30.0
SERVER_LIMIT_S = 28.0
"""For an MCP server, so that there is time left to stop it."""
PROBE_S = 12.0
"""How long a server may leave ``server/discover`` unanswered before it is taken for a legacy one."""
MAX_TOOLS = 1000
MAX_SAID_BYTES = 1000
SERVER_ENDED_S = 1.0

_CLIENT = {"name": "wirthforge", "version": "1"}
_ENVELOPE = {META_PROTOCOL: MODERN, META_CAPABILITIES: {}, META_CLIENT: _CLIENT}


class UndescribedError(Exception):
    """The tree does not say what it offers; the message says why, in one sentence."""


def describe(tree: str, *, as_server: bool = False) -> int:
    """Prints the rows of ``functions.json`` and nothing else; returns 0, or 1 with a sentence on stderr.

    With ``as_server``, ``{protocol, functions}`` of an MCP server: also the revision it spoke.
    """
    out, errors = os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    watch = threading.Timer(LIMIT_S, _fail, (errors, f"it did not say what it offers within {LIMIT_S:g} s"))
    watch.daemon = True
    watch.start()
    try:
        protocol, rows = offered_by(os.path.realpath(tree))
    except UndescribedError as error:
        _fail(errors, str(error))
    watch.cancel()
    with open(out, "wb") as stream:  # noqa: PTH123 - a descriptor, not a path
        rows = sorted(rows, key=lambda row: str(row["name"]))
        told = {"protocol": protocol, "functions": rows} if as_server else rows
        stream.write(msgspec.json.encode(told) + b"\n")
    return 0


def offered_by(tree: str) -> tuple[str, list[dict[str, Any]]]:
    """The revision of MCP that it speaks, and the rows of ``functions.json``, in no order.

    Raises:
        UndescribedError: It cannot be imported or asked.
    """
    try:
        project = Project(tree)
    except (OSError, ValueError) as error:
        raise UndescribedError(f"plugin.toml cannot be read: {error}") from error
    return _of_server(project) if project.type == "mcp" else (MODERN, _of_code(project))


def _of_code(project: Project) -> list[dict[str, Any]]:
    try:
        plugin = project.load()
    except BaseException as error:
        raise UndescribedError(f"{project.entry} cannot be imported: {_reason(error, project)}") from error
    return [function.row() for function in plugin.functions.values()]


def _reason(error: BaseException, project: Project) -> str:
    """The exception and the last line of the author's own code that led to it."""
    import traceback  # noqa: PLC0415 - only failures need it

    places = [
        f" (src{frame.filename.removeprefix(project.path[0])}, line {frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(project.path[0])
    ]
    return f"{type(error).__name__}: {error}{places[-1] if places else ''}".replace("\n", " ")


def _of_server(project: Project) -> tuple[str, list[dict[str, Any]]]:
    child = start(project)
    server = Server(child)
    try:
        rows = [_row(tool) for tool in server.tools()]
    except UndescribedError as error:
        child.kill()
        said = server.last_words()
        raise UndescribedError(f"{error}; it said: {said}" if said else str(error)) from error
    except (msgspec.DecodeError, KeyError, TypeError, OSError) as error:
        raise UndescribedError(f"{project.entry} answers what MCP does not allow: {error!r}") from error
    finally:
        child.kill()
        child.wait()
    return server.protocol, rows


class Server:
    """An MCP server at the end of a child's pipes, asked one thing at a time."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._number = 0
        self.protocol = MODERN
        """The revision it speaks, once it was asked for its tools."""
        self._deadline = time.monotonic() + SERVER_LIMIT_S
        self._said = b""
        threading.Thread(target=self._read, daemon=True).start()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def tools(self) -> Iterator[dict[str, Any]]:
        """Every tool it lists, in the era it speaks.

        Raises:
            UndescribedError: It ends, refuses, or lists without end.
        """
        meta = {"_meta": _ENVELOPE}
        discovered = self._ask("server/discover", meta, PROBE_S)
        if MODERN not in (discovered or {}).get("supportedVersions", ()):
            meta = {}
            hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": _CLIENT}
            greeted = self._ask("initialize", hello)
            if greeted is None:
                raise UndescribedError("the server speaks neither era of MCP")
            self.protocol = str(greeted["protocolVersion"])
            self._say(wire.request("notifications/initialized", {}))
        seen = 0
        cursor: dict[str, Any] = {}
        while True:
            page = self._ask("tools/list", {**cursor, **meta})
            if page is None:
                raise UndescribedError("the server does not list its tools")
            yield from page["tools"]
            seen += len(page["tools"])
            if not page.get("nextCursor"):
                return
            if seen >= MAX_TOOLS:
                raise UndescribedError(f"the server lists over {MAX_TOOLS} tools")
            cursor = {"cursor": page["nextCursor"]}

    def last_words(self) -> str:
        """The last line of its standard error, once it has ended."""
        self._listener.join(SERVER_ENDED_S)
        lines = self._said.decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _ask(
        self, method: str, params: dict[str, Any], patience_s: float = SERVER_LIMIT_S
    ) -> dict[str, Any] | None:
        """The result, or None when it answers with an error or not in time."""
        self._number += 1
        self._say(wire.request(method, params, self._number))
        while True:
            try:
                left_s = self._deadline - time.monotonic()
                line = self._lines.get(timeout=max(0.0, min(patience_s, left_s)))
            except Empty:
                return None
            if line is None:
                raise UndescribedError(
                    f"the server ended with code {self._child.wait()} before it was asked all"
                )
            message = msgspec.json.decode(line, type=dict[str, Any])
            if message.get("id") == self._number and "method" not in message:
                return message.get("result")

    def _say(self, line: bytes) -> None:
        assert self._child.stdin is not None  # noqa: S101 - start() asks for the pipe
        self._child.stdin.write(line + b"\n")
        self._child.stdin.flush()

    def _read(self) -> None:
        assert self._child.stdout is not None  # noqa: S101 - as above
        try:
            for lines in wire.lines_of(self._child.stdout.read1):  # type: ignore[attr-defined]
                for line in lines:
                    if line.startswith(b"{"):
                        self._lines.put(line)
        except wire.LineTooLongError:
            self._child.kill()
        self._lines.put(None)

    def _listen(self) -> None:
        assert self._child.stderr is not None  # noqa: S101 - as above
        while chunk := self._child.stderr.read1(wire.CHUNK_BYTES):  # type: ignore[attr-defined]
            self._said = (self._said + chunk)[-MAX_SAID_BYTES:]


def _row(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool as a function, exactly as a host reads it; an absent hint means what MCP says it means."""
    hints = {name: hint for name, hint in (tool.get("annotations") or {}).items() if hint is not None}
    return {
        "name": tool["name"],
        "description": tool.get("description") or "",
        "input_schema": tool["inputSchema"],
        "output_schema": tool.get("outputSchema"),
        "annotations": {
            "read_only": bool(hints.get("readOnlyHint", False)),
            "destructive": bool(hints.get("destructiveHint", True)),
            "idempotent": bool(hints.get("idempotentHint", False)),
            "open_world": bool(hints.get("openWorldHint", True)),
        },
        "timeout_s": Options().timeout_s,
        "cache_s": 0.0,
        "calls_per_s": None,
    }


def _fail(errors: int, reason: str) -> NoReturn:
    """Says one sentence and ends at once: the author's threads may still run, and hold the way out."""
    os.write(errors, f"{' '.join(reason.split())}\n".encode(errors="replace"))
    os._exit(1)
