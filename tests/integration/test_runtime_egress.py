"""The runtime's side of egress as a process: plain TCP clients and HTTP clients, and a relay under a test's control."""

import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from tests.unit.sdk.runtime_peer import RUNTIME
from wirthforge_sdk.contracts.bridge import EGRESS_PROXY, Exit
from wirthforge_sdk.runtime import egress

WAIT_S = 10.0
DESTINATIONS = "api.example:7001,api.example:7002,mail.example:7001,localhost:7003"
START = """
import os, resource, sys
from wirthforge_sdk.runtime.egress import start
files = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
process = start(sys.argv[2].split(","), sys.argv[1])
print("ready", flush=True)
os.waitpid(process, 0)
"""
MADE = b"HTTP/1.1 200 Connection established\r\n\r\n"
BODY = b'{"code": "PERMISSION_DENIED", "permission": "net.connect:a:1"}'
REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)


class Relay:
    """Takes connections on a Unix socket, and what they ask for."""

    def __init__(self, path):
        self._listening = socket.create_server(str(path), family=socket.AF_UNIX, backlog=256)
        self._asked = queue.SimpleQueue()
        self.open = []
        threading.Thread(target=self._take, daemon=True).start()

    def next(self, answer=MADE):
        """The next connection, answered, with what it asked for."""
        head, stream = self._asked.get(timeout=WAIT_S)
        stream.sendall(answer)
        return head, stream

    def close(self):
        for stream in (self._listening, *self.open):
            stream.close()

    def _take(self):
        while True:
            try:
                stream, _ = self._listening.accept()
            except OSError:
                return
            stream.settimeout(WAIT_S)
            self.open.append(stream)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += stream.recv(1)
            self._asked.put((head, stream))


def process_of(directory, files=1024):
    return subprocess.Popen(
        [sys.executable, "-c", START, str(directory / "egress.sock"), DESTINATIONS, str(files)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.fixture
def relay(tmp_path):
    relay = Relay(tmp_path / "egress.sock")
    with running(process_of(tmp_path)):
        yield relay
    relay.close()


class running:  # noqa: N801 (a context manager)
    """The process while it is there."""

    def __init__(self, process):
        self._process = process

    def __enter__(self):
        assert self._process.stdout.readline() == b"ready\n"
        return self._process

    def __exit__(self, *_):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()


def connected(place):
    return socket.create_connection(place, WAIT_S)


def rest_of(stream):
    parts = []
    while chunk := stream.recv(1 << 16):
        parts.append(chunk)
    return b"".join(parts)


@pytest.mark.parametrize(
    ("place", "destination"),
    [
        (("127.77.0.1", 7001), b"api.example:7001"),
        (("127.77.0.1", 7002), b"api.example:7002"),
        (("127.77.0.3", 7001), b"mail.example:7001"),
        (("127.0.0.1", 7003), b"localhost:7003"),
    ],
)
def test_a_plain_connection_is_one_to_its_destination(relay, place, destination):
    with connected(place) as client:
        head, server = relay.next()
        assert head == b"CONNECT " + destination + b" HTTP/1.1\r\n\r\n"
        server.sendall(b"220 ready\r\n")
        assert client.recv(100) == b"220 ready\r\n"
        client.sendall(b"x" * 3_000_000)
        client.shutdown(socket.SHUT_WR)
        assert rest_of(server) == b"x" * 3_000_000
        server.sendall(b"bye")
        server.shutdown(socket.SHUT_WR)
        assert rest_of(client) == b"bye"


def test_nothing_of_the_clients_is_sent_before_the_relay_has_connected(relay):
    with connected(("127.77.0.1", 7001)) as client:
        client.sendall(b"hello")
        _, server = relay.next(b"")
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.recv(1)
        server.sendall(MADE)
        assert server.recv(5) == b"hello"


def test_a_plain_connection_that_is_refused_is_closed_and_told_nothing(relay):
    with connected(("127.77.0.1", 7001)) as client:
        relay.next(REFUSED)
        assert rest_of(client) == b""


def test_a_client_of_the_proxy_talks_to_the_relay_when_it_says_connect(relay):
    with connected(EGRESS_PROXY) as client:
        client.sendall(b"CONNECT any.example:443 HTTP/1.1\r\nProxy-Authorization: x\r\n\r\nearly")
        head, server = relay.next()
        assert head == b"CONNECT any.example:443 HTTP/1.1\r\n\r\n"
        assert server.recv(5) == b"early"
        assert client.recv(len(MADE)) == MADE


@pytest.mark.parametrize("method", ["CONNECT", "GET"])
def test_a_client_of_the_proxy_is_told_why_it_is_refused(relay, method):
    with connected(EGRESS_PROXY) as client:
        target = "a:1" if method == "CONNECT" else "http://a:1/"
        client.sendall(f"{method} {target} HTTP/1.1\r\n\r\n".encode())
        relay.next(REFUSED)[1].shutdown(socket.SHUT_RDWR)
        assert rest_of(client) == REFUSED


def test_urllib_finds_the_proxy_and_the_server_gets_a_usual_request(relay):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": "http://127.0.0.1:3128"}))

    def serve():
        head, server = relay.next()
        asked.append(head)
        while not (asked[-1].endswith(b"body")):
            asked.append(asked.pop() + server.recv(1000) if len(asked) > 1 else server.recv(1000))
        server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    asked = []
    thread = threading.Thread(target=serve)
    thread.start()
    request = urllib.request.Request(
        "http://api.example/a?b=c", data=b"body", headers={"Proxy-Connection": "x"}
    )
    with opener.open(request, timeout=WAIT_S) as answer:
        assert answer.read() == b"hi"
    thread.join(WAIT_S)
    connect, sent = asked
    assert connect == b"CONNECT api.example:80 HTTP/1.1\r\n\r\n"
    head, _, body = sent.partition(b"\r\n\r\n")
    request_line, *fields = head.split(b"\r\n")
    assert (request_line, body) == (b"POST /a?b=c HTTP/1.1", b"body")
    names = [field.partition(b":")[0].lower() for field in fields]
    assert fields.count(b"Host: api.example") == fields.count(b"Connection: close") == 1
    assert (names.count(b"host"), names.count(b"connection"), names.count(b"proxy-connection")) == (1, 1, 0)


def test_a_refusal_reaches_urllib_with_the_permission_to_ask_for(relay):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": "http://127.0.0.1:3128"}))
    threading.Thread(target=relay.next, args=(REFUSED,)).start()
    with pytest.raises(urllib.error.HTTPError) as raised:
        opener.open("http://a:1/", timeout=WAIT_S)
    assert raised.value.code == 403
    assert json.load(raised.value)["permission"] == "net.connect:a:1"
    raised.value.close()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET https://a/ HTTP/1.1\r\n\r\n",
        b"GET http://user@a/ HTTP/1.1\r\n\r\n",
        b"CONNECT a:1 b:2 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nX: " + b"x" * egress.MAX_HEAD_BYTES + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_to_a_proxy_is_refused_here(relay, request_):
    with connected(EGRESS_PROXY) as client:
        client.sendall(request_)
        assert rest_of(client).startswith(b"HTTP/1.1 400 ")
    with connected(("127.77.0.1", 7001)):
        assert relay.next()[0].startswith(b"CONNECT api.example:7001")


def test_without_a_relay_clients_are_refused_and_the_next_is_served_once_it_is_there(tmp_path):
    with running(process_of(tmp_path)):
        connection = http.client.HTTPConnection(*EGRESS_PROXY, timeout=WAIT_S)
        connection.request("GET", "http://a/")
        assert connection.getresponse().status == 503
        connection.close()
        with connected(("127.77.0.1", 7001)) as client:
            assert rest_of(client) == b""
        relay = Relay(tmp_path / "egress.sock")
        with connected(("127.77.0.1", 7001)):
            relay.next()
        relay.close()


def test_more_clients_than_there_is_room_for_wait_their_turn(tmp_path):
    relay = Relay(tmp_path / "egress.sock")
    with running(process_of(tmp_path, files=32)):
        clients = [connected(("127.77.0.1", 7001)) for _ in range(40)]
        served = 0
        for _ in clients:
            _, server = relay.next()
            server.shutdown(socket.SHUT_RDWR)
            served += 1
        assert served == 40
        for client in clients:
            client.close()
    relay.close()


def test_what_the_client_does_not_take_is_not_read_from_the_relay(relay):
    with connected(("127.77.0.1", 7001)) as client:
        _, server = relay.next()
        server.settimeout(0.3)
        sent = 0
        with suppress(TimeoutError):
            while sent < 20_000_000:
                sent += server.send(b"x" * 65536)
        assert sent < 20_000_000
        got = 0
        while got < sent:
            got += len(client.recv(1 << 20))
        assert got == sent


def test_ends_whose_other_side_is_gone_cost_no_time(tmp_path):
    """None of them may wake the process again and again."""
    relay = Relay(tmp_path / "egress.sock")
    with running(process_of(tmp_path)) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii")
        status = Path(f"/proc/{int(children)}/stat")

        def busy_s():
            fields = status.read_text(encoding="ascii").rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        for _ in range(5):
            with connected(("127.77.0.1", 7001)):
                relay.next()
        half = [connected(("127.77.0.1", 7001)) for _ in range(5)]
        for _ in half:
            relay.next()[1].shutdown(socket.SHUT_WR)
        before = busy_s()
        time.sleep(0.5)
        assert busy_s() - before < 0.1
        for client in half:
            client.close()
    relay.close()


def test_too_few_open_files_end_the_runtime_with_a_code_that_says_so(tmp_path):
    command = [*RUNTIME, "--socket", str(tmp_path / "bridge.sock"), "--tree", "/", "--egress", DESTINATIONS]
    limited = ["prlimit", "--nofile=12", *command]
    assert subprocess.run(limited, timeout=WAIT_S, check=False).returncode == Exit.EGRESS_FAILED


def test_the_process_ends_with_process_one(tmp_path):
    command = [*RUNTIME, "--socket", str(tmp_path / "bridge.sock"), "--tree", "/", "--egress", DESTINATIONS]
    assert subprocess.run(command, timeout=WAIT_S, check=False).returncode == Exit.NO_HOST
    with running(process_of(tmp_path)) as again:
        assert again.poll() is None
