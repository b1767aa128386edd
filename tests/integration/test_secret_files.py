"""Secrets of a program that knows no host: an unmodified MCP server finds them in files, before it starts."""

import os
import stat

import pytest

from tests.fakes.packages import make_package
from tests.fakes.runtime_host import PLUGIN, runtime_host
from tests.fakes.world import world_on_engine
from wirthforge_host.configuration.redaction import REDACTED
from wirthforge_sdk.contracts.configuration_api import Outcome
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.errors import UnavailableError

MANIFEST = f"""
manifest_version = 1
name = "{PLUGIN}"
version = "1.0.0"
summary = "Looks for its secrets."
authors = ["The WirthForge authors"]
license = "MIT"
[runtime]
type = "mcp"
entry = "looking"
[[permissions]]
need = "secrets.read:api-key"
reason = "To log in."
[[permissions]]
need = "secrets.read:unset"
reason = "To be missed."
optional = true
[[permissions]]
need = "secrets.read:denied"
reason = "To be denied."
optional = true
"""

SERVER = """
import json, os, stat, sys

def seen():
    path = os.environ.get("API_KEY_FILE", "")
    mode = os.stat(path).st_mode
    with open(path) as file:
        key = file.read()
    directory = os.stat(os.path.dirname(path))
    return {
        "key": key,
        "mode": oct(stat.S_IMODE(mode)),
        "directory": [oct(stat.S_IMODE(directory.st_mode)), directory.st_uid == os.getuid()],
        "names": sorted(name for name in os.environ if name.endswith("_FILE")),
        "in environment": any(key in value for value in os.environ.values()),
    }

for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if method == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "old", "version": "1"}}
    elif method == "tools/list":
        tool = {"name": "look", "description": "Looks.", "inputSchema": {"type": "object"}}
        result = {"tools": [tool]}
    elif method == "tools/call":
        told = seen()
        print("the key is", told["key"], file=sys.stderr)
        result = {"content": [], "structuredContent": told}
    elif "id" in message:
        unknown = {"code": -32601, "message": "no such method"}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": unknown}), flush=True)
        continue
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""

KEY = "k3y-é-of-the-service"


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "p" / "src").mkdir(parents=True)
    (tmp_path / "p" / "plugin.toml").write_text(MANIFEST)
    (tmp_path / "p" / "src" / "looking.py").write_text(SERVER)
    (tmp_path / "memory").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "memory"))
    return tmp_path / "p"


async def given(services):
    async with services.storage._database.transaction() as tx:
        for name in ("api-key", "denied"):
            await services.secrets.set(tx, PLUGIN, name, KEY, author="operator:me")


async def test_a_server_finds_its_secret_in_a_file_that_only_it_reads(project, tmp_path):
    async with runtime_host(project, ["secrets.read:api-key"], prepare=given) as host:
        assert host.session.protocol == "2025-11-25"
        told = await host.call("look")
        assert told == {
            "key": KEY,
            "mode": "0o400",
            "directory": ["0o700", True],
            "names": ["API_KEY_FILE"],
            "in environment": False,
        }
        (file,) = (tmp_path / "memory" / "secrets").iterdir()
        assert (file.name, stat.S_IMODE(file.stat().st_mode), file.stat().st_uid) == (
            "api-key",
            0o400,
            os.getuid(),
        )
        async with host.services.logs.subscribe(PLUGIN, after=0) as lines:
            assert (await anext(lines)).message == f"the key is {REDACTED}"


async def test_without_its_grant_there_is_no_file(project, tmp_path):
    async with runtime_host(project, prepare=given) as host:
        with pytest.raises(UnavailableError):
            await host.session.call("look", {}, timeout_s=5, call_id="c")
    assert not (tmp_path / "memory" / "secrets").exists()


@pytest.mark.engine
async def test_in_its_container_the_file_is_in_memory_and_its_name_in_the_environment(tmp_path):
    package = make_package(
        runtime='type = "mcp"\nentry = "plugin"',
        source=SERVER,
        functions=[Function(name="look", description="Looks.", input_schema={"type": "object"})],
        permissions=["secrets.read:api-key"],
    )
    async with world_on_engine(tmp_path / "h", package) as host:
        await host.install()
        waiting = await host.approve("secrets.read:api-key")
        assert "the secret api-key is not set" in waiting.cause
        made = await host.wiring.provisioning.set_secret(waiting.name, "api-key", KEY, host.operator)
        assert made.delivery.outcome is Outcome.APPLIED
        told = (await host.call("look")).structured
        assert told == {
            "key": KEY,
            "mode": "0o400",
            "directory": ["0o700", True],
            "names": ["API_KEY_FILE"],
            "in environment": False,
        }
        again = await host.wiring.provisioning.set_secret(waiting.name, "api-key", "another", host.operator)
        assert again.delivery.outcome is Outcome.AT_NEXT_START
        await host.disable()
        await host.enable()
        assert (await host.call("look")).structured["key"] == "another"
