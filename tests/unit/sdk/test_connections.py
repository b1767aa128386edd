"""What a server bears of those who only connect."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

from wirthforge_sdk.serving import connections
from wirthforge_sdk.serving.connections import HEAD_S, BoundedProtocol
from wirthforge_sdk.serving.process import server_config

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ANSWER = b"HTTP/1.1 204"


async def application(scope, receive, send):
    await asyncio.sleep(0.2 if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@asynccontextmanager
async def served(path):
    """Connects to a server on a socket of the file system."""
    config = uvicorn.Config(application, http=BoundedProtocol, ws="none", lifespan="off", log_config=None)
    await asyncio.to_thread(config.load)
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: BoundedProtocol(config, state, {}), path)
    opened = []

    async def connect():
        reader, writer = await asyncio.open_unix_connection(path)
        opened.append(writer)
        return reader, writer

    try:
        yield connect
    finally:
        for writer in opened:
            writer.close()
        server.close()
        while state.connections:  # noqa: ASYNC110 (the protocol tells nobody)
            await asyncio.sleep(0.01)


async def answered(connection, request=REQUEST):
    reader, writer = connection
    writer.write(request)
    return (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).startswith(ANSWER)


async def is_closed(connection, within=5):
    try:
        return await asyncio.wait_for(connection[0].read(1), within) == b""
    except ConnectionError:
        return True


async def test_a_connection_beyond_the_bound_is_closed_at_once_and_the_others_are_served(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    async with served(tmp_path / "s") as connect:
        first, second = await connect(), await connect()
        assert await answered(first)
        assert await is_closed(await connect())
        assert await answered(second)
        first[1].close()
        await first[1].wait_closed()
        await asyncio.sleep(0.05)
        assert await answered(await connect())


@pytest.mark.parametrize("start", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\r\n"], ids=ascii)
async def test_a_connection_that_sends_no_whole_head_is_closed(tmp_path, monkeypatch, start):
    monkeypatch.setattr(connections, "HEAD_S", 0.1)
    async with served(tmp_path / "s") as connect:
        fresh, used = await connect(), await connect()
        fresh[1].write(start)
        assert await answered(used)
        used[1].write(start or b"\r\n")
        assert await is_closed(fresh)
        assert await is_closed(used)


async def test_an_answer_may_take_longer_than_a_head(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_S", 0.1)
    async with served(tmp_path / "s") as connect:
        connection = await connect()
        for _ in range(2):
            assert await answered(connection, REQUEST.replace(b"/ ", b"/slow ", 1))


async def test_a_connection_without_requests_stays_longer_than_clients_keep_theirs():
    pool = httpx.Limits()
    assert server_config(application).timeout_keep_alive > pool.keepalive_expiry + HEAD_S
