"""What a network does for the relay: one body for the network in memory and the machine's own, over its loopback."""

import asyncio
import socket
import threading
from ipaddress import ip_address

import pytest

from tests.fakes.egress import MemoryNetwork
from wirthforge_host.egress import MachineNetwork
from wirthforge_sdk.errors import UnavailableError

LOOPBACK = ip_address("127.0.0.1")
ELSEWHERE = ip_address("192.0.2.1")
WAIT_S = 5.0


@pytest.fixture
async def place(unused_tcp_port_factory):
    """A port of the loopback where a server is, and one where none is."""
    taken = asyncio.Queue()

    async def take(reader, writer):
        await taken.put((reader, writer))

    server = await asyncio.start_server(take, str(LOOPBACK), 0)
    yield server.sockets[0].getsockname()[1], unused_tcp_port_factory(), taken
    while not taken.empty():
        taken.get_nowait()[1].close()
    server.close()
    await server.wait_closed()


@pytest.fixture(params=["memory", "machine"])
def network(request, place):
    if request.param == "machine":
        return MachineNetwork()
    network = MemoryNetwork()
    network.answers["localhost"] = [[str(LOOPBACK)]]
    network.own.add(str(LOOPBACK))
    network.servers[str(LOOPBACK), place[0]] = place[2]
    return network


async def test_a_name_leads_to_its_addresses_and_room_is_held_only_meanwhile(network):
    room = asyncio.Semaphore(1)
    async with asyncio.timeout(WAIT_S):
        assert LOOPBACK in await network.resolve("localhost", room)
        with pytest.raises(UnavailableError):
            await network.resolve("no-such-name.invalid", room)
    assert not room.locked()


async def test_nobody_waits_for_a_lookup_that_he_gave_up_and_its_room_comes_back(network):
    room = asyncio.Semaphore(1)
    asking = asyncio.create_task(network.resolve("localhost", room))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    async with asyncio.timeout(WAIT_S):
        async with room:
            pass


@pytest.mark.parametrize("broken", [(threading.Thread, "start"), (socket, "getaddrinfo")])
async def test_a_lookup_that_breaks_gives_its_room_back(monkeypatch, broken):
    def breaks(*_arguments, **_named):
        raise RuntimeError("there are too many threads")

    room = asyncio.Semaphore(1)
    with monkeypatch.context() as patched:
        patched.setattr(*broken, breaks)
        asking = asyncio.create_task(MachineNetwork().resolve("localhost", room))
        await asyncio.wait([asking], timeout=WAIT_S)
    with pytest.raises(UnavailableError, match="too many threads"):
        asking.result()
    assert not room.locked()


async def test_an_own_address_is_told_from_anothers(network):
    assert network.is_own(LOOPBACK)
    assert not network.is_own(ELSEWHERE)


async def test_a_connection_is_to_the_address_and_does_not_block(network, place):
    port, _, taken = place
    with await network.connect(LOOPBACK, port) as stream:
        assert stream.gettimeout() == 0
        async with asyncio.timeout(WAIT_S):
            _, writer = await taken.get()
            writer.write(b"hello")
            assert await asyncio.get_running_loop().sock_recv(stream, 5) == b"hello"
            writer.close()


async def test_where_nobody_listens_nobody_is_connected(network, place):
    with pytest.raises(UnavailableError):
        await network.connect(LOOPBACK, place[1])


async def test_the_machines_network_keeps_little_for_a_connection(place):
    with await MachineNetwork().connect(LOOPBACK, place[0]) as stream:
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 1024 * 1024
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        async with asyncio.timeout(WAIT_S):
            (await place[2].get())[1].close()
