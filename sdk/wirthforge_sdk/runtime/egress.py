"""Lets any client in the sandbox reach what was granted: a process that joins its connections to the host's relay.

It listens where ``/etc/hosts`` sends the names the release asked for, and as an HTTP proxy for clients that honour one.
It decides nothing: each connection becomes one to the relay, which does. One thread; connections and buffers are
bounded, and what one side does not take is not read from the other.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import selectors
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from wirthforge_sdk.contracts.bridge import EGRESS_PROXY, MAX_EGRESS_HEAD_BYTES, egress_addresses

MAX_CONNECTIONS = 128
MAX_HEAD_BYTES = 16 * 1024
"""Of a request to the proxy."""
BUFFER_BYTES = 64 * 1024
"""For one direction of a connection."""
OWN_DESCRIPTORS = 8
"""The standard streams, the selector, and what is open for a moment."""
BACKLOG = 64

_END = b"\r\n\r\n"
_MADE = b"HTTP/1.1 200"
_REQUEST = re.compile(rb"([!-~]+) ([!-~]+) (HTTP/1\.[01])")
_ABSOLUTE = re.compile(rb"http://([^/?#@]+)((?:[/?][^#]*)?)", re.IGNORECASE)
_ENDS_HERE = (b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive", b"te", b"upgrade")
"""Header fields for a proxy itself (RFC 9110 section 7.6.1)."""


class RefusedError(Exception):
    """The client gets no connection; ``args[0]`` is the HTTP answer, which only clients of the proxy are told."""


def start(destinations: Sequence[str], relay: str) -> int:
    """Forks the process and returns its id; its sockets listen when this returns.

    Args:
        destinations: ``host:port``, as the release asks for.
        relay: Path of the host's socket.

    Raises:
        OSError: It cannot listen, or could take no connection.
    """
    listeners = listen(destinations)
    room = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(listeners) - OWN_DESCRIPTORS) // 2
    if room < 1:
        raise OSError(errno.EMFILE, "too few open files for so many destinations")
    process = os.fork()
    if process == 0:
        try:
            # What process 1 does when it is to stop is not for this one to do.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            Joiner(listeners, relay, min(room, MAX_CONNECTIONS)).run()
        finally:
            os._exit(1)
    for listener in listeners:
        listener.close()
    return process


def listen(destinations: Sequence[str]) -> dict[socket.socket, bytes]:
    """A socket for each destination, with what it leads to; the one that leads nowhere yet is the proxy."""
    addresses = egress_addresses(destinations)
    # Whatever /etc/hosts adds, every system finds this name here.
    addresses |= {"localhost": "127.0.0.1"}
    places = {EGRESS_PROXY: b""}
    for destination in destinations:
        host, _, port = destination.rpartition(":")
        places.setdefault((addresses[host], int(port)), destination.encode())
    return {socket.create_server(place, backlog=BACKLOG): target for place, target in places.items()}


class Flow:
    """Bytes from one socket to another, ``BUFFER_BYTES`` of them at most."""

    __slots__ = ("buffer", "closed", "ended", "gate", "held", "sink", "source")

    def __init__(self, source: socket.socket) -> None:
        self.source = source
        self.sink: socket.socket | None = None
        self.buffer = bytearray()
        self.gate: Callable[[bytearray], bool] | None = None
        """Looks at what came first, may change it, and says whether the rest may pass."""
        self.held = False
        """Nothing is read yet."""
        self.ended = False
        """The source said all …"""
        self.closed = False
        """… and the sink was told."""

    @property
    def reads(self) -> bool:
        """Whether the source is to be read now."""
        return not (self.held or self.ended) and len(self.buffer) < BUFFER_BYTES

    @property
    def writes(self) -> bool:
        """Whether the sink has something to take now."""
        return self.gate is None and (bool(self.buffer) or (self.ended and not self.closed))

    def read(self) -> None:
        """Takes what is there."""
        chunk = self.source.recv(BUFFER_BYTES - len(self.buffer))
        self.buffer += chunk
        self.ended = not chunk
        if self.gate is not None:
            if self.ended:
                raise ConnectionAbortedError
            if self.gate(self.buffer):
                self.gate = None

    def write(self) -> None:
        """Gives as much as is taken."""
        assert self.sink is not None  # noqa: S101 (what opens the gate sets it)
        if self.buffer:
            del self.buffer[: self.sink.send(self.buffer)]
        if self.ended and not self.buffer:
            self.sink.shutdown(socket.SHUT_WR)
            self.closed = True

    def give_up(self) -> None:
        """Nothing more is to pass."""
        self.buffer.clear()
        self.ended = self.closed = True


class Joined:
    """A client's connection, and the relay's once it is known where to."""

    def __init__(self, client: socket.socket, relay_path: str) -> None:
        self.sockets = [client]
        self.up = Flow(client)
        self.down: Flow | None = None
        self._relay_path = relay_path
        self._tells = False
        self._request = b""

    def begin(self, target: bytes) -> None:
        """Asks the relay for ``target``; for none, the client is a proxy's and will say."""
        if target:
            self._ask(target, b"")
        else:
            self._tells = True
            self.up.gate = self._read_request

    @property
    def finished(self) -> bool:
        """Both sides said all and were told so."""
        return self.up.closed and self.down is not None and self.down.closed

    def wanted(self, end: socket.socket) -> int:
        """What to wait for on one of its sockets."""
        events = 0
        for flow in filter(None, (self.up, self.down)):
            events |= selectors.EVENT_READ if flow.source is end and flow.reads else 0
            events |= selectors.EVENT_WRITE if flow.sink is end and flow.writes else 0
        return events

    def go_on(self, end: socket.socket, events: int) -> None:
        """Does what one of its sockets is ready for."""
        for flow in filter(None, (self.up, self.down)):
            if events & selectors.EVENT_READ and flow.source is end and flow.reads:
                flow.read()
                if flow is self.down and flow.ended and _is_closed(end):
                    # Cut, not only done with sending: what the client says now leads nowhere.
                    self.up.give_up()
            if events & selectors.EVENT_WRITE and flow.sink is end and flow.writes:
                flow.write()

    def refuse(self, answer: bytes) -> None:
        """Tells the client why, if it can read that."""
        if self._tells:
            with suppress(OSError):
                self.sockets[0].send(
                    b"HTTP/1.1 " + answer + b"\r\nContent-Length: 0\r\nConnection: close" + _END
                )

    def close(self) -> None:
        """Closes both ends."""
        for end in self.sockets:
            end.close()

    def _read_request(self, buffer: bytearray) -> bool:
        """The gate before a proxy's client: its request says where to."""
        head, end, body = buffer.partition(_END)
        if not end and len(buffer) < MAX_HEAD_BYTES:
            return False
        request, *fields = bytes(head).split(b"\r\n")
        parts = _REQUEST.fullmatch(request)
        if not end or len(head) > MAX_HEAD_BYTES or parts is None:
            raise RefusedError(b"400 Bad Request")
        buffer.clear()
        method, target, version = parts.groups()
        if method == b"CONNECT":
            # The relay speaks as a proxy does: from here on the client talks to it.
            self._join(target)
            buffer += body
            return True
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise RefusedError(b"400 Bad Request")
        authority, path = absolute.groups()
        line = b"%s %s%s %s" % (method, b"" if path.startswith(b"/") else b"/", path, version)
        self._ask(
            authority if authority.rpartition(b":")[2].isdigit() else authority + b":80",
            b"\r\n".join([line, b"Host: " + authority, *_passed_on(fields), b"Connection: close"])
            + _END
            + body,
        )
        return True

    def _ask(self, target: bytes, request: bytes) -> None:
        """Joins the relay, but holds the client and its ``request`` back until the relay has connected."""
        down = self._join(target)
        self._request = request
        self.up.held = True
        down.gate = self._read_answer

    def _read_answer(self, buffer: bytearray) -> bool:
        """The gate before the relay: only a refusal is for the client, and only if it can read one."""
        at = buffer.find(_END, 0, MAX_EGRESS_HEAD_BYTES)
        if at < 0:
            if len(buffer) >= MAX_EGRESS_HEAD_BYTES:
                raise ConnectionAbortedError
            return False
        if buffer.startswith(_MADE):
            del buffer[: at + len(_END)]
            self.up.buffer += self._request
        elif not self._tells:
            raise ConnectionAbortedError
        self._request = b""
        self.up.held = False
        return True

    def _join(self, target: bytes) -> Flow:
        relay = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sockets.append(relay)
        relay.settimeout(0)
        try:
            relay.connect(self._relay_path)
        except OSError:
            raise RefusedError(b"503 Service Unavailable") from None
        self.down = Flow(relay)
        self.down.sink, self.up.sink = self.up.source, relay
        self.up.buffer += b"CONNECT %s HTTP/1.1" % target + _END
        return self.down


def _is_closed(relay: socket.socket) -> bool:
    """Whether the other side will read no more."""
    try:
        relay.send(b"")
    except OSError:
        return True
    return False


def _passed_on(fields: list[bytes]) -> list[bytes]:
    """The header fields that are for the server."""
    return [
        field for field in fields if field.partition(b":")[0].strip().lower() not in (*_ENDS_HERE, b"host")
    ]


class Joiner:
    """Joins clients to the relay, as many at a time as there is room for."""

    def __init__(self, listeners: dict[socket.socket, bytes], relay_path: str, room: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._listeners = listeners
        self._relay_path = relay_path
        self._room = room
        self._listening = False
        self._waiting: dict[socket.socket, Joined] = {}
        """By each of its sockets that something is awaited on."""
        self._joined: set[Joined] = set()

    def run(self) -> None:
        """Goes on until the process is ended."""
        for listener in self._listeners:
            listener.settimeout(0)
        while True:
            self._listen_or_not()
            for key, events in self._selector.select():
                end = key.fileobj
                assert isinstance(end, socket.socket)  # noqa: S101 (nothing else is registered)
                if end in self._listeners:
                    self._accept(end)
                elif end in self._waiting:  # else an event before this one closed it
                    joined = self._waiting[end]
                    self._attempt(joined, partial(joined.go_on, end, events))

    def _listen_or_not(self) -> None:
        """Without room nobody is accepted: who comes then waits."""
        wanted = len(self._joined) < self._room
        if wanted is not self._listening:
            for listener in self._listeners:
                if wanted:
                    self._selector.register(listener, selectors.EVENT_READ)
                else:
                    self._selector.unregister(listener)
            self._listening = wanted

    def _accept(self, listener: socket.socket) -> None:
        if len(self._joined) >= self._room:
            return
        try:
            client, _ = listener.accept()
        except OSError:  # it went away before its turn
            return
        client.settimeout(0)
        joined = Joined(client, self._relay_path)
        self._joined.add(joined)
        self._attempt(joined, partial(joined.begin, self._listeners[listener]))

    def _attempt(self, joined: Joined, step: Callable[[], None]) -> None:
        """One step of a connection, which it may be the end of."""
        try:
            step()
        except RefusedError as error:
            joined.refuse(error.args[0])
            self._close(joined)
        except OSError:
            self._close(joined)
        else:
            if joined.finished:
                self._close(joined)
            else:
                self._await(joined)

    def _await(self, joined: Joined) -> None:
        for end in joined.sockets:
            events = joined.wanted(end)
            if end not in self._waiting:
                if events:
                    self._selector.register(end, events)
                    self._waiting[end] = joined
            elif events:
                self._selector.modify(end, events)
            else:
                self._forget(end)

    def _forget(self, end: socket.socket) -> None:
        # Registered without interest, a socket whose other side is gone would still wake us for ever.
        self._selector.unregister(end)
        del self._waiting[end]

    def _close(self, joined: Joined) -> None:
        for end in joined.sockets:
            if end in self._waiting:
                self._forget(end)
        joined.close()
        self._joined.discard(joined)
