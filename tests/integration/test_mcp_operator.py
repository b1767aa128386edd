"""What an operator does for MCP clients with the command and over HTTP: tokens, and calls that wait."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.fakes.mcp_host import ERASE, PLUGIN, clean_environment, raw_client, running_tools

BOUND_S = 30


@asynccontextmanager
async def operator(tmp_path):
    """A host, and the command of its operator: what it prints as JSON, with its exit code."""
    async with running_tools(tmp_path / "h") as served:
        file = tmp_path / "token"
        file.write_text(await served.token("read", "operate", "call", label="operator"))
        environment = {
            **clean_environment(),
            "WIRTHFORGE_CONFIG_DIR": str(tmp_path / "config"),
            "WIRTHFORGE_HOST_URL": served.address,
            "WIRTHFORGE_HOST_TOKEN_FILE": str(file),
        }

        async def run(*arguments):
            process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).with_name("wirthforge")),
                *arguments,
                "--json",
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
            told, problem = await asyncio.wait_for(process.communicate(), BOUND_S)
            return process.returncode, json.loads(told or problem)

        yield served, run


@pytest.mark.requirement("BEY-1", "DEV-2")
async def test_an_operator_makes_a_token_decides_on_its_calls_and_revokes_it(tmp_path):
    async with operator(tmp_path) as (served, run):
        secret = tmp_path / "client.token"
        code, made = await run("token", "new", "desktop", "--scope", "call:demo/*", "--out", str(secret))
        assert (code, made["scopes"], "secret" in made) == (0, ["call:demo/*"], False)
        assert secret.stat().st_mode & 0o777 == 0o600
        async with raw_client(served) as client:
            client.http.headers["Authorization"] = f"Bearer {secret.read_text().strip()}"
            params = {"name": ERASE, "arguments": {"name": "all of it"}}
            asked = asyncio.create_task(client.modern("tools/call", params))
            async with asyncio.timeout(BOUND_S):
                while not (waiting := (await run("calls", "pending"))[1]["items"]):
                    pass
            [one] = waiting
            assert (one["caller"], one["plugin"], one["function"]) == ("desktop", PLUGIN, "erase")
            assert (one["arguments"], one["destructive"]) == ({"name": "all of it"}, True)
            assert (await run("calls", "approve", one["id"], "--always"))[0] == 0
            assert (await asked).json()["result"]["structuredContent"] == {"result": "erased all of it"}
            [stands] = (await run("calls", "standing"))[1]["items"]
            assert (stands["token"], stands["function"]) == (made["id"], "erase")
            assert (await run("calls", "forget", stands["id"]))[0] == 0
            assert (await run("calls", "forget", stands["id"]))[0] == 5
            assert (await run("calls", "deny", one["id"]))[0] == 5
            assert (await run("token", "revoke", made["id"]))[0] == 0
            assert (await client.modern("tools/list")).status_code == 401
        listed = {each["label"]: each for each in (await run("token", "list"))[1]["items"]}
        assert listed["desktop"]["revoked_at"] is not None
        assert secret.read_text().strip() not in json.dumps(listed)


@pytest.mark.parametrize(
    ("scopes", "wanted", "status"),
    [
        (["operate"], ["operate"], 201),
        (["operate"], ["call"], 403),
        (["operate"], ["call:demo/*"], 403),
        (["operate", "call"], ["call:demo/*"], 201),
        (["operate", "call:demo/*"], ["call:demo/tools"], 201),
        (["operate", "call:demo/*"], ["call:*/*"], 403),
        (["operate", "call"], ["call:demo"], 422),
        (["operate", "call"], ["call:[a]/b"], 422),
        (["operate"], [], 422),
    ],
)
async def test_a_token_makes_none_that_may_do_more(tmp_path, scopes, wanted, status):
    async with running_tools(tmp_path / "h") as served:
        headers = {"Authorization": f"Bearer {await served.token(*scopes)}"}
        async with httpx.AsyncClient(base_url=served.address, trust_env=False) as http:
            answer = await http.post("/v1/tokens", json={"label": "x", "scopes": wanted}, headers=headers)
        assert answer.status_code == status, answer.text


async def test_tokens_for_some_functions_are_good_after_the_host_is_started_again(tmp_path):
    async with running_tools(tmp_path / "h") as served:
        secret = await served.token("call:demo/tools.e*")
        await served.host.wiring.tokens.load()
        caller = served.host.wiring.tokens.authenticate(secret)
        assert (caller.tools, caller.scopes) == (frozenset({"demo/tools.e*"}), frozenset())
