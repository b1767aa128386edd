"""Where a plugin under test runs, and how a connection to it is had."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Protocol

from wirthforge_sdk.errors import UnavailableError
from wirthforge_sdk.runtime import Plugin
from wirthforge_sdk.runtime.wire import Connection


class Place(Protocol):
    """Something that starts a plugin once and ends it."""

    def open(self, patience_s: float) -> Connection:
        """Starts the plugin and returns the host's end of its socket."""

    def close(self, patience_s: float) -> None:
        """Hangs up and waits for the plugin's end, at most ``patience_s``."""


class InThread:
    """A Plugin object, in a thread of this process: a debugger's break points work."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin
        self._streams: tuple[socket.socket, ...] = ()
        self._thread: threading.Thread | None = None

    def open(self, patience_s: float) -> Connection:  # noqa: ARG002 - there is nothing to wait for
        """Starts the thread."""
        ours, theirs = self._streams = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._plugin.serve, args=([Connection(theirs)],), daemon=True)
        self._thread.start()
        return Connection(ours)

    def close(self, patience_s: float) -> None:
        """Hangs up; a function that does not return keeps its worker thread, not this."""
        for stream in self._streams[:1]:
            stream.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(patience_s)
        for stream in self._streams:
            stream.close()


class InProcess:
    """A project's directory, in a process started as the sandbox starts it."""

    def __init__(self, project: Path) -> None:
        self._project = project.resolve()
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: socket.socket | None = None

    def open(self, patience_s: float) -> Connection:
        """Starts the process and waits for it to connect.

        Raises:
            UnavailableError: It did not, in time.
        """
        with (
            tempfile.TemporaryDirectory(prefix="wirthforge-") as directory,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
        ):
            path = f"{directory}/bridge.sock"
            listener.bind(path)
            listener.listen(1)
            listener.settimeout(patience_s)
            command = [sys.executable, "-I", "-B", "-m", "wirthforge_sdk.runtime"]
            self._process = subprocess.Popen([*command, "--socket", path, "--tree", str(self._project)])
            try:
                self._stream, _ = listener.accept()
            except TimeoutError as error:
                self._process.kill()
                raise UnavailableError(f"the plugin did not connect within {patience_s:g} s") from error
        return Connection(self._stream)

    def close(self, patience_s: float) -> None:
        """Hangs up, and kills what does not end by itself."""
        if self._stream is not None:
            self._stream.shutdown(socket.SHUT_RDWR)
        if self._process is not None:
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._stream is not None:
            self._stream.close()
