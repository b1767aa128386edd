"""Egress from real containers: clients that know nothing of us, servers of this machine that an operator opened."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import PLUGIN, offered, world_on_engine
from wirthforge_sdk.contracts.host_api import State

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

CLIENT = """
import http.client
import smtplib
import socket
import urllib.error
import urllib.request
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()


def told(attempt) -> str:
    try:
        return attempt()
    except OSError as error:
        return f"{type(error).__name__} {error}"


@plugin.function
def fetch(url: str) -> str:
    "By urllib, which honours the proxy."
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"


@plugin.function
def ask(host: str, port: int) -> str:
    "By http.client, which knows no proxy."
    connection = http.client.HTTPConnection(host, port, timeout=5)
    connection.request("GET", "/there")
    return connection.getresponse().read().decode()


@plugin.function
def mail(host: str, port: int) -> str:
    "By smtplib: another protocol, in which the server speaks first."
    with smtplib.SMTP(host, port, timeout=5) as server:
        return str(server.sendmail("a@example.org", ["b@example.org"], "Subject: hi"))


@plugin.function
def echo(host: str, port: int, size: int) -> int:
    "By a bare socket, in both directions at once."
    with socket.create_connection((host, port), 5) as stream:
        stream.sendall(b"x" * size)
        stream.shutdown(socket.SHUT_WR)
        got = 0
        while chunk := stream.recv(65536):
            got += len(chunk)
    return got


@plugin.function
def probe(host: str, port: int) -> str:
    "Whether a TCP connection is there for more than a moment."
    def attempt():
        with socket.create_connection((host, port), 3) as stream:
            stream.sendall(b"hello")
            return f"answered {stream.recv(100)!r}"
    return told(attempt)


@plugin.function
def datagram(host: str, port: int) -> str:
    "Whether UDP leads anywhere."
    def attempt():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.settimeout(2)
            sender.sendto(b"question", (host, port))
            return f"answered {sender.recv(100)!r}"
    return told(attempt)


@plugin.function
def resolve(name: str) -> str:
    "What a name leads to inside."
    return told(lambda: str(sorted({place[4][0] for place in socket.getaddrinfo(name, 80)})))
"""


CLOSED = ("answered b''", "ConnectionResetError [Errno 104] Connection reset by peer")
"""What a client that knows no proxy learns of a refusal."""


async def answer_http(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    body = json.dumps({"line": head.split(b"\r\n")[0].decode()}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    writer.close()


async def answer_mail(reader, writer):
    writer.write(b"220 test\r\n")
    while line := await reader.readline():
        if line.upper().startswith(b"DATA"):
            writer.write(b"354 go on\r\n")
            await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 ok\r\n")
    writer.close()


async def answer_same(reader, writer):
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def servers():
    """The three, on ports of this machine's loopback."""
    started = [
        await asyncio.start_server(answer, "127.0.0.1", 0)
        for answer in (answer_http, answer_mail, answer_same)
    ]
    try:
        yield [server.sockets[0].getsockname()[1] for server in started]
    finally:
        for server in started:
            server.close()
            await server.wait_closed()


@asynccontextmanager
async def host_with(directory, *asked, private=()):
    """A host that runs the client, with everything granted that it asks for."""
    needs = [f"net.connect:{destination}" for destination in asked]
    policy = directory / "policy.toml"
    policy.write_text(
        f"[allow]\nprivate_destinations = {json.dumps([f'net.connect:{each}' for each in private])}\n"
    )
    package = make_package(source=CLIENT, functions=offered(CLIENT), permissions=needs)
    async with world_on_engine(directory / "h", package, policy=policy) as host:
        await host.install()
        running = await host.approve(*needs)
        assert running.state is State.RUNNING, running.cause
        yield host


async def result_of(host, function, /, **arguments):
    return (await host.call(function, **arguments)).structured["result"]


@pytest.mark.requirement("ISO-4")
async def test_unmodified_clients_reach_what_was_granted(tmp_path):
    async with servers() as (web, mail, same):
        asked = [f"localhost:{web}", f"localhost:{mail}", f"localhost:{same}"]
        async with host_with(tmp_path, *asked, private=asked) as host:
            line = {"line": "GET /there HTTP/1.1"}
            assert json.loads(await result_of(host, "fetch", url=f"http://localhost:{web}/there")) == line
            assert json.loads(await result_of(host, "ask", host="localhost", port=web)) == line
            assert await result_of(host, "mail", host="localhost", port=mail) == "{}"
            assert await result_of(host, "echo", host="localhost", port=same, size=5_000_000) == 5_000_000
            opened = await host.audited("egress.open", plugin=PLUGIN)
            assert [record.detail["destination"].rpartition(":")[2] for record in opened] == [
                str(port) for port in (web, web, mail, same)
            ]
            closed = await host.audited("egress.close", plugin=PLUGIN)
            assert {"sent": 5_000_000, "received": 5_000_000}.items() <= closed[-1].detail.items()
            assert (await host.wiring.plugins.effective(PLUGIN)).mismatches == []
        assert host.directories("bridges") == set()


@pytest.mark.requirement("ISO-4")
async def test_a_name_leads_to_the_runtime_inside_and_a_private_address_behind_it_is_refused(tmp_path):
    async with servers() as (web, *_), host_with(tmp_path, f"localhost:{web}", f"api.invalid:{web}") as host:
        assert await result_of(host, "resolve", name="api.invalid") == "['127.77.0.1']"
        refused = await result_of(host, "fetch", url=f"http://localhost:{web}/")
        assert refused.startswith("403 ")
        assert json.loads(refused.partition(" ")[2])["reason"] == "address: loopback"
        assert await result_of(host, "probe", host="localhost", port=web) in CLOSED
        nowhere = await result_of(host, "fetch", url=f"http://api.invalid:{web}/")
        assert nowhere.startswith("502 ")


@pytest.mark.requirement("ISO-4")
async def test_all_else_fails_and_what_was_refused_is_on_record_with_the_permission_to_ask_for(tmp_path):
    async with servers() as (web, *_):
        destination = f"localhost:{web}"
        async with host_with(tmp_path, destination, private=[destination]) as host:
            refused = await result_of(host, "fetch", url="http://evil.example:8080/?secret")
            assert refused.startswith("403 ")
            assert json.loads(refused.partition(" ")[2])["permission"] == "net.connect:evil.example:8080"
            (record,) = [each for each in await host.audited("egress.open") if each.outcome == "denied"]
            wanted = {"host": "evil.example", "port": 8080, "permission": "net.connect:evil.example:8080"}
            assert wanted.items() <= record.detail.items()
            for place in ("1.1.1.1", "169.254.169.254", "172.17.0.1"):
                assert "answered" not in await result_of(host, "probe", host=place, port=80)
                assert "answered" not in await result_of(host, "datagram", host=place, port=53)
            assert "answered" not in await result_of(host, "datagram", host="127.0.0.1", port=53)
            assert "gaierror" in await result_of(host, "resolve", name="secret.evil.example")


@pytest.mark.requirement("ISO-4", "PERM-4")
async def test_a_revoked_grant_stops_the_next_connection(tmp_path):
    async with servers() as (web, *_):
        destination = f"localhost:{web}"
        async with host_with(tmp_path, destination, private=[destination]) as host:
            assert "there" in await result_of(host, "ask", host="localhost", port=web)
            (rule,) = await host.wiring.permissions.in_force(PLUGIN)
            await host.wiring.permissions.revoke(rule.id, "operator:me")
            assert await result_of(host, "probe", host="localhost", port=web) in CLOSED


async def test_a_plugin_that_asks_for_nothing_cannot_make_such_a_socket(tmp_path):
    async with host_with(tmp_path) as host:
        assert "PermissionError" in await result_of(host, "probe", host="127.0.0.1", port=3128)
