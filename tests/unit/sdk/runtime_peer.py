"""The other end of a plugin's socket, for tests that look at single lines."""

import json
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from wirthforge_sdk.contracts.bridge import META_CAPABILITIES, META_PROTOCOL, META_TIMEOUT_MS, MODERN
from wirthforge_sdk.contracts.framing import LineTooLongError
from wirthforge_sdk.runtime.wire import Connection

PATIENCE_S = 5.0
RUNTIME = [sys.executable, "-I", "-B", "-m", "wirthforge_sdk.runtime"]
ENVELOPE = {META_PROTOCOL: MODERN, META_CAPABILITIES: {}}


class Peer:
    def __init__(self, stream, patience_s=PATIENCE_S):
        self._stream = stream
        self._stream.settimeout(patience_s)
        self._file = stream.makefile("rb")

    def send(self, *messages):
        lines = (each if isinstance(each, bytes) else json.dumps(each).encode() for each in messages)
        self._stream.sendall(b"".join(line + b"\n" for line in lines))

    def receive(self):
        """The next line, None at the end."""
        line = self._file.readline()
        return json.loads(line) if line else None

    def request(self, method, number=1, meta=ENVELOPE, **params):
        self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": {**params, "_meta": meta}})

    def ask(self, method, number=1, meta=ENVELOPE, **params):
        self.request(method, number, meta, **params)
        return self.receive()

    def call(self, function, number=1, timeout_ms=None, **arguments):
        meta = ENVELOPE if timeout_ms is None else {**ENVELOPE, META_TIMEOUT_MS: timeout_ms}
        return self.ask("tools/call", number, meta, name=function, arguments=arguments)

    def start(self, function, number=1, **arguments):
        self.request("tools/call", number, name=function, arguments=arguments)

    def cancel(self, number):
        self.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}})

    def hang_up(self):
        self._file.close()
        self._stream.close()


@contextmanager
def serving(plugin):
    """Runs a plugin's runtime in a thread; gives the peer, and checks that the runtime ends with it."""
    ours, theirs = socket.socketpair()

    def serve():
        with theirs:
            try:
                plugin.serve([Connection(theirs)])
            except LineTooLongError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    peer = Peer(ours)
    try:
        yield peer
    finally:
        peer.hang_up()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def project(directory, code, runtime='type = "python"\nentry = "code_under_test:plugin"'):
    (directory / "src").mkdir()
    (directory / "src" / "code_under_test.py").write_text(code)
    (directory / "plugin.toml").write_text(f'name = "a/b"\nversion = "1.2.3"\n[runtime]\n{runtime}\n')
    return directory


class Hosts:
    """One host after another on one path, each as a host that starts takes it: in one step."""

    def __init__(self, path):
        self._path = path
        self._peer = None

    def listen(self):
        made = self._path.with_name("made.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(made))
        listener.listen(1)
        listener.settimeout(PATIENCE_S)
        made.rename(self._path)
        return listener

    def next(self, listener=None):
        """The next host, connected; who was there before it is gone."""
        self.die()
        with listener or self.listen() as listening:
            self._peer = Peer(listening.accept()[0])
        return self._peer

    def die(self):
        """The host ends as by a kill: its socket lies there and refuses."""
        if self._peer is not None:
            self._peer.hang_up()
            self._peer = None


@contextmanager
def hosts_for(tree):
    """Starts the runtime for a tree; gives its process and its hosts."""
    path = tree / "bridge.sock"
    hosts = Hosts(path)
    listener = hosts.listen()
    process = subprocess.Popen([*RUNTIME, "--socket", str(path), "--tree", str(tree)])
    try:
        yield process, hosts, hosts.next(listener)
    finally:
        hosts.die()
        path.unlink(missing_ok=True)
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()


@contextmanager
def process_for(tree, patience_s=PATIENCE_S):
    """Starts the runtime for a tree as a sandbox does; it must end when its host has removed the socket."""
    path = str(tree / "bridge.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(patience_s)
        process = subprocess.Popen([*RUNTIME, "--socket", path, "--tree", str(tree)])
        try:
            stream, _ = listener.accept()
            listener.close()  # else it would connect again, to nobody
            with stream:
                yield process, stream
            Path(path).unlink()
            process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()
