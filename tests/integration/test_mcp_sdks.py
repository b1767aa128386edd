"""The official SDK, of the 1.x line and of 2.x, drives the host over HTTP and over standard input and output."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes.mcp_host import (
    ECHO,
    ERASE,
    FAIL,
    HOLD,
    KEEP,
    PLUGIN,
    ROOT,
    clean_environment,
    old_sdk,
    running_tools,
)

CLIENT = ROOT / "tests" / "fakes" / "mcp_sdk_client.py"
REVISIONS = {"old": "2025-11-25", "legacy": "2025-11-25", "modern": "2026-07-28"}
BOUND_S = 60
SCOPE = "call:demo/tools"
"""What the client's token is good for: not for the other plugin that runs."""

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


@asynccontextmanager
async def sdk(**asked):
    """The SDK at work, and a way to read the next thing that it tells."""
    python = await asyncio.to_thread(old_sdk) if asked["era"] == "old" else sys.executable
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(CLIENT),
        json.dumps(asked),
        stdout=asyncio.subprocess.PIPE,
        env=clean_environment(),
        limit=2**20,
    )

    async def saw(what):
        async with asyncio.timeout(BOUND_S):
            line = await process.stdout.readline()
        told = json.loads(line or "{}")
        assert told.get("saw") == what, told
        return told

    try:
        yield saw
        assert await asyncio.wait_for(process.wait(), BOUND_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()


def command_line(served, tmp_path, secret):
    """How a client is told to start the bridge."""
    file = tmp_path / "token"
    file.write_text(secret)
    environment = {
        **clean_environment(),
        "WIRTHFORGE_CONFIG_DIR": str(tmp_path / "config"),
        "WIRTHFORGE_HOST_URL": served.address,
        "WIRTHFORGE_HOST_TOKEN_FILE": str(file),
    }
    return [str(Path(sys.executable).with_name("wirthforge")), "mcp", "serve"], environment


@pytest.mark.requirement("BEY-1")
@pytest.mark.parametrize("transport", ["http", "stdio"])
@pytest.mark.parametrize("era", REVISIONS)
async def test_an_unmodified_sdk_lists_calls_waits_for_a_yes_and_hears_of_changes(tmp_path, era, transport):
    await asyncio.to_thread(old_sdk)
    async with running_tools(tmp_path / "h", real=True) as served:
        secret = await served.token(SCOPE, label=f"{era} over {transport}")
        if transport == "http":
            asked = {"url": served.url, "token": secret}
        else:
            command, environment = command_line(served, tmp_path, secret)
            asked = {"command": command, "environment": environment}
        async with sdk(era=era, **asked) as saw:
            assert await saw("connected") == {
                "saw": "connected", "revision": REVISIONS[era], "server": "wirthforge-host",
            }  # fmt: skip
            assert (await saw("listed"))["names"] == [ECHO, ERASE, FAIL, HOLD, KEEP]
            assert (await saw("echoed"))["result"] == {
                "content": [{"type": "text", "text": '{"result":"hi"}'}],
                "structuredContent": {"result": "hi"},
                "isError": False,
            }
            failed = (await saw("failed"))["result"]
            assert (failed["isError"], "out of milk" in failed["content"][0]["text"]) == (True, True)
            refused = (await saw("refused"))["result"]
            assert (refused["isError"], "wrong" in refused["content"][0]["text"]) == (True, True)
            await saw("asking")
            assert await served.approve_pending() == f"{era} over {transport}"
            erased = await saw("erased")
            assert erased["result"]["structuredContent"] == {"result": "erased x"}
            assert erased["told"] == ["waiting for an operator's approval", "erased"]
            await saw("waiting")
            await served.host.disable(PLUGIN)
            assert (await saw("changed"))["names"] == []
            await saw("done")
        callers = {each.actor for each in await served.host.audited("call", plugin=PLUGIN)}
        assert callers == {f"operator:{era} over {transport}"}
